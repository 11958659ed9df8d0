"""What a search for a fact's neurons found."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from workbench.interp.parts import Part

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Tried:
    """The answer's probability, with neurons suppressed (x 0) and enhanced (x 2) where it is read off."""

    probability: Float[np.ndarray, " prompt"]
    suppressed: Float[np.ndarray, " prompt"]
    enhanced: Float[np.ndarray, " prompt"]
    random_suppressed: Float[np.ndarray, "draw prompt"]
    """The same with random other neurons, as many in each layer."""
    random_enhanced: Float[np.ndarray, "draw prompt"]


@dataclasses.dataclass(frozen=True)
class KnowledgeNeurons:
    """The neurons of a fact, and the answer's probability without and with more of them."""

    neurons: tuple[Part, ...]
    """Those kept, the highest mean score first."""
    layers: Int[np.ndarray, " layer"]
    scores: Float[np.ndarray, "prompt layer neuron"]
    """Integrated gradients of the answer's probability, from zero activations."""
    above: Float[np.ndarray, "layer neuron"]
    """Share of prompts in which a neuron's score is above the threshold."""
    threshold: float
    share: float
    tried: dict[str, Tried]
    """On `facts`, the prompts that the neurons were found by; if there are any, on `test` and `others`."""

    def to_frame(self) -> "pd.DataFrame":
        """One row a neuron that was kept: neuron, layer, unit, score (mean), above (share of prompts)."""
        import pandas as pd

        rows = []
        for part in self.neurons:
            at = int(np.flatnonzero(self.layers == part.layer)[0]), part.unit
            rows.append((part.label, part.layer, part.unit, self.scores.mean(0)[at], self.above[at]))
        return pd.DataFrame(rows, columns=["neuron", "layer", "unit", "score", "above"])

    def effects(self) -> "pd.DataFrame":
        """What suppressing and enhancing do, by set of prompts: the answer's mean probability before, after,
        its change as a share, that of random neurons (mean and 95 % of the draws), and the share of
        draws that move it as far (p, the neurons themselves counted as one draw)."""
        import pandas as pd

        rows = []
        for on, tried in self.tried.items():
            before = tried.probability.mean()
            for what in ("suppressed", "enhanced"):
                after, random = (getattr(tried, name).mean(-1) for name in (what, f"random_{what}"))
                change, drawn = after / before - 1, random / before - 1
                low, high = np.quantile(drawn, [0.025, 0.975])
                p = (1 + (np.abs(drawn) >= abs(change)).sum()) / (1 + len(drawn))
                rows.append((on, what, before, after, change, drawn.mean(), low, high, p))
        names = ["on", "neurons", "before", "after", "change", "random", "random_low", "random_high", "p"]
        return pd.DataFrame(rows, columns=names)

    def plot(self, ax: Any = None) -> Any:
        """The changes beside those of random neurons, as bars; needs matplotlib. Returns the axes."""
        from workbench.plots.neuron_attribution import plot_knowledge

        return plot_knowledge(self, ax)

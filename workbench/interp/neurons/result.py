"""What an attribution to neurons found."""

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    import pandas as pd


class ScoredNeuron(NamedTuple):
    """A neuron, perhaps at a position, and its mean score."""

    label: str
    """Such as `L2N17`; `workbench.interp.ablation.ablate` and `parts` take it as it is."""
    layer: int
    neuron: int
    pos: int | None
    value: float


@dataclasses.dataclass(frozen=True)
class NeuronAttribution:
    """How much each neuron raises a metric; above 0 it helps."""

    method: str
    baseline: str
    """What a neuron is compared with: `zero`, `mean` or `other`."""
    metric: str
    layers: Int[np.ndarray, " layer"]
    positions: Int[np.ndarray, " pos"] | None
    """None if all positions are taken together."""
    per_pair: Float[np.ndarray, "pair layer pos neuron"]
    """In the metric's unit; `pos` has one entry if all positions are taken together."""
    base: Float[np.ndarray, " pair"]
    """The metric of the run."""
    without: Float[np.ndarray, "layer pair"] | None
    """The metric with all of a layer's neurons at their baseline; integrated gradients only."""
    tokens: tuple[str, ...]
    """Of the first prompt."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of `value`."""
        return ("layer", "neuron") if self.positions is None else ("layer", "pos", "neuron")

    @property
    def value(self) -> Float[np.ndarray, "..."]:
        """Mean over pairs, one axis for each name in `axes`."""
        mean = self.per_pair.mean(0)
        return mean[:, 0] if self.positions is None else mean

    @property
    def rest(self) -> Float[np.ndarray, "layer pair"] | None:
        """How far integrated gradients are from complete: what setting a layer's neurons to their baseline
        takes from the metric, less the sum of their scores. More steps make it smaller."""
        if self.without is None:
            return None
        return self.base - self.without - self.per_pair.sum((2, 3)).T

    def top(self, count: int = 10) -> list[ScoredNeuron]:
        """The strongest, either sign, the largest first."""
        mean = self.per_pair.mean(0)
        order = np.argsort(-np.abs(mean), axis=None, kind="stable")[:count]
        found = []
        for layer, pos, neuron in zip(*np.unravel_index(order, mean.shape), strict=True):
            number = int(self.layers[layer])
            place = None if self.positions is None else int(self.positions[pos])
            score = float(mean[layer, pos, neuron])
            found.append(ScoredNeuron(f"L{number}N{neuron}", number, int(neuron), place, score))
        return found

    def to_frame(self) -> "pd.DataFrame":
        """One row a neuron (and position): layer, pos, neuron, value, standard error over pairs."""
        import pandas as pd

        pairs, layers, places, width = self.per_pair.shape
        columns: dict[str, Any] = {"layer": np.repeat(self.layers, places * width)}
        if self.positions is not None:
            columns["pos"] = np.tile(np.repeat(self.positions, width), layers)
        columns["neuron"] = np.tile(np.arange(width), layers * places)
        error = self.per_pair.std(0, ddof=1).ravel() / pairs**0.5 if pairs > 1 else np.nan
        return pd.DataFrame(columns).assign(value=self.per_pair.mean(0).ravel(), error=error)

    def plot(self, ax: Any = None, count: int = 20) -> Any:
        """The strongest neurons, as a map over positions or as bars; needs matplotlib.

        Args:
            ax: matplotlib axes; new ones if not set.
            count: neurons drawn.

        Returns:
            The axes.
        """
        from workbench.plots.neuron_attribution import plot_neurons

        return plot_neurons(self, ax, count)

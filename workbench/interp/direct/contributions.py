"""What an attribution found: log-probabilities as sums over components, of a text and of a pair."""

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from workbench.evals.protocols import Protocol
from workbench.interp.direct.component import Component

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class TextAttribution:
    """Each scored token's log-probability, as a sum over components."""

    text: str
    ids: Int[np.ndarray, " pos"]
    """The scored tokens."""
    tokens: tuple[str, ...]
    """The same as text."""
    log_probs: Float[np.ndarray, " pos"]
    """log p(token | context), nats."""
    contributions: Float[np.ndarray, "pos component"]
    """Nats by which each component raises the token's log-probability above the uniform guess."""
    components: tuple[Component, ...]
    uniform: float
    """log(1 / d_vocab): where the contributions start from."""
    contexts: Int[np.ndarray, "row key_pos"]
    """What the model read: one row for a causal model, a masked copy for each token of a masked one."""
    rows: Int[np.ndarray, " pos"]
    """The row each token was read off in."""
    places: Int[np.ndarray, " pos"]
    """The position in that row where it was read off."""

    @property
    def log_prob(self) -> float:
        """Of the whole text, in nats; for a masked model the pseudo-log-likelihood."""
        return math.fsum(self.log_probs)

    @property
    def rest(self) -> Float[np.ndarray, " pos"]:
        """What rounding leaves: log-probability - uniform - sum of contributions."""
        return self.log_probs - self.uniform - self.contributions.sum(-1)

    def folded(self) -> "TextAttribution":
        """The same with each MLP's neurons in one sum, and all biases in another."""
        components, values = folded(self.components, self.contributions)
        return dataclasses.replace(self, components=components, contributions=values)

    def to_frame(self) -> "pd.DataFrame":
        """One row a token and component: position, token, log_prob, component, kind, layer, head, nats."""
        import pandas as pd

        count = len(self.components)
        frame = pd.DataFrame(
            {
                "position": np.repeat(np.arange(len(self.ids)), count),
                "token": np.repeat(np.array(self.tokens, dtype=object), count),
                "log_prob": np.repeat(self.log_probs, count),
                **columns(self.components * len(self.ids)),
            }
        )
        return frame.assign(nats=self.contributions.ravel())

    def plot(self, ax: Any = None) -> Any:
        """Contributions as a component x token map; needs matplotlib. Returns the axes."""
        from workbench.plots.contributions import plot_text

        return plot_text(self, ax)


@dataclasses.dataclass(frozen=True)
class PairAttribution:
    """The log-probability difference of a minimal pair, good minus bad, as a sum over components.

    Positive contributions help the grammatical sentence.
    """

    good: TextAttribution
    bad: TextAttribution
    place: int
    """The scored token at which the sentences first differ, counted from 0: the shown position."""
    same_context: bool
    """Whether the two tokens there are predicted from the same context. Then both predictions share their
    normaliser, and the difference of log-probabilities is exactly the difference of logits."""
    protocol: Protocol
    pll: str | None

    @property
    def components(self) -> tuple[Component, ...]:
        """The columns of every contribution."""
        return self.good.components

    @property
    def token_good(self) -> str | None:
        """The grammatical sentence's token at the shown position; None if it ended before."""
        return self.good.tokens[self.place] if self.place < len(self.good.ids) else None

    @property
    def token_bad(self) -> str | None:
        """The ungrammatical sentence's token at the shown position; None if it ended before."""
        return self.bad.tokens[self.place] if self.place < len(self.bad.ids) else None

    @cached_property
    def at_place(self) -> Float[np.ndarray, " component"]:
        """Contributions to the difference at the shown position, nats."""
        return self._at(self.good) - self._at(self.bad)

    @cached_property
    def whole(self) -> Float[np.ndarray, " component"]:
        """Contributions to the difference of the whole sentences, summed over positions, nats."""
        return self.good.contributions.sum(0) - self.bad.contributions.sum(0)

    @property
    def uniform_at_place(self) -> float:
        """The uniform guess for a token that only one sentence has at the shown position; else 0."""
        return self.good.uniform * ((self.token_good is not None) - (self.token_bad is not None))

    @property
    def uniform_whole(self) -> float:
        """The uniform guess for the tokens that one sentence has more than the other; 0 at equal length."""
        return self.good.uniform * (len(self.good.ids) - len(self.bad.ids))

    @property
    def difference_at_place(self) -> float:
        """log p(good token) - log p(bad token) at the shown position, nats."""
        good, bad = (
            float(side.log_probs[self.place]) if self.place < len(side.ids) else 0.0
            for side in (self.good, self.bad)
        )
        return good - bad

    @property
    def difference(self) -> float:
        """log p(good sentence) - log p(bad sentence), nats: above 0, the model is right."""
        return self.good.log_prob - self.bad.log_prob

    @property
    def share(self) -> float | None:
        """Which part of the whole difference the shown position carries; outside 0 to 1 where other
        positions pull the other way; None if the difference is 0."""
        return self.difference_at_place / self.difference if self.difference else None

    @property
    def rest_at_place(self) -> float:
        """Difference at the shown position - uniform - sum of contributions: rounding only."""
        return self.difference_at_place - self.uniform_at_place - math.fsum(self.at_place)

    @property
    def rest(self) -> float:
        """Whole difference - uniform - sum of contributions: rounding only."""
        return self.difference - self.uniform_whole - math.fsum(self.whole)

    def folded(self) -> "PairAttribution":
        """The same with each MLP's neurons in one sum, and all biases in another."""
        return dataclasses.replace(self, good=self.good.folded(), bad=self.bad.folded())

    def top(self, count: int = 5, whole: bool = False) -> list[tuple[Component, float]]:
        """The components with the largest contributions, either sign, largest first."""
        values = self.whole if whole else self.at_place
        order = np.argsort(-np.abs(values), kind="stable")[:count]
        return [(self.components[index], float(values[index])) for index in order]

    def to_frame(self) -> "pd.DataFrame":
        """One row a component: component, kind, layer, head, at_place, whole (nats)."""
        import pandas as pd

        frame = pd.DataFrame(columns(self.components))
        return frame.assign(at_place=self.at_place, whole=self.whole)

    def plot(self, ax: Any = None, whole: bool = False) -> Any:
        """Contributions as a layer x component map with symmetric limits; needs matplotlib.

        Args:
            ax: matplotlib axes; new ones if not set.
            whole: of the whole sentences instead of the shown position.

        Returns:
            The axes.
        """
        from workbench.plots.contributions import plot_pair

        return plot_pair(self, ax, whole)

    def _at(self, side: TextAttribution) -> Float[np.ndarray, " component"]:
        if self.place < len(side.ids):
            return side.contributions[self.place]
        return np.zeros(len(side.components))


def folded(
    components: Sequence[Component], values: Float[np.ndarray, "*rows component"]
) -> tuple[tuple[Component, ...], Float[np.ndarray, "*rows coarse"]]:
    """Contributions with each MLP's neurons in one sum, and all biases in another."""
    names: dict[Component, list[int]] = {}
    for index, component in enumerate(components):
        if component.kind == "neuron":
            component = Component(f"L{component.layer} MLP", "mlp", component.layer)
        elif component.kind == "bias":
            component = Component("biases", "biases")
        names.setdefault(component, []).append(index)
    return tuple(names), np.stack([values[..., chosen].sum(-1) for chosen in names.values()], -1)


def columns(chosen: Sequence[Component]) -> dict[str, Any]:
    """What components are, as columns of a table; `neuron` only if there are some."""
    import pandas as pd

    numbers = ["layer", "head", *["neuron"] * any(component.neuron is not None for component in chosen)]
    return {
        "component": [component.label for component in chosen],
        "kind": [component.kind for component in chosen],
        **{name: pd.array([getattr(one, name) for one in chosen], dtype="Int64") for name in numbers},
    }

"""What attention heads look at: scores, each beside what uniform attention and an untrained copy give.

A score is the mean attention to the keys that a pattern names, over the queries for which the pattern is
possible. The names of the usual ones are Elhage et al.'s 2021 (transformer-circuits.pub/2021/framework) and
Olsson et al.'s 2022 (arXiv:2209.11895).
"""

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from workbench.errors import InputError, nearest
from workbench.interp.heads.copies import CopyLoss

if TYPE_CHECKING:
    import pandas as pd

LEAST = 0.1
"""How much of what the baseline leaves over a pattern must take for a head to be called by it."""
OTHER = "other"


@dataclasses.dataclass(frozen=True)
class Measured:
    """Mean attention to each of several patterns; NaN where a pattern is possible for no query."""

    value: Float[np.ndarray, "score layer head"]
    low: Float[np.ndarray, "score layer head"]
    """End of the 95 % bootstrap interval over sequences; 0 to 1 where fewer than two have the pattern."""
    high: Float[np.ndarray, "score layer head"]
    uniform: Float[np.ndarray, "score layer"]
    """What equal attention to all keys that the mask allows gives, exactly."""
    untrained: Float[np.ndarray, "score layer head"]
    """The same of an untrained copy: same configuration, other seed. NaN if there was none."""
    untrained_high: Float[np.ndarray, "score layer head"]
    """The upper end of the copy's interval."""
    queries: Int[np.ndarray, "score layer"]
    """For how many queries the pattern is possible."""


@dataclasses.dataclass(frozen=True)
class HeadScores:
    """Scores of all heads of a model; `layers` are the blocks that have attention."""

    names: tuple[str, ...]
    """Of the scores: patterns such as `previous`; `_unigram` is the same on tokens drawn from the corpus."""
    layers: Int[np.ndarray, " layer"]
    scores: Measured
    offsets: Int[np.ndarray, " offset"]
    """Distances query - key of `profile`; below 0 for keys that come later."""
    profile: Measured
    """Mean attention at each distance, along its first axis."""
    copying: Float[np.ndarray, "layer head"]
    """See `workbench.interp.heads.circuits.copying_scores`."""
    copying_untrained: Float[np.ndarray, "layer head"]
    exchangeable: bool
    """Whether the heads of an untrained layer differ by chance only; ALiBi's differ by their slopes."""
    omitted: dict[str, str]
    """Scores that were not taken, and why."""
    copies: dict[str, CopyLoss]
    """Loss on the second minus the first copy in `[BOS] r r`, r drawn `uniform` or `unigram`; empty for
    bidirectional models and where no repeated tokens were read."""
    sequences: int
    tokens: int
    seed: int

    @property
    def axes(self) -> tuple[str, str, str]:
        """Names of the axes of `scores.value`."""
        return ("score", "layer", "head")

    def of(self, name: str) -> Float[np.ndarray, "layer head"]:
        """One score of all heads; `copying` too.

        Raises:
            InputError: there is no such score; says why, or names the nearest.
        """
        if name == "copying":
            return self.copying
        return self.scores.value[self.index(name)]

    def index(self, name: str) -> int:
        """Which row of `scores` a name stands for.

        Raises:
            InputError: there is no such score.
        """
        if name in self.omitted:
            raise InputError(f"the score {name} was left out: {self.omitted[name]}.")
        if name not in self.names:
            raise InputError(f"no score is called {name!r}. {nearest(name, self.names)}")
        return self.names.index(name)

    @property
    def baseline(self) -> Float[np.ndarray, "score layer head"]:
        """What a head must exceed: uniform attention, and the upper end of the untrained copy's interval.

        A copy's head 3 has nothing in common with the model's head 3, so the largest of its layer stands
        for all of them where heads are `exchangeable`.
        """
        copy = self.scores.untrained_high
        if self.exchangeable:
            copy = np.broadcast_to(copy.max(-1, keepdims=True), copy.shape)
        return np.fmax(self.scores.uniform[:, :, None], copy)

    @property
    def excess(self) -> Float[np.ndarray, "score layer head"]:
        """(score - baseline) / (1 - baseline): the share that it takes of what the baseline leaves over.

        0 where the score's own interval reaches down to the baseline, or nothing is left over.
        """
        base, found = self.baseline, self.scores
        above = (found.low > base) & (base < 1)
        return np.where(above, (found.value - base) / np.where(above, 1 - base, 1.0), 0.0)

    @cached_property
    def classes(self) -> np.ndarray:
        """The pattern of the greatest `excess` of each head, [layer head]; `other` if it is under 0.1.

        `_unigram` scores count for the pattern that they are a variant of.
        """
        labels = np.array([*(name.removesuffix("_unigram") for name in self.names), OTHER], dtype=object)
        if not self.names:
            return np.full(self.copying.shape, OTHER, dtype=object)
        best = self.excess.argmax(0)
        return labels[np.where(self.excess.max(0) >= LEAST, best, len(self.names))]

    def to_frame(self) -> "pd.DataFrame":
        """One row a head and score: layer, head, score, value, low, high, uniform, untrained,
        untrained_high, excess, queries, class. Copying is the last score; it has no interval."""
        return _frame(self, "score", self.names, self.scores, self.excess, self._copying_rows())

    def profile_frame(self) -> "pd.DataFrame":
        """One row a head and distance: layer, head, offset, value, low, high, uniform, untrained, ..."""
        return _frame(self, "offset", self.offsets, self.profile)

    def _copying_rows(self) -> "pd.DataFrame":
        import pandas as pd

        layer, head = _places(self)
        return pd.DataFrame(
            {
                "layer": layer, "head": head, "score": "copying", "value": self.copying.ravel(),
                "untrained": self.copying_untrained.ravel(), "class": self.classes.ravel(),
            }
        )  # fmt: skip

    def plot(self, score: str | None = None, ax: Any = None) -> Any:
        """Layer x head map of one score, or of all of them on one page; needs matplotlib.

        Returns:
            The axes; the figure if no score is named.
        """
        from workbench.plots.heads import plot_all, plot_score

        return plot_all(self) if score is None else plot_score(self, score, ax)


def _places(found: HeadScores) -> tuple[np.ndarray, np.ndarray]:
    """Layer and head of each cell of a [layer head] array, flat."""
    heads = found.copying.shape[1]
    return found.layers.repeat(heads), np.tile(np.arange(heads), len(found.layers))


def _frame(
    found: HeadScores, key: str, keys: Any, measured: Measured, excess: Any = None, more: Any = None
) -> "pd.DataFrame":
    import pandas as pd

    shape = measured.value.shape
    layer, head = _places(found)
    frame = pd.DataFrame(
        {
            "layer": np.tile(layer, shape[0]),
            "head": np.tile(head, shape[0]),
            key: np.array(keys, dtype=object if key == "score" else np.int64).repeat(shape[1] * shape[2]),
            "value": measured.value.ravel(),
            "low": measured.low.ravel(),
            "high": measured.high.ravel(),
            "uniform": measured.uniform.repeat(shape[2]),
            "untrained": measured.untrained.ravel(),
            "untrained_high": measured.untrained_high.ravel(),
            "queries": measured.queries.repeat(shape[2]),
        }
    )
    if excess is not None:
        frame = frame.assign(excess=excess.ravel(), **{"class": np.tile(found.classes.ravel(), shape[0])})
    return frame if more is None else pd.concat([frame, more], ignore_index=True)

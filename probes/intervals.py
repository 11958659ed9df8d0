"""Bootstrap intervals of ratios of sums over groups (Efron & Tibshirani 1993, chapters 8 and 13).

Words of one sentence stand or fall together, so whole groups are drawn. All scores are drawn with the same
groups, so that differences between layers, models and checkpoints are paired.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from workbench.stats import generator

DRAWS = 1000
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float
    groups: int
    """That it rests on."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def ratios(
    gained: Float[np.ndarray, "score group"], of: Float[np.ndarray, "score group"]
) -> tuple[
    Float[np.ndarray, " score"],
    Float[np.ndarray, " score"],
    Float[np.ndarray, " score"],
    Float[np.ndarray, "draw score"],
]:
    """Scores (sum of gained / sum of possible), the ends of their intervals, and all draws of them.

    Args:
        gained: what each group adds to each score.
        of: what it could add; 0 where a score has nothing of the group.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        score = gained.sum(1) / of.sum(1)
        drawn = _drawn(gained, of)
    quantiles = np.full((2, len(score)), np.nan)
    some = np.isfinite(drawn).any(0)
    tail = (1 - CONFIDENCE) / 2
    quantiles[:, some] = np.nanquantile(drawn[:, some], [tail, 1 - tail], axis=0)
    return score, quantiles[0], quantiles[1], drawn


def paired(
    gained: Float[np.ndarray, " group"],
    of: Float[np.ndarray, " group"],
    other_gained: Float[np.ndarray, " group"],
    other_of: Float[np.ndarray, " group"],
) -> Interval:
    """The difference of two scores on the same groups."""
    score, _, _, drawn = ratios(np.stack([gained, other_gained]), np.stack([of, other_of]))
    apart = drawn[:, 0] - drawn[:, 1]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(apart, [tail, 1 - tail])
    return Interval(float(score[0] - score[1]), float(low), float(high), len(gained))


def _drawn(gained: np.ndarray, of: np.ndarray) -> Float[np.ndarray, "draw score"]:
    groups = gained.shape[1]
    random = generator(0, "probe intervals", groups)
    top, bottom = gained.T.astype(np.float32), of.T.astype(np.float32)
    found = np.empty((DRAWS, gained.shape[0]))
    for first in range(0, DRAWS, 100):  # some groups and draws at a time
        size = min(100, DRAWS - first)
        picks = random.integers(0, groups, (size, groups)) + groups * np.arange(size)[:, None]
        weights = np.bincount(picks.ravel(), minlength=size * groups).reshape(size, groups).astype(np.float32)
        found[first : first + size] = (weights @ top).astype(np.float64) / (weights @ bottom)
    return found

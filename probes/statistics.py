"""Bootstrap over groups (sentences, stories, pairs), and paired intervals between whatever was scored on
them."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from workbench.errors import InputError
from workbench.seeds import generator

DRAWS = 1000
AT_ONCE = 1 << 22


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean, or a difference of two, with its percentile interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside: a difference that other sentences would have shown too."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """Means of every score under the same draws of groups, so that differences are paired."""

    value: Float[np.ndarray, " score"]
    draws: Float[np.ndarray, "draw score"]
    confidence: float
    groups: int

    def interval(self, score: int) -> Interval:
        """Of one score."""
        return self._of(float(self.value[score]), self.draws[:, score])

    def difference(self, score: int, other: int) -> Interval:
        """Of `score` minus `other`, draw by draw: layers, models, checkpoints on the same groups."""
        return self._of(
            float(self.value[score] - self.value[other]), self.draws[:, score] - self.draws[:, other]
        )

    def intervals(self) -> list[Interval]:
        """Of every score."""
        return [self.interval(score) for score in range(len(self.value))]

    def mean_of(self, scores: list[int]) -> Interval:
        """Of the mean of several scores, such as the seeds of one layer."""
        return self._of(float(self.value[scores].mean()), self.draws[:, scores].mean(1))

    def mean_difference(self, scores: list[int], others: list[int]) -> Interval:
        """Of one mean of several minus another."""
        drawn = self.draws[:, scores].mean(1) - self.draws[:, others].mean(1)
        return self._of(float(self.value[scores].mean() - self.value[others].mean()), drawn)

    def _of(self, value: float, drawn: np.ndarray) -> Interval:
        tail = (1 - self.confidence) / 2
        drawn = drawn[np.isfinite(drawn)]
        if not len(drawn):
            return Interval(value, float("nan"), float("nan"))
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return Interval(value, float(low), float(high))


def bootstrap(
    scores: Float[np.ndarray, "score row"],
    group: Int[np.ndarray, " row"],
    weight: Float[np.ndarray, "score row"] | None = None,
    *,
    draws: int = DRAWS,
    confidence: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Resample groups with replacement; a group brings all of its rows, because words of a sentence are not
    independent (Efron & Tibshirani 1993, chapter 8).

    Args:
        scores: of each row: 1 where a probe was right, nats, squared errors.
        group: of each row.
        weight: of each row in each score; 0 where a score does not speak of a row, so that seeds with other
            test rows stay paired by group.
        draws: how often groups are drawn.
        confidence: of the intervals.
        seed: the same seed draws the same groups.

    Raises:
        InputError: no rows, a score that is not finite, fewer than two groups, a confidence outside (0, 1).
    """
    if not scores.size:
        raise InputError("there are no scores to resample.")
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence}: a share between 0 and 1, such as 0.95.")
    found, index = np.unique(group, return_inverse=True)
    if len(found) < 2:
        raise InputError("a bootstrap needs two groups or more; there is one.")
    weight = np.ones_like(scores) if weight is None else weight
    if not np.isfinite(np.where(weight > 0, scores, 0)).all():
        raise InputError("a score is not finite; leave its row out by weight 0.")
    heavy = np.where(weight > 0, scores, 0) * weight
    sums = np.stack([np.bincount(index, one, minlength=len(found)) for one in heavy], 1)
    counts = np.stack([np.bincount(index, one, minlength=len(found)) for one in weight], 1)
    random = generator(seed, "bootstrap")
    step, drawn = max(1, AT_ONCE // len(found)), []
    with np.errstate(invalid="ignore", divide="ignore"):
        for at in range(0, draws, step):
            size = min(step, draws - at)
            picks = random.integers(len(found), size=(size, len(found)))
            picks += np.arange(size)[:, None] * len(found)
            times = (
                np.bincount(picks.ravel(), minlength=size * len(found)).reshape(size, -1).astype(np.float64)
            )
            drawn.append((times @ sums) / (times @ counts))
        value = sums.sum(0) / counts.sum(0)
    return Bootstrap(value, np.concatenate(drawn), confidence, len(found))

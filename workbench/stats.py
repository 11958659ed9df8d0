"""Seeds, intervals and tests: every number that the workbench reports next to a measurement comes from here.

Randomness is a pure function of (seed, stream, step), so there is no generator state to save or to lose.
"""

import dataclasses
import math
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

CONFIDENCE = 0.95
DRAWS = 2000
"""Bootstrap resamples."""


def derive(seed: int, stream: str, *steps: int) -> int:
    """Return a 63-bit seed for one purpose (`stream`) at one place (`steps`), independent of all others."""
    words = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *steps]).generate_state(2)
    return (int(words[0]) << 32 | int(words[1])) & (2**63 - 1)


def generator(seed: int, stream: str, *steps: int) -> np.random.Generator:
    """Return a NumPy generator for (seed, stream, steps); the same arguments give the same numbers."""
    return np.random.Generator(np.random.Philox(derive(seed, stream, *steps)))


class Estimate(NamedTuple):
    """A mean, or a fitted constant, and its interval; NaN limits where one value has no interval."""

    mean: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """The fitted constant, where the number is not a mean."""
        return self.mean

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"

    def exp(self) -> "Estimate":
        """Return e to the power of the number and of its limits; infinite where that overflows."""
        with np.errstate(over="ignore"):
            return Estimate(*(float(np.exp(limit)) for limit in self))


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A fraction of correct decisions in [0, 1] with its Wilson interval."""

    accuracy: float
    low: float
    high: float
    n: int
    """Number of pairs."""
    ties: int
    """Pairs whose two scores are equal."""

    def __str__(self) -> str:
        return f"{self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}]"


def wilson(accuracy: int | float, n: int | float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Wilson's score interval of a fraction (Wilson 1927).

    scipy's `binomtest(...).proportion_ci` takes whole successes only; here ties count half and `n` may be an
    effective number.

    Args:
        accuracy: the observed fraction.
        n: number of trials, or the effective number behind a weighted mean.
        confidence: of the interval.

    Raises:
        ValueError: `accuracy` outside [0, 1], or no trials.
    """
    from statistics import NormalDist  # scipy.stats takes a second to import, and `workbench list` needs this

    if not 0.0 <= accuracy <= 1.0 or not n > 0:
        raise ValueError(f"no interval for a fraction of {accuracy} in {n} trials")
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    centre = accuracy + z2 / (2 * n)
    reach = math.sqrt(z2 * (accuracy * (1 - accuracy) + z2 / (4 * n)) / n)
    low, high = (centre - reach) / (1 + z2 / n), (centre + reach) / (1 + z2 / n)
    # Exact at the ends, where the formula leaves a rounding error on the wrong side.
    return max(0.0, min(low, accuracy)), min(1.0, max(high, accuracy))


def weighted_accuracy(
    accuracies: Sequence[int | float], counts: Sequence[int], weights: Sequence[int | float], ties: int = 0
) -> Accuracy:
    """Return a weighted mean of accuracies with Wilson's interval for its effective number of pairs.

    The effective number is 1 / sum(w_i^2 / n_i), which equals the number of pairs when each pair has the same
    weight. Variation between strata is left in, so the interval is conservative. It describes the choice of
    pairs, not retraining: seeds alone move BLiMP by about a point.

    Args:
        accuracies: of each stratum.
        counts: pairs of each stratum.
        weights: of each stratum; scaled to sum to one.
        ties: passed on.
    """
    total = sum(weights)
    scaled = [weight / total for weight in weights]
    mean = math.fsum(weight * accuracy for weight, accuracy in zip(scaled, accuracies, strict=True))
    mean = min(1.0, max(0.0, mean))
    effective = 1 / math.fsum(weight**2 / n for weight, n in zip(scaled, counts, strict=True))
    return Accuracy(mean, *wilson(mean, effective), n=sum(counts), ties=ties)


def student_reach(
    error: float | np.ndarray, freedom: int | float | np.ndarray, confidence: float = CONFIDENCE
) -> float | np.ndarray:
    """Return the half-width of Student's interval for a standard error with `freedom` degrees of freedom."""
    from scipy.stats import t

    return t.ppf(0.5 + confidence / 2, freedom) * error


def bootstrap_mean(
    change: Float[np.ndarray, " pair"],
    groups: Shaped[np.ndarray, " pair"] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> Estimate:
    """Return the mean of paired changes with its percentile bootstrap interval (Efron 1979).

    A single pair has no interval (NaN). If no pair changed, every resample is zero and so is the interval.

    Args:
        change: after minus before, of each pair.
        groups: the paradigm of each pair; the estimate is then the mean of the paradigms' means, and pairs
            are resampled within their paradigm.
        seed: of the bootstrap.
        draws: number of resamples.
    """
    random = np.random.default_rng(seed)
    keys = np.zeros(len(change), np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_groups = int(keys.max()) + 1
    total, means = 0.0, np.zeros(draws)
    for key in range(n_groups):
        members = change[keys == key]
        # Resampling n pairs with replacement is drawing how often each distinct value occurs.
        values, counts = np.unique(members, return_counts=True)
        drawn = random.multinomial(len(members), counts / len(members), draws)
        means += drawn @ values / len(members)
        total += float(members.mean())
    return _percentiles(total / n_groups, means / n_groups, len(change))


def bootstrap_ratio(
    nats: Float[np.ndarray, " row"], tokens: Int[np.ndarray, " row"], seed: int = 0, draws: int = DRAWS
) -> Estimate:
    """Return the change of a mean over tokens with its interval under resampling of rows of text.

    Args:
        nats: change of each row's summed loss.
        tokens: scored tokens of each row.
        seed: of the bootstrap.
        draws: number of resamples.
    """
    random = np.random.default_rng(seed)
    means = np.empty(draws)
    for index in range(draws):
        rows = random.integers(len(nats), size=len(nats))
        means[index] = nats[rows].sum() / max(1, tokens[rows].sum())
    return _percentiles(float(nats.sum() / tokens.sum()), means, len(nats))


def _percentiles(mean: float, drawn: Float[np.ndarray, " draw"], count: int) -> Estimate:
    if count < 2:
        return Estimate(float(mean), math.nan, math.nan)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(float(mean), float(low), float(high))


class Flips(NamedTuple):
    """Decisions that a change turned (McNemar 1947)."""

    lost: int
    """Pairs that scored higher before."""
    gained: int
    """Pairs that score higher now."""
    p: float
    """Exact two-sided p-value of McNemar's test."""


def mcnemar(change: Float[np.ndarray, " pair"]) -> Flips:
    """Count lost and gained decisions and test their difference (McNemar's exact test).

    Args:
        change: of each pair's decision; a tie counts half, so changes may be fractions.
    """
    from scipy.stats import binomtest

    lost, gained = int((change < 0).sum()), int((change > 0).sum())
    p = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    return Flips(lost, gained, float(p))


def spearman(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Return Spearman's rank correlation; NaN if one side is constant."""
    from scipy.stats import spearmanr

    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    correlation: Any = spearmanr(first, second)  # scipy types it as a bare tuple
    return float(correlation.statistic)


def mean_effects(
    effect: Float[np.ndarray, "pair component"],
    margin: Float[np.ndarray, " pair"],
    groups: list[Bool[np.ndarray, " pair"]],
) -> dict[str, np.ndarray]:
    """Return each group's mean effects with Student's intervals, as arrays [group component].

    Args:
        effect: on the margin, nats; NaN where a pair has none.
        margin: of the whole model.
        groups: a mask of pairs for each group.

    Returns:
        `n` pairs; `effect`, their mean, with its interval `low` to `high` (NaN below two pairs); `lost` and
        `gained`, decisions that would turn wrong and right without the effect; `q`, two-sided p-values
        corrected over all cells (Benjamini & Hochberg 1995); `found`, True where the interval excludes 0.
    """
    from scipy import stats

    after = np.where(np.isnan(effect), margin[:, None], margin[:, None] - effect)
    before = margin[:, None] > 0
    turns = {"lost": before & (after <= 0), "gained": ~before & (after > 0)}
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("n", "effect", "low", "high", "p", *turns)}
    for members in groups:
        values = effect[members]
        n = (~np.isnan(values)).sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(n, np.nansum(values, 0) / n, np.nan)
            error = np.sqrt(np.nansum((values - mean) ** 2, 0) / (n - 1.0) / n)
            freedom = np.maximum(n - 1, 1)
            reach = np.where(n > 1, student_reach(error, freedom), np.nan)
            p = 2 * stats.t.sf(np.where(mean == 0, 0.0, np.abs(mean) / error), freedom)
        for name, column in zip(
            ("n", "effect", "low", "high", "p"), (n, mean, mean - reach, mean + reach, p), strict=True
        ):
            columns[name].append(column)
        for name, turned in turns.items():
            columns[name].append(turned[members].sum(0))
    table = {name: np.stack(values) for name, values in columns.items()}
    p, known = table.pop("p"), ~np.isnan(table["low"])
    table["q"] = np.full(p.shape, np.nan)
    if known.any():
        table["q"][known] = stats.false_discovery_control(p[known])
    table["found"] = (table["low"] > 0) | (table["high"] < 0)
    return table


def welch(
    right: Float[np.ndarray, "right component"], wrong: Float[np.ndarray, "wrong component"]
) -> tuple[np.ndarray, np.ndarray]:
    """Return Welch's interval of the difference of means; NaN where a side has fewer than two pairs."""
    if min(len(right), len(wrong)) < 2:
        return np.full(right.shape[1], np.nan), np.full(right.shape[1], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = [side.var(0, ddof=1) / len(side) for side in (right, wrong)]
        total = errors[0] + errors[1]
        freedom = total**2 / sum(e**2 / (len(s) - 1) for e, s in zip(errors, (right, wrong), strict=True))
        reach = np.where(total > 0, student_reach(np.sqrt(total), freedom), 0.0)
    middle = right.mean(0) - wrong.mean(0)
    return middle - reach, middle + reach

"""Changes of the same pairs under two models: their mean, its bootstrap interval, McNemar's counts."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

DRAWS = 2000
CONFIDENCE = 0.95


class Change(NamedTuple):
    """A mean change and its interval over drawing other pairs (Efron 1979: percentiles of the bootstrap)."""

    mean: float
    low: float
    high: float


class Flips(NamedTuple):
    """Decisions that a change turned round (McNemar 1947)."""

    lost: int
    """Pairs that were decided better before."""
    gained: int
    """Pairs that are decided better now."""
    p: float
    """Exact two-sided probability of counts as unequal as these if either were as likely."""


def mean_change(
    change: Float[np.ndarray, " pair"],
    groups: Shaped[np.ndarray, " pair"] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> Change:
    """The mean change, and its interval by drawing pairs again, each with both of its values.

    One pair has no interval (NaN). If no pair changed, every draw is zero and so is the interval: that says
    that these pairs do not change, not that no other would.

    Args:
        change: after minus before, of each pair.
        groups: a paradigm for each pair; the result is then the mean of the paradigms' means, and pairs are
            drawn inside their paradigm.
        seed: of the bootstrap.
        draws: its size.
    """
    random = np.random.default_rng(seed)
    keys = np.zeros(len(change), np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    total, means = 0.0, np.zeros(draws)
    for key in range(int(keys.max()) + 1):
        mine = change[keys == key]
        # Drawing n pairs with replacement is drawing how often each value comes.
        values, counts = np.unique(mine, return_counts=True)
        drawn = random.multinomial(len(mine), counts / len(mine), draws)
        means += drawn @ values / len(mine)
        total += float(mine.mean())
    return _interval(total / (keys.max() + 1), means / (keys.max() + 1), len(change))


def ratio_change(
    nats: Float[np.ndarray, " row"], tokens: Int[np.ndarray, " row"], seed: int = 0, draws: int = DRAWS
) -> Change:
    """The change of a mean over tokens, and its interval by drawing rows of text again.

    Args:
        nats: change of each row's summed loss.
        tokens: scored tokens of each row.
        seed: of the bootstrap.
        draws: its size.
    """
    random = np.random.default_rng(seed)
    means = np.empty(draws)
    for index in range(draws):
        rows = random.integers(len(nats), size=len(nats))
        means[index] = nats[rows].sum() / max(1, tokens[rows].sum())
    return _interval(float(nats.sum() / tokens.sum()), means, len(nats))


def flips(change: Float[np.ndarray, " pair"]) -> Flips:
    """How many decisions got worse and better, and how surprising the difference is.

    Args:
        change: of each pair's decision; ties may make it a fraction.
    """
    lost, gained = int((change < 0).sum()), int((change > 0).sum())
    n, fewer = lost + gained, min(lost, gained)
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)]
    tail = math.fsum(math.exp(log - n * math.log(2)) for log in logs)
    return Flips(lost, gained, min(1.0, 2 * tail))


def spearman(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN if one side is constant."""
    import pandas as pd

    one, other = (pd.Series(values).rank().to_numpy(float) for values in (first, second))
    if len(first) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(np.corrcoef(one, other)[0, 1])


def _interval(mean: float, drawn: Float[np.ndarray, " draw"], count: int) -> Change:
    if count < 2:
        return Change(float(mean), math.nan, math.nan)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Change(float(mean), float(low), float(high))

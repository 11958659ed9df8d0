"""Whether a number tells two groups of tokens apart: areas under the ROC curve, of many at once.

Each number is ranked once; the areas of all groups are then one matrix product, because the AUC is the rank
sum of Mann & Whitney 1947. Equal values count half.
"""

import dataclasses
import math
import zlib
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from scipy.stats import norm
from torch import Tensor

# Randomness as a pure function of (seed, stream, step): no generator state to save or to lose.


def derive(seed: int, stream: str, *steps: int) -> int:
    """A 63-bit seed for one purpose (`stream`) at one place (`steps`), independent of all others."""
    words = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *steps]).generate_state(2)
    return (int(words[0]) << 32 | int(words[1])) & (2**63 - 1)


def generator(seed: int, stream: str, *steps: int) -> np.random.Generator:
    """A NumPy generator for (seed, stream, steps); the same arguments give the same numbers."""
    return np.random.Generator(np.random.Philox(derive(seed, stream, *steps)))


# Shares of right decisions with Wilson intervals (Wilson 1927), for one paradigm and for means of many.


Number = int | float


@dataclasses.dataclass(frozen=True)
class Share:
    """A share in [0, 1] and its interval."""

    accuracy: float
    low: float
    high: float
    n: int
    """Pairs it rests on."""
    ties: int
    """Pairs with two equal scores among them."""

    def __str__(self) -> str:
        return f"{self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}]"


def wilson(accuracy: Number, n: Number, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Args:
        accuracy: the share observed; ties may have made it a multiple of 1 / 2n.
        n: number of trials, or the effective number behind a weighted mean.
        confidence: of the interval.

    Raises:
        ValueError: `accuracy` outside [0, 1] or no trials.
    """
    if not 0.0 <= accuracy <= 1.0 or not n > 0:
        raise ValueError(f"no interval for a share of {accuracy} in {n} trials")
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    centre = accuracy + z2 / (2 * n)
    reach = math.sqrt(z2 * (accuracy * (1 - accuracy) + z2 / (4 * n)) / n)
    low, high = (centre - reach) / (1 + z2 / n), (centre + reach) / (1 + z2 / n)
    # Exact at the ends, where the formula leaves a rounding error on the wrong side.
    return max(0.0, min(low, accuracy)), min(1.0, max(high, accuracy))


def weighted_share(
    accuracies: Sequence[Number], counts: Sequence[int], weights: Sequence[Number], ties: int = 0
) -> Share:
    """A weighted mean of shares, with Wilson's interval for as many pairs as its variance is worth.

    Pairs in a small stratum weigh more and tell less: the effective number is 1 / sum(w_i^2 / n_i),
    which is the number of pairs when each pair has the same weight. Variation between the strata is
    left in, so the interval is on the wide side. It is about drawing other pairs, not about training
    the model again: seeds alone move BLiMP by about a point.

    Args:
        accuracies: share of each stratum.
        counts: pairs of each stratum.
        weights: weight of each stratum; scaled to sum to one.
        ties: to be carried along.
    """
    total = sum(weights)
    scaled = [weight / total for weight in weights]
    mean = math.fsum(weight * accuracy for weight, accuracy in zip(scaled, accuracies, strict=True))
    mean = min(1.0, max(0.0, mean))
    effective = 1 / math.fsum(weight**2 / n for weight, n in zip(scaled, counts, strict=True))
    return Share(mean, *wilson(mean, effective), n=sum(counts), ties=ties)


# Changes of the same pairs under two models: their mean, its bootstrap interval, McNemar's counts.


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


# Means over pairs with intervals, for many components at once.


def summary(
    effect: Float[np.ndarray, "pair component"],
    margin: Float[np.ndarray, " pair"],
    groups: list[Bool[np.ndarray, " pair"]],
) -> dict[str, np.ndarray]:
    """Each group's mean effects, as arrays [group component].

    Args:
        effect: on the margin, nats; NaN where there is none.
        margin: of the whole model.
        groups: which pairs belong to each.

    Returns:
        `n` pairs; `effect`, their mean, with Student's interval `low` to `high` (NaN for fewer than two);
        `lost` and `gained`, decisions that would turn wrong and right without the effect; `q`, two-sided p
        corrected over all cells (Benjamini & Hochberg 1995); `found`, whether the interval excludes 0.
    """
    from scipy import stats

    after = np.where(np.isnan(effect), margin[:, None], margin[:, None] - effect)
    before = margin[:, None] > 0
    turns = {"lost": before & (after <= 0), "gained": ~before & (after > 0)}
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("n", "effect", "low", "high", "p", *turns)}
    for mine in groups:
        here = effect[mine]
        n = (~np.isnan(here)).sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(n, np.nansum(here, 0) / n, np.nan)
            error = np.sqrt(np.nansum((here - mean) ** 2, 0) / (n - 1.0) / n)
            free = np.maximum(n - 1, 1)
            reach = np.where(n > 1, stats.t.ppf(0.5 + CONFIDENCE / 2, free) * error, np.nan)
            p = 2 * stats.t.sf(np.where(mean == 0, 0.0, np.abs(mean) / error), free)
        for name, values in zip(
            ("n", "effect", "low", "high", "p"), (n, mean, mean - reach, mean + reach, p), strict=True
        ):
            found[name].append(values)
        for name, each in turns.items():
            found[name].append(each[mine].sum(0))
    table = {name: np.stack(values) for name, values in found.items()}
    p, known = table.pop("p"), ~np.isnan(table["low"])
    table["q"] = np.full(p.shape, np.nan)
    if known.any():
        table["q"][known] = stats.false_discovery_control(p[known])
    table["found"] = (table["low"] > 0) | (table["high"] < 0)
    return table


def welch(
    right: Float[np.ndarray, "right component"], wrong: Float[np.ndarray, "wrong component"]
) -> tuple[np.ndarray, np.ndarray]:
    """Welch's interval of the difference of means; NaN where a side has fewer than two pairs."""
    from scipy import stats

    if min(len(right), len(wrong)) < 2:
        return np.full(right.shape[1], np.nan), np.full(right.shape[1], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = [side.var(0, ddof=1) / len(side) for side in (right, wrong)]
        total = errors[0] + errors[1]
        freedom = total**2 / sum(e**2 / (len(s) - 1) for e, s in zip(errors, (right, wrong), strict=True))
        reach = np.where(total > 0, stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * np.sqrt(total), 0.0)
    middle = right.mean(0) - wrong.mean(0)
    return middle - reach, middle + reach


class Ranks(NamedTuple):
    """Ranks of several series of numbers."""

    ranks: Float[Tensor, "series token"]
    """From 1, float64; equal values have their mean rank."""
    ties: Float[Tensor, " series"]
    """Sum over groups of t equal values of t^3 - t."""


def ranked(x: Float[Tensor, "token series"]) -> Ranks:
    """Rank each column."""
    values = x.T.contiguous()
    if values.device.type == "cpu":  # numpy's vectorised sort takes half the time
        order = torch.from_numpy(np.argsort(values.numpy(), axis=1))
    else:
        order = values.argsort(1)
    values = values.gather(1, order)
    count = x.shape[0]
    place = torch.arange(count, device=x.device)
    new = torch.ones_like(values, dtype=torch.bool)
    new[:, 1:] = values[:, 1:] != values[:, :-1]
    first = torch.where(new, place, 0).cummax(1).values
    last = torch.where(new.roll(-1, 1), place, count).flip(1).cummin(1).values.flip(1)
    size = (last - first + 1).double()
    ranks = torch.empty_like(size).scatter_(1, order, (first + last).double() / 2 + 1)
    return Ranks(ranks, (size.square() - 1).sum(1))


def aucs(ranks: Ranks, groups: Bool[np.ndarray, "token group"]) -> Float[np.ndarray, "group series"]:
    """P(a token of the group has the higher number) + P(equal) / 2, for each group and series."""
    members = torch.from_numpy(groups).to(ranks.ranks)
    inside = members.sum(0)[:, None]
    outside = len(groups) - inside
    sums = (ranks.ranks @ members).T
    return ((sums - inside * (inside + 1) / 2) / (inside * outside)).cpu().numpy()


def p_greater(
    auc: Float[np.ndarray, "group series"], inside: Int[np.ndarray, " group"], ranks: Ranks
) -> Float[np.ndarray, "group series"]:
    """One-sided p of the AUC being above 0.5: Mann & Whitney's normal approximation, corrected for ties and
    for continuity, as `scipy.stats.mannwhitneyu(..., method="asymptotic")` has it. Tokens count as drawn
    one by one."""
    count = ranks.ranks.shape[1]
    pairs = (inside * (count - inside))[:, None].astype(float)
    ties = ranks.ties.cpu().numpy() / (count * (count - 1))
    spread = np.sqrt(pairs / 12 * np.maximum(count + 1 - ties, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (pairs * (auc - 0.5) - 0.5) / spread
    return np.where(spread > 0, norm.sf(z), 1.0)


def clustered_errors(
    x: Float[Tensor, "token series"],
    ranks: Float[Tensor, "series token"],
    group: Bool[np.ndarray, " token"],
    cluster: Int[np.ndarray, " token"],
) -> Float[np.ndarray, " series"]:
    """Standard error of the AUC when whole clusters of tokens are drawn (Obuchowski 1997).

    Args:
        x: the numbers.
        ranks: what `ranked` makes of them.
        group: who is in it.
        cluster: which cluster, such as a story, each token is of.

    Returns:
        The errors; NaN if fewer than two clusters have tokens inside, or outside.
    """
    inside = torch.from_numpy(group).to(x.device)
    own = ranked(x[inside])
    outside = x[~inside].T.contiguous()
    n_inside, n_outside = int(inside.sum()), int((~inside).sum())
    # The share of the other side that each token beats, if it is inside, or is beaten by.
    beats = (ranks[:, inside] - own.ranks) / n_outside
    within = x[inside].T.contiguous().sort(1).values
    lower = torch.searchsorted(within, outside) + torch.searchsorted(within, outside, right=True)
    beaten = 1 - lower.double() / (2 * n_inside)
    auc = beats.mean(1, keepdim=True)
    names, index = np.unique(cluster, return_inverse=True)
    where = torch.from_numpy(index).to(x.device)
    parts, totals = [], []
    for share, mine in ((beats, where[inside]), (beaten, where[~inside])):
        total = share.new_zeros(len(share), len(names)).index_add_(1, mine, share - auc)
        there = len(mine.unique())
        parts.append(
            (there / (there - 1) if there > 1 else np.nan) * total.square().sum(1) / share.shape[1] ** 2
        )
        totals.append(total / share.shape[1])
    both = len(names) / max(1, len(names) - 1) * (totals[0] * totals[1]).sum(1)
    return (parts[0] + parts[1] + 2 * both).clamp(min=0).sqrt().cpu().numpy()

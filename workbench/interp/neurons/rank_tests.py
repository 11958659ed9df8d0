"""Whether a number tells two groups of tokens apart: areas under the ROC curve, of many at once.

Each number is ranked once; the areas of all groups are then one matrix product, because the AUC is the rank
sum of Mann & Whitney 1947. Equal values count half.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import norm
from torch import Tensor


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

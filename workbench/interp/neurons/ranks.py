"""Areas under the ROC curve of many activations at once, with Mann & Whitney's test.

Each series is ranked once; the areas of all groups of tokens are then one matrix product, because the AUC is
the rank sum of Mann & Whitney 1947. Ties count half. Used by `label_neurons` and the study.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Ranks(NamedTuple):
    """Ranks of several series of numbers."""

    ranks: Float[Tensor, "series token"]
    """From 1, float64; ties share their mean rank."""
    ties: Float[Tensor, " series"]
    """Sum of t^3 - t over the groups of t tied values."""


def ranked(x: Float[Tensor, "token series"]) -> Ranks:
    """Rank each column of `x`, ties at their mean rank."""
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
    """Return the AUC of each group against the other tokens: P(higher inside) + P(tie) / 2."""
    members = torch.from_numpy(groups).to(ranks.ranks)
    inside = members.sum(0)[:, None]
    outside = len(groups) - inside
    sums = (ranks.ranks @ members).T
    return ((sums - inside * (inside + 1) / 2) / (inside * outside)).cpu().numpy()


def p_greater(
    auc: Float[np.ndarray, "group series"], inside: Int[np.ndarray, " group"], ranks: Ranks
) -> Float[np.ndarray, "group series"]:
    """Return the one-sided p-value of an AUC above 0.5.

    The normal approximation with corrections for ties and continuity, equal to
    `scipy.stats.mannwhitneyu(..., method="asymptotic")`. Tokens are treated as independent draws.
    """
    from scipy.stats import norm

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
    """Return the standard error of each AUC under resampling of whole clusters (Obuchowski 1997).

    Args:
        x: the activations.
        ranks: `ranked(x).ranks`.
        group: True for tokens inside the group.
        cluster: the cluster (story) of each token.

    Returns:
        One error per series; NaN if fewer than two clusters have tokens inside, or outside.
    """
    inside = torch.from_numpy(group).to(x.device)
    own = ranked(x[inside])
    outside = x[~inside].T.contiguous()
    n_inside, n_outside = int(inside.sum()), int((~inside).sum())
    # For each token inside the group, the fraction of outside tokens below it; for each outside token,
    # the fraction of inside tokens above it.
    beats = (ranks[:, inside] - own.ranks) / n_outside
    within = x[inside].T.contiguous().sort(1).values
    lower = torch.searchsorted(within, outside) + torch.searchsorted(within, outside, right=True)
    beaten = 1 - lower.double() / (2 * n_inside)
    auc = beats.mean(1, keepdim=True)
    names, index = np.unique(cluster, return_inverse=True)
    where = torch.from_numpy(index).to(x.device)
    parts, totals = [], []
    for fraction, clusters in ((beats, where[inside]), (beaten, where[~inside])):
        total = fraction.new_zeros(len(fraction), len(names)).index_add_(1, clusters, fraction - auc)
        n_clusters = len(clusters.unique())
        parts.append(
            (n_clusters / (n_clusters - 1) if n_clusters > 1 else np.nan)
            * total.square().sum(1)
            / fraction.shape[1] ** 2
        )
        totals.append(total / fraction.shape[1])
    both = len(names) / max(1, len(names) - 1) * (totals[0] * totals[1]).sum(1)
    return (parts[0] + parts[1] + 2 * both).clamp(min=0).sqrt().cpu().numpy()

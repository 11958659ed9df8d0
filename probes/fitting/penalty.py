"""The penalty by inner cross-validation: all penalties and folds are probes of one batch."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.fitting.logistic import fit_logistic
from probes.fitting.ridge import fit_ridge
from workbench.errors import InputError
from workbench.stats import generator

GRID = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
FOLDS = 3
ROWS = 20_000
"""Rows that the penalty is chosen on. It is a penalty on the sum over rows, the precision of the prior on
W, so that the best one does not grow with the rows."""
Features = Float[Tensor, "set row d"] | Sequence[Float[Tensor, "row d"]]


@dataclasses.dataclass(frozen=True)
class PenaltyChoice:
    """What each penalty cost on the folds left out."""

    grid: tuple[float, ...]
    cost: Float[Tensor, "probe grid"]
    """Mean nats of a row, or mean squared error."""
    penalty: Float[Tensor, " probe"]
    """The cheapest of each probe."""

    @property
    def at_the_edge(self) -> Bool[Tensor, " probe"]:
        """Where a smaller or larger penalty than any tried might be better."""
        best = self.cost.argmin(1)
        return (best == 0) | (best == len(self.grid) - 1)


def folds_of(group: Int[np.ndarray, " row"], folds: int, seed: int) -> Int[np.ndarray, " row"]:
    """A fold for every row; a group is never parted.

    Raises:
        InputError: fewer groups than folds.
    """
    found, index = np.unique(group, return_inverse=True)
    if len(found) < folds:
        raise InputError(f"{folds} folds need as many groups; there are {len(found)}. Use fewer folds.")
    order = generator(seed, "folds").permutation(len(found))
    return (order % folds)[index]


def choose_penalty(
    x: Features,
    y: Int[Tensor, "probe row"] | Float[Tensor, "probe row"],
    which: Int[Tensor, " probe"],
    group: Int[np.ndarray, " row"],
    *,
    n_classes: int | None = None,
    grid: Sequence[float | int] = GRID,
    folds: int = FOLDS,
    weight: Float[Tensor, "probe row"] | Bool[Tensor, "probe row"] | None = None,
    seed: int = 0,
    max_rows: int = ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> PenaltyChoice:
    """Cross-validate the penalty of each probe.

    Args:
        x: feature sets, standardised.
        y: classes, or numbers if `n_classes` is None.
        which: the feature set each probe reads.
        group: rows of one group stay in one fold.
        n_classes: of all probes; None for ridge.
        grid: penalties to try.
        folds: at least two.
        weight: of each row; what has weight 0 neither teaches nor tests.
        seed: of folds and of the rows kept.
        max_rows: more rows than these are cut down, by whole groups.

    Raises:
        InputError: fewer groups than folds, one fold, no grid.
    """
    if folds < 2 or not len(grid):
        raise InputError(
            f"cross-validation needs two folds and a penalty to try; {folds} and {len(grid)} given."
        )
    grid = tuple(sorted(float(one) for one in grid))
    rows = _some(group, max_rows, seed)
    x = [x[number][torch.from_numpy(rows)] for number in range(len(x))]
    y, group = y[:, rows], group[rows]
    weights = torch.ones(y.shape) if weight is None else weight[:, rows].float()
    fold = torch.from_numpy(folds_of(group, folds, seed))
    probes, tries = len(which), len(grid) * folds
    of_fold = torch.arange(folds).repeat(len(grid)).repeat(probes)
    outside = (fold[None] != of_fold[:, None]).float()
    learning = weights.repeat_interleave(tries, 0) * outside
    testing = weights.repeat_interleave(tries, 0) * (1 - outside)
    labels, sets = y.repeat_interleave(tries, 0), which.repeat_interleave(tries)
    penalties = torch.tensor(grid).repeat_interleave(folds).repeat(probes)
    if n_classes is None:
        fitted = fit_ridge(x, labels.float(), sets, penalty=penalties, weight=learning)
        cost = (fitted.predict(x) - labels) ** 2
    else:
        found = fit_logistic(
            x, labels, sets, n_classes=n_classes, penalty=penalties, weight=learning, tolerance=1e-4,
            progress=progress,
        )  # fmt: skip
        cost = found.nats(x, labels)
        unseen = torch.isinf(cost)  # a class that this fold alone has: as dear for every penalty
        cost = torch.where(unseen, torch.zeros_like(cost), cost)
    mean = (cost * testing).sum(1).view(probes, len(grid), folds).sum(2)
    mean = mean / testing.sum(1).view(probes, len(grid), folds).sum(2).clamp_min(1e-9)
    return PenaltyChoice(grid, mean, torch.tensor(grid)[mean.argmin(1)])


def _some(group: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Rows of whole groups drawn at random, about `most` of them."""
    if len(group) <= most:
        return np.arange(len(group))
    found, index, counts = np.unique(group, return_inverse=True, return_counts=True)
    order = generator(seed, "rows of the penalty").permutation(len(found))
    kept = order[np.cumsum(counts[order]) <= most]
    kept = order[:1] if not len(kept) else kept
    return np.flatnonzero(np.isin(index, kept))

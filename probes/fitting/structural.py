"""The structural probe: a linear map under which squared distances between words are distances in the tree
(Hewitt & Manning 2019).

`distance(i, j) = |B (h_i - h_j)|²`, fitted by the absolute error, where each sentence counts the same
whatever its length. Judged by the rank correlation with the tree's distances and by the edges of the
minimum spanning tree.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.fitting.adam import Schedule, train
from probes.fitting.mlp import batch_of, refuse_labels
from workbench.errors import InputError

Features = Float[Tensor, "set row d"] | Sequence[Float[Tensor, "row d"]]


@dataclasses.dataclass(frozen=True)
class StructuralProbes:
    """Fitted maps; they read features `[h_i, h_j]`, the two words of a pair side by side."""

    B: Float[Tensor, "probe half rank"]
    which: Int[Tensor, " probe"]
    held: Float[Tensor, " probe"]
    """Mean absolute error of the pairs that chose the epoch."""

    def __len__(self) -> int:
        return len(self.which)

    def predict(self, x: Features) -> Float[Tensor, "probe row"]:
        """The squared distance of each pair."""
        return torch.cat(
            [_distances(b[None], x[int(s)].float()[None]) for b, s in zip(self.B, self.which, strict=True)]
        )


def fit_structural(
    x: Features,
    y: Float[Tensor, "probe row"],
    which: Int[Tensor, " probe"],
    group: Int[np.ndarray, " row"],
    *,
    rank: int | None = None,
    weight: Float[Tensor, "probe row"] | Bool[Tensor, "probe row"] | None = None,
    held: Float[Tensor, "probe row"] | Bool[Tensor, "probe row"] | None = None,
    schedule: Schedule | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> StructuralProbes:
    """Fit every probe.

    Args:
        x: feature sets of pairs.
        y: distances in the tree: edges between the two words.
        which: the feature set each probe reads.
        group: sentence of each pair; every sentence has the same weight.
        rank: rows of B; all dimensions if not set.
        weight: of each pair in each probe.
        held: pairs that choose the epoch.
        schedule: epochs, pairs a step, learning rate, seed.
        progress: told epochs done, and all.

    Raises:
        InputError: an odd number of features, a rank below 1, distances that are not finite.
    """
    probes, rows, d = len(which), x[0].shape[0], x[0].shape[1]
    if d % 2:
        raise InputError(f"a structural probe reads two words side by side; {d} features are no two halves.")
    rank = d // 2 if rank is None else rank
    if rank < 1:
        raise InputError(f"rank={rank}: at least 1.")
    weights = torch.ones(probes, rows) if weight is None else weight.float()
    refuse_labels(y, weights, None)
    _, index, counts = np.unique(group, return_inverse=True, return_counts=True)
    alike = torch.from_numpy(1 / counts[index]).float()
    schedule = schedule or Schedule(rate=1e-3)
    random = torch.Generator().manual_seed(schedule.seed)
    start = {"B": torch.randn(probes, d // 2, rank, generator=random) * (0.5 / d) ** 0.5}

    def losses(now: dict[str, Tensor], chosen: Tensor) -> Tensor:
        return (_distances(now["B"], batch_of(x, which, chosen)) - y[:, chosen]).abs()

    kept, cost = train(
        start,
        losses,
        weights * alike,
        None if held is None else held.float() * alike,
        decay=torch.zeros(probes),
        schedule=schedule,
        progress=progress,
    )
    return StructuralProbes(kept["B"], which, cost)


def spearman_by_sentence(
    predicted: Float[np.ndarray, " pair"], gold: Float[np.ndarray, " pair"], group: Int[np.ndarray, " pair"]
) -> Float[np.ndarray, " sentence"]:
    """Rank correlation of the distances within each sentence (Hewitt & Manning's DSpr., over all pairs of a
    sentence); NaN where a sentence has fewer than three pairs or equal distances alone."""
    from scipy.stats import rankdata

    found = []
    for rows in _by_group(group):
        a, b = rankdata(predicted[rows]), rankdata(gold[rows])
        able = len(rows) > 2 and a.std() > 0 and b.std() > 0
        found.append(float(np.corrcoef(a, b)[0, 1]) if able else float("nan"))
    return np.array(found)


def uuas(
    predicted: Float[np.ndarray, " pair"],
    gold: Float[np.ndarray, " pair"],
    group: Int[np.ndarray, " pair"],
    first: Int[np.ndarray, " pair"],
    second: Int[np.ndarray, " pair"],
) -> tuple[Int[np.ndarray, " sentence"], Int[np.ndarray, " sentence"]]:
    """Edges of the tree that the minimum spanning tree of the predicted distances has (UUAS), by sentence.

    Args:
        predicted, gold: distances of pairs; an edge has gold distance 1.
        group: sentence of each pair.
        first, second: the two words, in any numbering that is unique within the sentence.

    Returns:
        Edges found, and edges of the tree. Their sums' ratio is the undirected attachment score.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    right, edges = [], []
    for rows in _by_group(group):
        words, index = np.unique(np.concatenate([first[rows], second[rows]]), return_inverse=True)
        a, b = index[: len(rows)], index[len(rows) :]
        low, high = np.minimum(a, b), np.maximum(a, b)
        # Zero is no edge for scipy; a constant added to all changes no spanning tree.
        values = predicted[rows] - predicted[rows].min() + 1.0
        matrix = coo_matrix((values, (low, high)), shape=(len(words), len(words)))
        tree = minimum_spanning_tree(matrix).tocoo()
        chosen = set(zip(tree.row.tolist(), tree.col.tolist(), strict=True))
        true = {(i, j) for i, j, g in zip(low.tolist(), high.tolist(), gold[rows], strict=True) if g == 1}
        right.append(len(chosen & true))
        edges.append(len(true))
    return np.array(right), np.array(edges)


def _by_group(group: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(group, kind="stable")
    cuts = np.flatnonzero(np.diff(group[order])) + 1
    return np.split(order, cuts)


def _distances(
    B: Float[Tensor, "probe half rank"], x: Float[Tensor, "probe row d"]
) -> Float[Tensor, "probe row"]:
    a, b = x.chunk(2, 2)
    return ((a - b) @ B).pow(2).sum(2)

"""Many token rows as one tree of prefixes, cut into blocks that a transformer reads in one forward pass.

Rows with equal beginnings share the nodes of their common prefix, so each distinct prefix is read once. A
causal model reads a block of the tree as one sequence whose positions are the nodes' depths and whose
attention mask lets a node see its ancestors and itself (tree attention of speculative decoding: Miao et al.
2024, SpecInfer).
"""

# Example: the rows [1 5 6], [1 5 7], [1 8] make the inner nodes (prefixes that some row continues)
#
#     node 0: 1        depth 0, subtree ends at 2
#     node 1: 1 5      depth 1, subtree ends at 2
#
# and the edges 0 -> 5, 0 -> 8, 1 -> 6, 1 -> 7, numbered 0 to 3 in this order. Row [1 5 6] follows edges 0 and
# 2. The model reads two tokens instead of five and predicts four next tokens; a row's log-probability is the
# sum over its edges.

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from workbench.evals.protocols import Rows


@dataclasses.dataclass(frozen=True)
class PrefixTree:
    """The distinct prefixes of a set of rows.

    An inner node is a prefix that some row continues; nodes are in preorder, so that a subtree is a range of
    consecutive nodes. An edge leads from an inner node to a next token; edges are sorted by parent. The
    tokens of row i, except the first, are the edges `row_edges[i]`.
    """

    tokens: Int[np.ndarray, " inner"]
    depths: Int[np.ndarray, " inner"]
    parents: Int[np.ndarray, " inner"]
    """Index of the inner node one token shorter; -1 at a root."""
    ends: Int[np.ndarray, " inner"]
    """First node after the subtree."""
    edge_parents: Int[np.ndarray, " edge"]
    edge_starts: Int[np.ndarray, " inner_and_one"]
    """The edges of inner node i are `edge_starts[i]:edge_starts[i + 1]`; there is at least one."""
    edge_tokens: Int[np.ndarray, " edge"]
    row_edges: Int[np.ndarray, "row pos"]
    """Index of each token's edge; `len(edge_tokens)` at the first token and after the end."""

    def row_sums(self, edge_values: Float[np.ndarray, " edge"]) -> Float[np.ndarray, " row"]:
        """Sum a value of the edges along each row."""
        return np.append(edge_values, 0.0)[self.row_edges].sum(1)


def grow(rows: Rows) -> PrefixTree:
    """Build the tree of all rows. Each needs at least two tokens."""
    lengths, count = rows.lengths, len(rows)
    width = int(lengths.max())
    places = np.arange(width, dtype=np.int32)
    table = np.full((count, width), -1, np.int32)
    table[places < lengths[:, None]] = rows.ids
    order = np.lexsort(table.T[::-1])
    table, lengths = table[order], lengths[order]

    shared = np.zeros(count, np.int64)
    differs = table[1:] != table[:-1]
    shared[1:] = np.where(differs.any(1), differs.argmax(1), lengths[1:])
    new = (places >= shared[:, None]) & (places < lengths[:, None])
    # Row-major order over the new cells is the preorder of the tree; an old cell is the node above it.
    node = np.zeros((count, width), np.int32)
    node[new] = np.arange(int(new.sum()), dtype=np.int32)
    np.maximum.accumulate(node, axis=0, out=node)

    row_of, depth = np.nonzero(new)
    token = table[row_of, depth]
    parent = np.where(depth > 0, node[row_of, np.maximum(depth - 1, 0)], -1)
    is_inner = np.zeros(len(token), bool)
    is_inner[parent[depth > 0]] = True
    inner_index = np.cumsum(is_inner) - 1
    ends = _subtree_ends(shared, new, is_inner)

    is_edge = depth > 0
    edge_parent = inner_index[parent[is_edge]]
    by_parent = np.argsort(edge_parent, kind="stable")
    edge_index = np.full(len(token), len(by_parent), np.int64)
    edge_index[np.flatnonzero(is_edge)[by_parent]] = np.arange(len(by_parent))
    row_edges = np.full((count, width), len(by_parent), np.int32)
    row_edges[order] = np.where(places < lengths[:, None], edge_index[node], len(by_parent))
    edge_parents = edge_parent[by_parent].astype(np.int32)
    return PrefixTree(
        tokens=token[is_inner],
        depths=depth[is_inner].astype(np.int32),
        parents=np.where(is_edge, inner_index[parent], -1)[is_inner].astype(np.int32),
        ends=ends,
        edge_parents=edge_parents,
        edge_starts=np.append(np.flatnonzero(np.diff(edge_parents, prepend=-1)), len(edge_parents)),
        edge_tokens=token[is_edge][by_parent],
        row_edges=row_edges,
    )


def _subtree_ends(
    shared: Int[np.ndarray, " row"], new: Bool[np.ndarray, "row pos"], is_inner: Bool[np.ndarray, " node"]
) -> Int[np.ndarray, " inner"]:
    """Return the first inner node after each inner node's subtree.

    A node made by row r at depth t ends where the next row that shares at most t tokens begins.
    """
    before = np.concatenate([[0], np.cumsum(is_inner)])
    first = before[np.concatenate([[0], new.sum(1).cumsum()])]
    ends = np.zeros(new.shape, np.int32)
    for depth in range(new.shape[1]):
        begins = np.flatnonzero(shared <= depth)
        ends[begins, depth] = first[np.append(begins[1:], len(shared))]
    return ends[new][is_inner]


@dataclasses.dataclass(frozen=True)
class Block:
    """Consecutive inner nodes `start:stop`, read after the ancestors of the first one."""

    start: int
    stop: int
    ancestors: Int[np.ndarray, " depth"]

    def __len__(self) -> int:
        return len(self.ancestors) + self.stop - self.start


def cut(tree: PrefixTree, length: int, slack: int) -> list[Block]:
    """Cut the tree into blocks of `length - slack` to `length` nodes, the last perhaps shorter.

    A node before a block that is an ancestor of any of the block's nodes is an ancestor of its first node, so
    only these few are read twice. Of the allowed cuts the shallowest is taken. A branch deeper than `length -
    slack` gets a longer block.
    """
    blocks, start, total = [], 0, len(tree.tokens)
    depths = tree.depths
    while start < total:
        above = int(depths[start])
        stop = start + max(length - above, slack + 1)
        if stop >= total:
            stop = total
        else:
            stop -= int(np.argmin(depths[stop - slack : stop + 1][::-1]))
        ancestors = np.empty(above, np.int32)
        node = start
        for depth in range(above - 1, -1, -1):
            node = ancestors[depth] = tree.parents[node]
        blocks.append(Block(start, stop, ancestors))
        start = stop
    return blocks

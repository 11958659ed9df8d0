"""The tree of prefixes against sets of tuples, and its blocks against the tree."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.evals.prefix_tree import cut, grow
from workbench.evals.protocols import ragged
from workbench.evals.scoring import tree_mask

ROWS = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=9).map(tuple), min_size=1, max_size=40)


def prefixes_of(tree):
    """Each inner node's tokens from the root on."""
    found = []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        found.append((*(found[parent] if parent >= 0 else ()), int(token)))
    return found


@settings(deadline=None)
@given(ROWS)
def test_nodes_are_the_distinct_proper_prefixes_in_preorder(rows):
    tree = grow(ragged(rows))
    prefixes = prefixes_of(tree)
    assert prefixes == sorted({row[:size] for row in rows for size in range(1, len(row))})
    assert [len(prefix) - 1 for prefix in prefixes] == tree.depths.tolist()
    for node, prefix in enumerate(prefixes):
        inside = [i for i, other in enumerate(prefixes) if other[: len(prefix)] == prefix]
        assert inside == list(range(node, tree.ends[node]))


@settings(deadline=None)
@given(ROWS)
def test_edges_are_the_distinct_continuations_and_rows_walk_along_them(rows):
    tree = grow(ragged(rows))
    prefixes = prefixes_of(tree)
    edges = [
        (*prefixes[parent], int(token))
        for parent, token in zip(tree.edge_parents, tree.edge_tokens, strict=True)
    ]
    assert len(edges) == len(set(edges))
    assert set(edges) == {row[:size] for row in rows for size in range(2, len(row) + 1)}
    for node in range(len(prefixes)):
        assert set(tree.edge_parents[tree.edge_starts[node] : tree.edge_starts[node + 1]]) == {node}
    assert tree.edge_starts[-1] == len(edges)
    values = np.arange(1, len(edges) + 1) ** 1.5
    by_prefix = dict(zip(edges, values, strict=True))
    wanted = [sum(by_prefix[row[:size]] for size in range(2, len(row) + 1)) for row in rows]
    np.testing.assert_allclose(tree.row_sums(values), wanted)


@settings(deadline=None)
@given(ROWS, st.integers(2, 12), st.integers(0, 6))
def test_blocks_hold_each_node_once_after_its_ancestors(rows, length, slack):
    tree = grow(ragged(rows))
    prefixes = prefixes_of(tree)
    blocks = cut(tree, length, slack)
    assert [node for block in blocks for node in range(block.start, block.stop)] == list(range(len(prefixes)))
    for block in blocks:
        nodes = [*block.ancestors, *range(block.start, block.stop)]
        assert len(block) == len(nodes) <= max(length, len(block.ancestors) + slack + 1)
        inside = {prefixes[node] for node in nodes}
        assert all(prefix[:size] in inside for prefix in inside for size in range(1, len(prefix)))
        mask = tree_mask(torch.tensor([nodes]), tree)[0]
        for i, node in enumerate(nodes):
            seen = {prefixes[nodes[j]] for j in range(len(nodes)) if mask[i, j]}
            assert seen == {prefixes[node][:size] for size in range(1, len(prefixes[node]) + 1)}


def test_a_row_that_ends_inside_another_is_scored():
    tree = grow(ragged([[1, 2, 3], [1, 2]]))
    assert tree.tokens.tolist() == [1, 2]
    assert tree.row_sums(np.array([10.0, 5.0])).tolist() == [15.0, 10.0]


def test_sharing_is_what_makes_it_small():
    rows = [[1, *range(4, 24), last] for last in range(30, 80)]
    tree = grow(ragged(rows))
    assert len(tree.tokens) == 21
    assert len(tree.edge_tokens) == 20 + 50

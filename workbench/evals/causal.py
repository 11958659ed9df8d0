"""Log-probabilities of many token rows under a causal model, each distinct prefix read once."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.evals.encoding import Rows
from workbench.evals.normaliser import Readout
from workbench.evals.prefix_tree import Block, PrefixTree, cut, grow
from workbench.evals.workers import Tally, for_each, threads_for, tokens_per_forward

# Nodes a block: longer blocks read fewer ancestors twice but compare more unrelated nodes.
# Measured on two cores at widths 128 and 512: 96 is within 3 % of the best at both.
BLOCK, SLACK = 96, 16
# Cells of the padded table from which a tree grows; more rows are scored as several trees.
CELLS = 2**26

Tick = Callable[[float], None]


def causal_log_probs(model: Any, rows: Rows, tick: Tick = lambda share: None) -> Float[np.ndarray, " row"]:
    """Sum of log p(token | tokens before it), in nats, over all tokens of a row but the first.

    Token log-probabilities are computed in the model's type, their sums in float64.

    Args:
        model: a causal `HookedTransformer`, or anything with its `residual(tokens, positions=, mask=)`,
            `readout_weight`, `readout_bias`, `device` and `config`; in evaluation mode.
        rows: ids, every row at least two long and within the context.
        tick: told now and then which share of the work is done.
    """
    sums = np.empty(len(rows))
    width = int(rows.lengths.max())
    step = max(1, CELLS // width)
    for start in range(0, len(rows), step):
        stop = min(start + step, len(rows))
        base = rows.starts[start]
        part = Rows(rows.ids[base : rows.starts[stop]], rows.starts[start : stop + 1] - base)
        tree = grow(part)

        def part_tick(share: float, start: int = start, stop: int = stop) -> None:
            tick((start + share * (stop - start)) / len(rows))

        sums[start:stop] = tree.row_sums(edge_log_probs(model, tree, part_tick))
    return sums


def edge_log_probs(
    model: Any, tree: PrefixTree, tick: Tick = lambda share: None
) -> Float[np.ndarray, " edge"]:
    """log p(token | prefix), in nats, of every edge of the tree."""
    values = np.empty(len(tree.edge_tokens))
    readout = Readout.of(model)
    tally = Tally(len(tree.tokens), tick)

    def work(blocks: list[Block]) -> None:
        parents, tokens, where = _edges(tree, blocks)
        x = _read(model, tree, blocks)
        values[where] = readout.log_probs(x, parents.to(x.device), tokens.to(x.device)).cpu().numpy()
        tally.add(sum(block.stop - block.start for block in blocks))

    for_each(work, batches(tree, model.device.type), threads_for(model))
    return values


def batches(tree: PrefixTree, device: str) -> list[list[Block]]:
    """The tree's blocks in groups of equal length, each group one forward."""
    limit = tokens_per_forward(device)
    blocks = sorted(cut(tree, BLOCK, SLACK), key=len)
    groups = []
    for length, same in groupby(blocks, key=len):
        alike, size = list(same), max(1, limit // length)
        groups += [alike[i : i + size] for i in range(0, len(alike), size)]
    return groups


def tree_mask(nodes: Int[Tensor, "block node"], tree: PrefixTree) -> Bool[Tensor, "block node key_node"]:
    """True where a node may see a key node: its ancestors and itself, those whose subtree it lies in."""
    ends = torch.from_numpy(tree.ends[nodes.numpy()].astype(np.int64))
    return (nodes[:, None, :] <= nodes[:, :, None]) & (nodes[:, :, None] < ends[:, None, :])


def _read(model: Any, tree: PrefixTree, blocks: list[Block]) -> Float[Tensor, "own width"]:
    """What the unembedding reads at the blocks' own nodes, one after the other."""
    nodes = np.stack(
        [np.concatenate([block.ancestors, np.arange(block.start, block.stop)]) for block in blocks]
    )
    device = model.device
    mask = tree_mask(torch.from_numpy(nodes.astype(np.int64)), tree)
    x = model.residual(
        torch.from_numpy(tree.tokens[nodes].astype(np.int64)).to(device),
        positions=torch.from_numpy(tree.depths[nodes].astype(np.int64)).to(device),
        mask=mask[:, None].to(device),
    )
    return torch.cat([row[len(block.ancestors) :] for row, block in zip(x, blocks, strict=True)])


def _edges(
    tree: PrefixTree, blocks: list[Block]
) -> tuple[Int[Tensor, " edge"], Int[Tensor, " edge"], Int[np.ndarray, " edge"]]:
    """The edges that leave the blocks' own nodes: place of the parent among these nodes, token, number."""
    parents, where, offset = [], [], 0
    for block in blocks:
        first, last = tree.edge_starts[[block.start, block.stop]]
        where.append(np.arange(first, last))
        parents.append(tree.edge_parents[first:last] - (block.start - offset))
        offset += block.stop - block.start
    numbers = np.concatenate(where)
    tokens = torch.from_numpy(tree.edge_tokens[numbers].astype(np.int64))
    return torch.from_numpy(np.concatenate(parents).astype(np.int64)), tokens, numbers

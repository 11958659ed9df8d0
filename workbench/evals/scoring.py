"""Log-probabilities of sentences under a named protocol, for causal and masked models.

Causal rows are scored through a prefix tree, masked rows through their distinct masked copies; the logits of
the whole vocabulary are never held.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import groupby
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.console import OnProgress, ignore_progress, progress_bar
from workbench.data.tokenizer import vocabulary_size
from workbench.errors import InputError
from workbench.evals.prefix_tree import Block, PrefixTree, cut, grow
from workbench.evals.protocols import (
    Label,
    MaskedRows,
    Protocol,
    Rows,
    causal_rows,
    find_protocol,
    masked_rows,
    refuse_misfit,
)
from workbench.runs.run import ModelLike, open_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from workbench.model.transformer import HookedTransformer

T = TypeVar("T")

BLOCK, SLACK = 96, 16
"""Nodes per block of the prefix tree: longer blocks read fewer ancestors twice but compare more unrelated
nodes. Measured on two cores at widths 128 and 512: 96 is within 3 % of the best at both."""
CELLS = 2**26
"""Cells of the padded table that one tree is built from; more rows are scored as several trees."""
ROWS, WORDS = 256, 1024
"""One tile of logits, 1 MB in float32, stays in a core's cache between product and exponential."""
SAFE = 75.0
"""exp(+-75) and the sum of 2**17 of them are normal float32 numbers: no maximum has to be subtracted."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of sentences."""

    scores: Float[np.ndarray, " sentence"]
    """By the protocol's reduction: the sum of the tokens' log-probabilities, or their mean; nats."""
    log_probs: Float[np.ndarray, " sentence"]
    """The sum, in nats; for a masked model the pseudo-log-likelihood."""
    tokens: Int[np.ndarray, " sentence"]
    """Scored tokens."""
    protocol: Protocol
    pll: str | None
    """The pseudo-log-likelihood; None for a causal model."""


def score_sentences(
    model: ModelLike,
    sentences: Sequence[str],
    protocol: str = "native",
    *,
    pll: str = "original",
    tokenizer: "PreTrainedTokenizerFast | None" = None,
    label: Label | None = None,
    progress: bool | OnProgress | None = None,
) -> Scores:
    """Score sentences. Common beginnings are read once, however the sentences are ordered.

    Args:
        model: a run, a model or a run's name. Half-precision weights are scored in float32, because rounding
            makes ties; float32 and float64 as they are. The model's mode is restored.
        sentences: without special tokens or a leading space; the protocol adds them.
        protocol: a key of `workbench.evals.protocols.PROTOCOLS`.
        pll: `original` or `within_word_l2r`, for masked models.
        tokenizer: replaces the model's own.
        label: returns the name of sentence i for error messages.
        progress: see `workbench.console.progress_bar`.

    Raises:
        InputError: no sentences, an empty one, one longer than the context, a tokenizer with more
            tokens than the model knows, or a protocol that does not exist or does not suit the model.
    """
    _, network, own = open_model(model)
    tokenizer = own if tokenizer is None else tokenizer
    objective = network.config.objective
    chosen = find_protocol(protocol, objective, pll)
    if not len(sentences):
        raise InputError("there are no sentences to score.")
    if tokenizer is None:
        raise InputError("the model has no tokenizer; pass the one it was trained with.")
    if (rows_needed := vocabulary_size(tokenizer)) > network.config.d_vocab:
        raise InputError(
            f"the tokenizer does not fit the model: it has {rows_needed:,} tokens, the model's "
            f"vocabulary has {network.config.d_vocab:,}; use the tokenizer of the model's own run."
        )
    label = label or (lambda index: f"sentence {index}")
    with progress_bar(progress, "Scoring") as on_progress, ready(network) as network:
        if objective == "mlm":
            masked = masked_rows(tokenizer, sentences, chosen, label)
            mask_token: Any = tokenizer.mask_token_id  # an int, as `masked_rows` has checked
            refuse_misfit(network, masked.rows, label)
            tokens = np.add.reduceat(masked.targets.astype(np.int64), masked.rows.starts[:-1])
            log_probs = masked_log_probs(network, masked, mask_token, pll, on_progress)
        else:
            rows = causal_rows(tokenizer, sentences, chosen, label)
            refuse_misfit(network, rows, label, unread=1)
            tokens = rows.lengths - 1
            log_probs = causal_log_probs(network, rows, on_progress)
    mean = chosen.reduction(objective) == "mean"
    return Scores(
        scores=log_probs / tokens if mean else log_probs,
        log_probs=log_probs,
        tokens=tokens,
        protocol=chosen,
        pll=pll if objective == "mlm" else None,
    )


@contextmanager
def ready(model: "HookedTransformer") -> "Iterator[HookedTransformer]":
    """Put the model in evaluation mode, in float32 at least, and restore its mode afterwards."""
    if model.dtype not in (torch.float32, torch.float64):
        yield copy.deepcopy(model).float().eval()
        return
    training = model.training
    model.eval()
    try:
        yield model
    finally:
        if training:
            model.train()


def causal_log_probs(
    model: "HookedTransformer", rows: Rows, on_progress: OnProgress = ignore_progress
) -> Float[np.ndarray, " row"]:
    """Return the sum of log p(token | tokens before it), in nats, over all tokens of a row but the first.

    Token log-probabilities are computed in the model's type, their sums in float64.

    Args:
        model: a causal model in evaluation mode.
        rows: ids, every row at least two long and within the context.
        on_progress: called periodically with the completed fraction.
    """
    sums = np.empty(len(rows))
    step = max(1, CELLS // int(rows.lengths.max()))
    for start in range(0, len(rows), step):
        stop = min(start + step, len(rows))
        base = rows.starts[start]
        tree = grow(Rows(rows.ids[base : rows.starts[stop]], rows.starts[start : stop + 1] - base))
        part = _part_of(on_progress, start / len(rows), stop / len(rows))
        sums[start:stop] = tree.row_sums(edge_log_probs(model, tree, part))
    return sums


def edge_log_probs(
    model: "HookedTransformer", tree: PrefixTree, on_progress: OnProgress = ignore_progress
) -> Float[np.ndarray, " edge"]:
    """Return log p(token | prefix), in nats, of every edge of the tree."""
    values = np.empty(len(tree.edge_tokens))
    readout = Readout.of(model)
    tally = Tally(len(tree.tokens), on_progress)

    def work(blocks: list[Block]) -> None:
        parents, tokens, edges = _edges(tree, blocks)
        x = _read(model, tree, blocks)
        values[edges] = readout.log_probs(x, parents.to(x.device), tokens.to(x.device)).cpu().numpy()
        tally.add(sum(block.stop - block.start for block in blocks))

    for_each(work, batches(tree, model.device.type), threads_for(model))
    return values


def _part_of(on_progress: OnProgress, start: float, stop: float) -> OnProgress:
    """Return a callback that reports its own fraction as the part from `start` to `stop` of a whole."""
    return lambda fraction, message="": on_progress(start + fraction * (stop - start), message)


def batches(tree: PrefixTree, device: str) -> list[list[Block]]:
    """Return the tree's blocks grouped by length, each group one forward pass."""
    limit = tokens_per_forward(device)
    groups = []
    for length, same in groupby(sorted(cut(tree, BLOCK, SLACK), key=len), key=len):
        blocks, size = list(same), max(1, limit // length)
        groups += [blocks[i : i + size] for i in range(0, len(blocks), size)]
    return groups


def tree_mask(nodes: Int[Tensor, "block node"], tree: PrefixTree) -> Bool[Tensor, "block node key_node"]:
    """Return True where a node sees a key node: its ancestors and itself, those whose subtree it is in."""
    ends = torch.from_numpy(tree.ends[nodes.numpy()].astype(np.int64))
    return (nodes[:, None, :] <= nodes[:, :, None]) & (nodes[:, :, None] < ends[:, None, :])


def _read(model: "HookedTransformer", tree: PrefixTree, blocks: list[Block]) -> Float[Tensor, "own width"]:
    """Return the input of the unembedding at the blocks' own nodes, concatenated."""
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
    """Return the edges that leave the blocks' own nodes: the parent's place among them, token, edge index."""
    parents, edges, offset = [], [], 0
    for block in blocks:
        first, last = tree.edge_starts[[block.start, block.stop]]
        edges.append(np.arange(first, last))
        parents.append(tree.edge_parents[first:last] - (block.start - offset))
        offset += block.stop - block.start
    indices = np.concatenate(edges)
    tokens = torch.from_numpy(tree.edge_tokens[indices].astype(np.int64))
    return torch.from_numpy(np.concatenate(parents).astype(np.int64)), tokens, indices


def masked_log_probs(
    model: "HookedTransformer",
    masked: MaskedRows,
    mask_token: int,
    pll: str,
    on_progress: OnProgress = ignore_progress,
) -> Float[np.ndarray, " row"]:
    """Return the pseudo-log-likelihood: the sum of log p(token | the other tokens), in nats, over the
    targets.

    `original` masks one token at a time (Salazar et al. 2020, arXiv:1910.14659); `within_word_l2r` masks the
    later tokens of the target's word too, so that a rare word in several pieces is not given away by its own
    end (Kauf & Ivanova 2023, arXiv:2305.10588). Rows of equal length are batched, so nothing is padded; equal
    masked copies, such as those of two sentences that differ in the masked word only, are read once. Sums are
    float64.

    Args:
        model: a bidirectional model in evaluation mode.
        masked: the sentences.
        mask_token: id that replaces a masked token.
        pll: `original` or `within_word_l2r`.
        on_progress: called periodically with the completed fraction.
    """
    lengths = masked.rows.lengths
    sums = np.zeros(len(lengths))
    sizes, counts = np.unique(lengths, return_counts=True)
    cost = np.cumsum(sizes.astype(np.float64) ** 2 * counts)
    done = np.concatenate([[0.0], cost]) / cost[-1]
    for index, length in enumerate(sizes):
        where = np.flatnonzero(lengths == length)
        cells = masked.rows.starts[where][:, None] + np.arange(length)
        sums[where] = _score_equal_lengths(
            model, masked.rows.ids[cells], masked.targets[cells], masked.words[cells],
            mask_token, pll, _part_of(on_progress, float(done[index]), float(done[index + 1])),
        )  # fmt: skip
    return sums


def variants(
    ids: Int[np.ndarray, "row pos"],
    targets: Bool[np.ndarray, "row pos"],
    words: Int[np.ndarray, "row pos"],
    mask_token: int,
    pll: str,
) -> tuple[Int[np.ndarray, "variant pos"], Int[np.ndarray, " variant"], Int[np.ndarray, " variant"]]:
    """Return one masked copy of a row for each of its targets: the copies, their rows, their targets'
    places."""
    row, place = np.nonzero(targets)
    hidden = np.zeros((len(row), ids.shape[1]), bool)
    if pll == "within_word_l2r":
        word = words[row, place]
        hidden = (
            (words[row] == word[:, None]) & (word[:, None] >= 0) & (np.arange(ids.shape[1]) > place[:, None])
        )
    hidden[np.arange(len(row)), place] = True
    return np.where(hidden, mask_token, ids[row]), row, place


def _score_equal_lengths(
    model: "HookedTransformer",
    ids: Int[np.ndarray, "row pos"],
    targets: Bool[np.ndarray, "row pos"],
    words: Int[np.ndarray, "row pos"],
    mask_token: int,
    pll: str,
    on_progress: OnProgress,
) -> Float[np.ndarray, " row"]:
    copies, row, place = variants(ids, targets, words, mask_token, pll)
    keys = np.ascontiguousarray(np.column_stack([copies, place]).astype(np.int32))
    as_one = keys.view(np.dtype((np.void, keys.itemsize * keys.shape[1]))).ravel()
    _, first, context = np.unique(as_one, return_index=True, return_inverse=True)
    by_context = np.argsort(context, kind="stable")
    sorted_context = context[by_context]
    tokens = ids[row, place]
    values = np.empty(len(row))
    readout = Readout.of(model)
    device = model.device
    step = max(1, tokens_per_forward(device.type) // ids.shape[1])
    tally = Tally(len(first), on_progress)

    def work(start: int) -> None:
        chosen = first[start : start + step]
        batch = torch.from_numpy(copies[chosen].astype(np.int64)).to(device)
        positions = torch.from_numpy(place[chosen]).to(device)
        x = model.residual(batch)[torch.arange(len(chosen), device=device), positions]
        low, high = np.searchsorted(sorted_context, [start, start + len(chosen)])
        indices = by_context[low:high]
        parents = torch.from_numpy(context[indices] - start).to(device)
        targets = torch.from_numpy(tokens[indices].astype(np.int64)).to(device)
        values[indices] = readout.log_probs(x, parents, targets).cpu().numpy()
        tally.add(len(chosen))

    for_each(work, range(0, len(first), step), threads_for(model))
    return np.bincount(row, weights=values, minlength=len(ids))


def tokens_per_forward(device: str) -> int:
    """Return the tokens of one forward pass: enough to amortise Python, few enough for the caches."""
    return 2048 if device == "cpu" else 65536


class Tally:
    """Counts work done by several threads and reports the fraction of `total`, one call at a time."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self._total, self._on_progress = total, on_progress
        self._done = 0
        self._lock = Lock()

    def add(self, count: int) -> None:
        """Count `count` more items as done."""
        with self._lock:
            self._done += count
            self._on_progress(self._done / self._total, "")


def for_each(work: Callable[[T], None], items: Sequence[T], threads: int) -> None:
    """Call `work` on every item, without gradients, on `threads` threads.

    Small operations gain more from running in parallel than from being divided: each thread runs its
    operations alone (torch's intra-operation threads are set to 1 and restored), also where there is one
    item, because a divided sum is rounded differently. `work` must write to disjoint places. The first
    exception, Ctrl-C included, stops the rest and is raised here.
    """
    if threads <= 1:
        with torch.inference_mode():
            for item in items:
                work(item)
        return

    def guarded(item: T) -> None:
        with torch.inference_mode():
            work(item)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = [pool.submit(guarded, item) for item in items]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)


def threads_for(model: "HookedTransformer") -> int:
    """Return the number of scoring threads: torch's on a CPU; 1 on an accelerator or while hooks are
    attached, which may store what they see."""
    return 1 if model.has_listeners() or model.device.type != "cpu" else torch.get_num_threads()


@dataclasses.dataclass(frozen=True)
class Readout:
    """A model's unembedding with the bound that decides how its softmax is summed."""

    weight: Float[Tensor, "d_vocab width"]
    bias: Float[Tensor, " d_vocab"] | None
    longest: float
    """Euclidean length of the longest row of `weight`."""

    @classmethod
    def of(cls, model: "HookedTransformer") -> "Readout":
        """Return the readout of a model."""
        weight, bias = model.readout_weight.detach(), model.readout_bias
        return cls(weight, None if bias is None else bias.detach(), float(weight.norm(dim=-1).max()))

    def log_probs(
        self, x: Float[Tensor, "row width"], rows: Int[Tensor, " target"], tokens: Int[Tensor, " target"]
    ) -> Float[Tensor, " target"]:
        """Return log p(token), in nats, at row `rows[i]` of `x` for token `tokens[i]`."""
        logits = (x[rows] * self.weight[tokens]).sum(-1)
        if self.bias is not None:
            logits += self.bias[tokens]
        return logits - log_normaliser(x, self.weight, self.longest, self.bias)[rows]


_Words: TypeAlias = list[tuple[Tensor, Tensor | None]]
"""The vocabulary in parts of at most `WORDS`: rows of the readout, and their biases."""


def log_normaliser(
    x: Float[Tensor, "row width"],
    readout: Float[Tensor, "d_vocab width"],
    longest: float,
    bias: Float[Tensor, " d_vocab"] | None = None,
) -> Float[Tensor, " row"]:
    """Return the logarithm of each row's softmax denominator, log Σ_v exp(x · readout_v + bias_v).

    Args:
        x: input of the unembedding.
        readout: one row per vocabulary item.
        longest: Euclidean length of the longest row of `readout`. By Cauchy-Schwarz no logit exceeds
            `longest * |x| + max |bias|`; below `SAFE` the exponentials need no maximum subtracted.
        bias: one number per vocabulary item, if the readout has one.
    """
    out = x.new_empty(x.shape[0])
    buffer = x.new_empty(ROWS * WORDS)
    parts = readout.split(WORDS)
    words: _Words = list(zip(parts, [None] * len(parts) if bias is None else bias.split(WORDS), strict=True))
    largest = 0.0 if bias is None else float(bias.abs().max())
    for start in range(0, x.shape[0], ROWS):
        rows = x[start : start + ROWS]
        bound = float(rows.norm(dim=-1).max()) * longest + largest
        chunk = _plain if bound < SAFE else _shifted
        out[start : start + ROWS] = chunk(rows, words, buffer)
    return out


def _tile(rows: Tensor, words: Tensor, bias: Tensor | None, buffer: Tensor) -> Tensor:
    tile = buffer[: rows.shape[0] * words.shape[0]].view(rows.shape[0], words.shape[0])
    if bias is None:
        return torch.mm(rows, words.T, out=tile)
    return torch.addmm(bias, rows, words.T, out=tile)


def _plain(rows: Tensor, words: _Words, buffer: Tensor) -> Tensor:
    total = rows.new_zeros(rows.shape[0])
    for part, bias in words:
        total += _tile(rows, part, bias, buffer).exp_().sum(-1)
    return total.log_()


def _shifted(rows: Tensor, words: _Words, buffer: Tensor) -> Tensor:
    total = rows.new_zeros(rows.shape[0])
    highest = rows.new_full((rows.shape[0],), float("-inf"))
    for part, bias in words:
        logits = _tile(rows, part, bias, buffer)
        higher = torch.maximum(highest, logits.amax(-1))
        total = total * (highest - higher).exp_() + logits.sub_(higher[:, None]).exp_().sum(-1)
        highest = higher
    return total.log_() + highest

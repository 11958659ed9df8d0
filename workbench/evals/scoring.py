"""Sentences to scores, under a named protocol, for causal and masked models alike."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import groupby
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.data.tokenizer import vocabulary_size
from workbench.errors import InputError
from workbench.evals.prefix_tree import Block, PrefixTree, cut, grow
from workbench.evals.protocols import (
    Label,
    Protocol,
    Rows,
    causal_rows,
    encode,
    find_protocol,
    ragged,
    refuse_empty,
    refuse_misfit,
    surround,
)

# Independent batches over the processor's cores: one thread each, no waiting for one another.
from workbench.runs.run import ModelLike, Opened, open_model

T = TypeVar("T")


def tokens_per_forward(device: str) -> int:
    """Tokens that one forward reads: enough to make Python's share small, few enough for the caches."""
    return 2048 if device == "cpu" else 65536


class Tally:
    """Counts what several threads have done, and tells `tick` the share of `total`, one call at a time."""

    def __init__(self, total: int, tick: Callable[[float], None]) -> None:
        self._total, self._tick = total, tick
        self._done = 0
        self._lock = Lock()

    def add(self, count: int) -> None:
        """So many more are done."""
        with self._lock:
            self._done += count
            self._tick(self._done / self._total)


def for_each(work: Callable[[T], None], items: Sequence[T], threads: int) -> None:
    """Call `work` on every item, without gradients, on `threads` threads.

    Small operations gain more from running side by side than from being divided: each thread runs its
    operations alone (torch's intra-operation threads are 1 meanwhile, and restored), also where there is
    but one item, as a divided sum is rounded otherwise. `work` must write to places of its own. The first
    exception stops the rest and is raised here, Ctrl-C included.
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


def threads_for(model: Any) -> int:
    """Threads to score with: torch's number on a processor; one on an accelerator, or under hooks,
    which may keep what they see."""
    hooked = getattr(model, "has_listeners", lambda: False)()
    return 1 if hooked or model.device.type != "cpu" else torch.get_num_threads()


# Log-probabilities of tokens, without ever holding the logits of the whole vocabulary.


# One tile of logits, 1 MB in float32, stays in a core's cache between product and exponential.
ROWS, WORDS = 256, 1024
# exp of +-75 and the sum of 2**17 of them are ordinary float32 numbers: no maximum to subtract.
SAFE = 75.0


@dataclasses.dataclass(frozen=True)
class Readout:
    """A model's unembedding, and bounds on it that are found once."""

    weight: Float[Tensor, "d_vocab width"]
    bias: Float[Tensor, " d_vocab"] | None
    longest: float
    """Euclidean length of the longest row of `weight`."""

    @classmethod
    def of(cls, model: Any) -> "Readout":
        """The readout of a `HookedTransformer`."""
        weight, bias = model.readout_weight.detach(), model.readout_bias
        return cls(weight, None if bias is None else bias.detach(), float(weight.norm(dim=-1).max()))

    def log_probs(
        self, x: Float[Tensor, "row width"], rows: Int[Tensor, " asked"], tokens: Int[Tensor, " asked"]
    ) -> Float[Tensor, " asked"]:
        """log p(token), in nats, at row `rows[i]` of `x` for token `tokens[i]`."""
        logits = (x[rows] * self.weight[tokens]).sum(-1)
        if self.bias is not None:
            logits += self.bias[tokens]
        return logits - log_normaliser(x, self.weight, self.longest, self.bias)[rows]


_Words = list[tuple[Tensor, Tensor | None]]
"""The vocabulary in parts of at most `WORDS`: rows of the readout, and their biases."""


def log_normaliser(
    x: Float[Tensor, "row width"],
    readout: Float[Tensor, "d_vocab width"],
    longest: float,
    bias: Float[Tensor, " d_vocab"] | None = None,
) -> Float[Tensor, " row"]:
    """The logarithm of each row's softmax denominator, log Σ_v exp(x · readout_v + bias_v).

    Args:
        x: what the unembedding reads.
        readout: one row per vocabulary item.
        longest: the Euclidean length of the longest row of `readout`. By Cauchy and Schwarz no logit
            exceeds `longest * |x| + max |bias|`, which tells whether the exponentials need a maximum
            subtracted.
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


# Log-probabilities of many token rows under a causal model, each distinct prefix read once.


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


# Pseudo-log-likelihoods: each token of a sentence predicted from all the others.
#
# `original`: one token masked at a time (Salazar et al. 2020, arXiv:1910.14659).
# `within_word_l2r`: the later tokens of the target's word masked with it, so that a rare word in
# several pieces is not given away by its own end (Kauf & Ivanova 2023, arXiv:2305.10588).


@dataclasses.dataclass(frozen=True)
class MaskedRows:
    """Sentences with their special tokens, and what of them is to be predicted."""

    rows: Rows
    targets: Bool[np.ndarray, " total"]
    """Which of `rows.ids` are predicted."""
    words: Int[np.ndarray, " total"]
    """Number of the word each token belongs to inside its sentence; -1 for special tokens."""


def masked_rows(tokenizer: Any, sentences: Sequence[str], protocol: Protocol, label: Label) -> MaskedRows:
    """Each sentence between its special tokens: BOS and EOS (else CLS and SEP), or the tokenizer's own.

    Raises:
        InputError: an empty sentence, or a tokenizer without these tokens or without a mask token.
    """
    refuse_empty(sentences, label)
    if tokenizer.mask_token_id is None:
        raise InputError("the tokenizer has no mask token, so it does not go with a masked model.")
    texts = [" " + sentence for sentence in sentences] if protocol.space else sentences
    default = protocol.masked == "default"
    encoded = encode(tokenizer, texts, specials=default)
    ids = [one.ids for one in encoded]
    words = [[-1 if word is None else word for word in one.word_ids] for one in encoded]
    if default:
        special = [one.special_tokens_mask for one in encoded]
    else:
        before, after = surround(tokenizer, protocol)
        ids = [[before, *row, after] for row in ids]
        words = [[-1, *row, -1] for row in words]
        special = [[1, *[0] * (len(row) - 2), 1] for row in ids]
    rows, targets = ragged(ids), ragged(special).ids == 0
    bare = np.flatnonzero(np.bincount(_row_numbers(rows)[targets], minlength=len(rows)) == 0)
    if len(bare):
        raise InputError(f"{label(int(bare[0]))} has special tokens only; nothing of it can be predicted.")
    return MaskedRows(rows, targets, ragged(words).ids)


def _row_numbers(rows: Rows) -> Int[np.ndarray, " total"]:
    return np.repeat(np.arange(len(rows)), rows.lengths)


def masked_log_probs(
    model: Any, masked: MaskedRows, mask_token: int, pll: str, tick: Tick = lambda share: None
) -> Float[np.ndarray, " row"]:
    """Sum of log p(token | the other tokens), in nats, over the targets of each row.

    Rows of equal length go together, so nothing is padded; equal masked contexts, such as those of two
    sentences that differ in the masked word only, are read once. Sums are in float64.

    Args:
        model: a bidirectional `HookedTransformer` in evaluation mode.
        masked: the sentences.
        mask_token: id that hides a token.
        pll: `original` or `within_word_l2r`.
        tick: told now and then which share of the work is done.
    """
    lengths = masked.rows.lengths
    sums = np.zeros(len(lengths))
    sizes, counts = np.unique(lengths, return_counts=True)
    cost = np.cumsum(sizes.astype(np.float64) ** 2 * counts)
    for index, length in enumerate(sizes):
        where = np.flatnonzero(lengths == length)
        cells = masked.rows.starts[where][:, None] + np.arange(length)
        before, after = (cost[index - 1] if index else 0.0), cost[index]

        def part_tick(share: float, before: float = before, after: float = after) -> None:
            tick((before + share * (after - before)) / cost[-1])

        sums[where] = _score(
            model, masked.rows.ids[cells], masked.targets[cells], masked.words[cells],
            mask_token, pll, part_tick,
        )  # fmt: skip
    return sums


def variants(
    ids: Int[np.ndarray, "row pos"],
    targets: Bool[np.ndarray, "row pos"],
    words: Int[np.ndarray, "row pos"],
    mask_token: int,
    pll: str,
) -> tuple[Int[np.ndarray, "variant pos"], Int[np.ndarray, " variant"], Int[np.ndarray, " variant"]]:
    """One masked copy of a row for each of its targets: the copies, their rows, their targets' places."""
    row, place = np.nonzero(targets)
    hidden = np.zeros((len(row), ids.shape[1]), bool)
    if pll == "within_word_l2r":
        word = words[row, place]
        hidden = (
            (words[row] == word[:, None]) & (word[:, None] >= 0) & (np.arange(ids.shape[1]) > place[:, None])
        )
    hidden[np.arange(len(row)), place] = True
    return np.where(hidden, mask_token, ids[row]), row, place


def _score(
    model: Any, ids: np.ndarray, targets: np.ndarray, words: np.ndarray, mask_token: int, pll: str, tick: Tick
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
    tally = Tally(len(first), tick)

    def work(start: int) -> None:
        chosen = first[start : start + step]
        batch = torch.from_numpy(copies[chosen].astype(np.int64)).to(device)
        positions = torch.from_numpy(place[chosen]).to(device)
        # Without a mask the model takes a closing token that is also PAD for padding.
        real = torch.ones_like(batch, dtype=torch.bool)
        x = model.residual(batch, attention_mask=real)[torch.arange(len(chosen), device=device), positions]
        low, high = np.searchsorted(sorted_context, [start, start + len(chosen)])
        asked = by_context[low:high]
        parents = torch.from_numpy(context[asked] - start).to(device)
        words_asked = torch.from_numpy(tokens[asked].astype(np.int64)).to(device)
        values[asked] = readout.log_probs(x, parents, words_asked).cpu().numpy()
        tally.add(len(chosen))

    for_each(work, range(0, len(first), step), threads_for(model))
    return np.bincount(row, weights=values, minlength=len(ids))


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model makes of each sentence."""

    scores: Float[np.ndarray, " sentence"]
    """By the protocol's reduction: the sum of the tokens' log-probabilities, or their mean; nats."""
    log_probs: Float[np.ndarray, " sentence"]
    """The sum, in nats; for a masked model the pseudo-log-likelihood."""
    tokens: Int[np.ndarray, " sentence"]
    """Scored tokens."""
    protocol: Protocol
    pll: str | None
    """Which pseudo-log-likelihood; None for a causal model."""


def score_sentences(
    model: Any,
    tokenizer: Any,
    sentences: Sequence[str],
    protocol: str = "native",
    *,
    pll: str = "original",
    label: Callable[[int], str] | None = None,
    tick: Callable[[float], None] = lambda share: None,
) -> Scores:
    """Score sentences. Common beginnings are read once, however the sentences are ordered.

    Args:
        model: a `HookedTransformer`. Half-precision weights are scored in float32, because rounding
            makes ties; float32 and float64 as they are. Left in the mode it was in.
        tokenizer: a `PreTrainedTokenizerFast`, the model's own.
        sentences: without special tokens or a leading space; the protocol adds what it wants.
        protocol: a key of `workbench.evals.protocols.PROTOCOLS`.
        pll: `original` or `within_word_l2r`, for masked models.
        label: how an error names sentence i.
        tick: told now and then which share of the work is done, 0 to 1.

    Raises:
        InputError: no sentences, an empty one, one longer than the context, a tokenizer with more
            tokens than the model knows, or a protocol that does not exist or does not suit the model.
    """
    objective = model.config.objective
    chosen = find_protocol(protocol, objective, pll)
    if not len(sentences):
        raise InputError("there are no sentences to score.")
    if tokenizer is None:
        raise InputError("the model has no tokenizer; pass the one it was trained with.")
    size = vocabulary_size(tokenizer)
    if size > model.config.d_vocab:
        raise InputError(
            f"the tokenizer does not fit the model: it has {size:,} tokens, the model's "
            f"vocabulary has {model.config.d_vocab:,}; use the tokenizer of the model's own run."
        )
    named = label or (lambda index: f"sentence {index}")
    with ready(model) as model:
        if objective == "mlm":
            masked = masked_rows(tokenizer, sentences, chosen, named)
            refuse_misfit(model, masked.rows, named)
            tokens = np.add.reduceat(masked.targets.astype(np.int64), masked.rows.starts[:-1])
            log_probs = masked_log_probs(model, masked, tokenizer.mask_token_id, pll, tick)
        else:
            rows = causal_rows(tokenizer, sentences, chosen, named)
            refuse_misfit(model, rows, named, unread=1)
            tokens = rows.lengths - 1
            log_probs = causal_log_probs(model, rows, tick)
    mean = chosen.reduction(objective) == "mean"
    return Scores(
        scores=log_probs / tokens if mean else log_probs,
        log_probs=log_probs,
        tokens=tokens,
        protocol=chosen,
        pll=pll if objective == "mlm" else None,
    )


def opened(model: ModelLike) -> Opened:
    """The run (or None), the network and the tokenizer of a run or a model."""
    return open_model(model)


@contextmanager
def ready(model: Any) -> Iterator[Any]:
    """The model in evaluation mode and at least in float32; afterwards as it was."""
    if model.dtype not in (torch.float32, torch.float64):
        yield copy.deepcopy(model).float().eval()
        return
    training = model.training
    model.eval()
    try:
        yield model
    finally:
        model.train(training)

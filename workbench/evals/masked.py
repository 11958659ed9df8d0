"""Pseudo-log-likelihoods: each token of a sentence predicted from all the others.

`original`: one token masked at a time (Salazar et al. 2020, arXiv:1910.14659).
`within_word_l2r`: the later tokens of the target's word masked with it, so that a rare word in
several pieces is not given away by its own end (Kauf & Ivanova 2023, arXiv:2305.10588).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from workbench.errors import InputError
from workbench.evals.encoding import Label, Rows, encode, ragged, refuse_empty
from workbench.evals.normaliser import Readout
from workbench.evals.protocols import Protocol
from workbench.evals.workers import Tally, for_each, threads_for, tokens_per_forward

Tick = Callable[[float], None]


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
        before, after = surround(tokenizer)
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


def surround(tokenizer: Any) -> tuple[int, int]:
    """The ids before and after a sentence: BOS and EOS, else CLS and SEP.

    Raises:
        InputError: the tokenizer has neither.
    """
    before, after = tokenizer.bos_token_id, tokenizer.eos_token_id
    if before is None or after is None:
        before, after = tokenizer.cls_token_id, tokenizer.sep_token_id
    if before is None or after is None:
        raise InputError("the tokenizer has neither BOS and EOS nor CLS and SEP to put around a sentence.")
    return int(before), int(after)


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
        x = model.residual(batch)[torch.arange(len(chosen), device=device), positions]
        low, high = np.searchsorted(sorted_context, [start, start + len(chosen)])
        asked = by_context[low:high]
        parents = torch.from_numpy(context[asked] - start).to(device)
        words_asked = torch.from_numpy(tokens[asked].astype(np.int64)).to(device)
        values[asked] = readout.log_probs(x, parents, words_asked).cpu().numpy()
        tally.add(len(chosen))

    for_each(work, range(0, len(first), step), threads_for(model))
    return np.bincount(row, weights=values, minlength=len(ids))

"""The sequences that heads are scored on, one after the other: those given, and repeated random tokens."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.errors import InputError
from workbench.interp.heads.patterns import Rows
from workbench.interp.texts import story_rows
from workbench.seeds import generator

CELLS = 2**24
"""Most entries of a batch's patterns and targets."""


def member(d_vocab: int, ids: Collection[int], what: str, device: Any) -> Bool[Tensor, " d_vocab"]:
    """Which tokens are in a set."""
    if any(not 0 <= one < d_vocab for one in ids):
        raise InputError(f"the {what} ids run to {max(ids)}; the vocabulary has {d_vocab}.")
    found = torch.zeros(d_vocab, dtype=torch.bool, device=device)
    found[list(ids)] = True
    return found


def given_rows(model: Any, sequences: Any, mask: Tensor | None) -> Iterator[Int[Tensor, " pos"]]:
    """Each sequence's ids, without padding.

    Raises:
        InputError: ids or lengths that the model cannot take, padding that is not on the right.
    """
    if mask is not None and not (isinstance(sequences, Tensor) and sequences.shape == mask.shape):
        raise InputError("a mask belongs to token ids of the same shape, [sequence pos].")
    d_vocab, n_ctx = model.config.d_vocab, model.config.n_ctx
    for index, given in enumerate(sequences):
        if isinstance(given, str):
            given = story_rows(model._need_tokenizer(), [given], end=False)[0]
        row = torch.as_tensor(given)
        if mask is not None:
            real = mask[index].bool()
            if bool((real.int().diff() > 0).any()):
                raise InputError(f"sequence {index} has padding before a token; pad on the right.")
            row = row[real]
        if row.ndim != 1 or not 1 <= len(row) <= n_ctx or row.is_floating_point():
            raise InputError(
                f"sequence {index} has the shape {list(row.shape)}; give 1 to {n_ctx} token ids, the context."
            )
        if int(row.min()) < 0 or int(row.max()) >= d_vocab:
            raise InputError(
                f"the ids of sequence {index} run from {int(row.min())} to {int(row.max())}; "
                f"the vocabulary has {d_vocab}."
            )
        yield row.to(model.device)


def repeated_rows(
    model: Any, length: int, count: int, unigram: Any, bos: int | None, seed: int, kind: str
) -> Iterator[Int[Tensor, " pos"]]:
    """`[BOS] r r`, r drawn from the tokens that are not special: all alike, or as they occur.

    Raises:
        InputError: counts that are none.
    """
    tokenizer = model.tokenizer
    known = model.config.d_vocab if tokenizer is None else min(model.config.d_vocab, len(tokenizer))
    share = np.ones(model.config.d_vocab) if unigram is None else np.array(unigram, dtype=np.float64)
    if share.shape != (model.config.d_vocab,) or not (share >= 0).all():
        raise InputError(f"unigram must hold {model.config.d_vocab} counts of 0 or more, one a token.")
    share[known:] = 0
    if tokenizer is not None:
        share[[one for one in tokenizer.all_special_ids if one < len(share)]] = 0
    if bos is None and tokenizer is not None:
        bos = tokenizer.bos_token_id
    start = [] if bos is None else [bos]
    share[start] = 0
    if not share.sum():
        raise InputError("unigram counts no token that is not special.")
    once = unigram is None and np.count_nonzero(share) >= length
    for index in range(count):
        random = generator(seed, f"repeated tokens{kind}", index)
        r = random.choice(len(share), length, replace=not once, p=share / share.sum()).tolist()
        yield torch.tensor(start + r + r, device=model.device)


def batches(
    stream: Iterable[Tensor], batch: int | None, planes: int, sets: dict[str, Tensor], repeat: int
) -> Iterator[Rows]:
    """Rows padded to the longest of their batch, as many at a time as the budget of cells allows."""
    part: list[Tensor] = []
    for row in stream:
        longest = max(len(one) for one in (*part, row))
        full = len(part) >= batch if batch else (len(part) + 1) * planes * longest**2 > CELLS
        if part and full:
            yield _padded(part, repeat, sets)
            part = []
        part.append(row)
    if part:
        yield _padded(part, repeat, sets)


def _padded(part: list[Tensor], repeat: int, sets: dict[str, Tensor]) -> Rows:
    lengths = torch.tensor([len(row) for row in part], device=part[0].device)
    tokens = torch.nn.utils.rnn.pad_sequence(part, batch_first=True).long()
    return Rows(tokens, torch.arange(tokens.shape[1], device=lengths.device) < lengths[:, None], repeat, sets)

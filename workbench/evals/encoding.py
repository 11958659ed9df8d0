"""Sentences to rows of token ids, ready to be scored."""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Int

from workbench.errors import InputError
from workbench.evals.protocols import Protocol
from workbench.evals.word_rows import splits_at_spaces, word_rows

Label = Callable[[int], str]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Token ids of many sequences, end to end."""

    ids: Int[np.ndarray, " total"]
    starts: Int[np.ndarray, " row_and_one"]
    """Sequence i is `ids[starts[i]:starts[i + 1]]`."""

    @property
    def lengths(self) -> Int[np.ndarray, " row"]:
        """Tokens in each sequence."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> Int[np.ndarray, " pos"]:
        return self.ids[self.starts[row] : self.starts[row + 1]]


def encode(tokenizer: Any, sentences: Sequence[str], *, specials: bool) -> list[Any]:
    """The `tokenizers.Encoding` of each sentence; `specials` adds the tokenizer's own special tokens.

    It goes around `PreTrainedTokenizerFast.__call__`, which takes twice the time.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return backend.encode_batch(list(sentences), add_special_tokens=specials)


def ragged(ids: Sequence[Sequence[int]]) -> Rows:
    """Lists of ids as `Rows`."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    flat = np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum()))
    return Rows(flat, np.concatenate([[0], lengths.cumsum()]))


def causal_rows(tokenizer: Any, sentences: Sequence[str], protocol: Protocol, label: Label) -> Rows:
    """Each sentence as ids of which all but the first are scored.

    Under `bos` and `eos` the first is that token; a sentence that spells it out gets no second one.

    Raises:
        InputError: an empty sentence, one of which nothing is scored, or a tokenizer without BOS and EOS.
    """
    refuse_empty(sentences, label)
    texts = [" " + sentence for sentence in sentences] if protocol.space else sentences
    if protocol.causal == "default":
        rows = ragged([one.ids for one in encode(tokenizer, texts, specials=True)])
    else:
        rows = _prefixed(tokenizer, texts, prefix_token(tokenizer, protocol))
    short = np.flatnonzero(rows.lengths < 2)
    if len(short):
        raise InputError(
            f"{label(int(short[0]))} has {rows.lengths[short[0]]} token, and protocol "
            f"{protocol.name!r} does not score the first; choose another protocol or leave the pair out."
        )
    return rows


def _prefixed(tokenizer: Any, texts: Sequence[str], prefix: int) -> Rows:
    if splits_at_spaces(tokenizer, texts):
        return Rows(*word_rows(tokenizer, texts, prefix))
    ids = [one.ids for one in encode(tokenizer, texts, specials=False)]
    return ragged([row if row[:1] == [prefix] else [prefix, *row] for row in ids])


def prefix_token(tokenizer: Any, protocol: Protocol) -> int:
    """The id in front of a causal model's sentence: BOS, else EOS; EOS if the protocol says so.

    Raises:
        InputError: the tokenizer has neither.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    token = eos if protocol.causal == "eos" or bos is None else bos
    if token is None:
        wanted = "EOS" if protocol.causal == "eos" else "BOS or EOS"
        raise InputError(f"protocol {protocol.name!r} begins with {wanted}, and the tokenizer has none.")
    return int(token)


def refuse_empty(sentences: Sequence[str], label: Label) -> None:
    """Refuse sentences without a visible character.

    Raises:
        InputError: naming the first one.
    """
    for index, sentence in enumerate(sentences):
        if not sentence.strip():
            raise InputError(f"{label(index)} is empty; every sentence needs at least one word.")


def refuse_misfit(model: Any, rows: Rows, label: Label, unread: int = 0) -> None:
    """Refuse ids that the model has no embedding for and rows beyond its context.

    Args:
        unread: tokens at the end of a row that are scored but never read: 1 for a causal model.

    Raises:
        InputError: naming the first sentence that is too long, or the largest id.
    """
    d_vocab, n_ctx = model.config.d_vocab, model.config.n_ctx
    if len(rows.ids) and int(rows.ids.max()) >= d_vocab:
        raise InputError(
            f"the tokenizer does not fit the model: it gives id {int(rows.ids.max())}, "
            f"the model's vocabulary has {d_vocab:,}; use the tokenizer of the model's own run."
        )
    lengths = rows.lengths - unread
    if len(lengths) and int(lengths.max()) > n_ctx:
        worst = int(np.flatnonzero(lengths > n_ctx)[0])
        raise InputError(
            f"{label(worst)} has {lengths[worst]} tokens, the model's context has {n_ctx}; "
            "leave the pair out or use a model with a longer context."
        )

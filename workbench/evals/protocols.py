"""Sentences to rows of token ids, ready to be scored."""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from workbench.errors import InputError, nearest

# How a sentence becomes a score: named protocols, ours and other people's.
#
# The leading space, the token in front and the rule for ties are what moves a BLiMP score by
# several points between tools, so each combination has a name and is told with every result.


Specials = Literal["bos", "eos", "default"]
Reduction = Literal["sum", "mean"]
PLL_METRICS = ("original", "within_word_l2r")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to score a sentence with a language model."""

    name: str
    origin: str
    """Where the protocol comes from."""
    space: bool
    """A space goes in front of the sentence, as a continuation has it."""
    causal: Specials
    """What precedes the sentence for a causal model: `bos` (BOS, else EOS) or `eos`, neither of them
    scored; `default`: the tokenizer's own special tokens, and the first token is not scored."""
    causal_reduction: Reduction = "sum"
    """Log-probabilities of the tokens are summed, or averaged."""
    masked: Specials | None = None
    """What surrounds the sentence for a masked model: `bos` for <bos> ... <eos> (else CLS and SEP) as
    in training, `default` for the tokenizer's own special tokens; None if masked models are refused."""
    masked_reduction: Reduction = "sum"
    tie: float
    """What a pair with two equal scores counts: 1 right, 0 wrong, 0.5 half."""

    def reduction(self, objective: str) -> Reduction:
        """How token scores become a sentence score, for a model with this objective (clm or mlm)."""
        return self.masked_reduction if objective == "mlm" else self.causal_reduction


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="native",
            origin="the workbench: the sentence as the model met sentences in training",
            space=False, causal="bos", masked="bos", tie=0.5,
        ),
        Protocol(
            name="lm-eval",
            origin="EleutherAI lm-evaluation-harness 0.4",
            space=True, causal="bos", tie=1.0,
        ),
        Protocol(
            name="paper",
            origin="Warstadt et al. 2020, BLiMP",
            space=False, causal="bos", tie=0.0,
        ),
        Protocol(
            name="minicons",
            origin="minicons 0.3.39 (Misra 2022), its default reduction",
            space=False, causal="default", causal_reduction="mean",
            masked="default", masked_reduction="mean", tie=0.0,
        ),
        Protocol(
            name="babylm-2023",
            origin="BabyLM evaluation pipeline of 2023",
            space=True, causal="eos", masked="default", tie=1.0,
        ),
        Protocol(
            name="babylm-2024",
            origin="BabyLM evaluation pipeline of 2024",
            space=True, causal="bos", masked="default", masked_reduction="mean", tie=1.0,
        ),
        Protocol(
            name="babylm-2025",
            origin="BabyLM evaluation pipeline of 2025",
            space=False, causal="default", masked="default", tie=1.0,
        ),
    )
}  # fmt: skip
"""All protocols by name. One more is one more entry."""


def find_protocol(name: str, objective: str = "clm", pll: str = "original") -> Protocol:
    """The protocol called `name`, checked against what the model can do.

    Args:
        name: a key of `PROTOCOLS`.
        objective: `clm` or `mlm`, the model's.
        pll: for a masked model, `original` (Salazar et al. 2020: each token masked in turn) or
            `within_word_l2r` (Kauf & Ivanova 2023: the later tokens of its word masked with it).

    Raises:
        InputError: no such protocol or `pll` (with the nearest one), or a protocol that is not
            defined for masked models.
    """
    if name not in PROTOCOLS:
        raise InputError(f"no scoring protocol is called {name!r}. {nearest(name, PROTOCOLS)}")
    if pll not in PLL_METRICS:
        raise InputError(f"no pseudo-log-likelihood is called {pll!r}. {nearest(pll, PLL_METRICS)}")
    protocol = PROTOCOLS[name]
    if objective == "mlm" and protocol.masked is None:
        able = ", ".join(key for key, other in PROTOCOLS.items() if other.masked is not None)
        raise InputError(
            f"protocol {name!r} is not defined for masked models, and this model is one; choose from: {able}."
        )
    return protocol


def describe(protocol: Protocol) -> dict[str, Any]:
    """The protocol's fields as plain values, to save beside a result."""
    return dataclasses.asdict(protocol)


# Token ids of many sentences, each distinct word tokenized once.
#
# GPT-2's pre-tokenization (Radford et al. 2019) never reaches across the space between two words: a
# single space belongs to the word after it. So a text of words with single spaces between them has the
# ids of its words, one after the other, and 134,000 sentences of BLiMP have about 3,000 words.


def splits_at_spaces(tokenizer: Any, texts: Sequence[str]) -> bool:
    """Whether the tokenizer gives these texts the ids of their words, one after the other.

    That holds for a byte-level BPE without a normalizer, for printable texts without two spaces in a row
    in which no added token, such as `<eos>`, is spelled out.
    """
    from tokenizers import models, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    split, model = backend.pre_tokenizer, backend.model
    if backend.normalizer is not None or not isinstance(split, pre_tokenizers.ByteLevel):
        return False
    if split.add_prefix_space or not split.use_regex:
        return False
    if not isinstance(model, models.BPE) or model.dropout is not None:
        return False
    together = "\n".join(texts)
    added = {str(token.content) for token in backend.get_added_tokens_decoder().values()}
    if "  " in together or not together.replace("\n", "").isprintable():
        return False
    return together.count("\n") == len(texts) - 1 and not any(word in together for word in added)


def word_rows(
    tokenizer: Any, texts: Sequence[str], prefix: int
) -> tuple[Int[np.ndarray, " total"], Int[np.ndarray, " row_and_one"]]:
    """`prefix` and the ids of each text, end to end, and where each text's begin.

    The texts must pass `splits_at_spaces`.
    """
    pieces = "\n".join(texts).replace(" ", "\0 ").replace("\n", "\0").split("\0")
    number = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    which = np.fromiter(map(number.__getitem__, pieces), np.int64, len(pieces))
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    ids = [one.ids for one in backend.encode_batch(list(number), add_special_tokens=False)]
    sizes = np.fromiter(map(len, ids), np.int64, len(ids))
    table = np.fromiter(chain.from_iterable(ids), np.int32, int(sizes.sum()))

    lengths = sizes[which]
    ends = lengths.cumsum()
    # Place of each token in the table: its word's place there, plus its own place in the word.
    first = (sizes.cumsum() - sizes)[which]
    tokens = table[np.repeat(first - (ends - lengths), lengths) + np.arange(int(ends[-1]))]
    words = np.fromiter((text.count(" ") + 1 for text in texts), np.int64, len(texts))
    row_ends = ends[words.cumsum() - 1] + np.arange(1, len(texts) + 1)
    starts = np.concatenate([[0], row_ends])
    out = np.empty(int(starts[-1]), np.int32)
    is_prefix = np.zeros(len(out), bool)
    is_prefix[starts[:-1]] = True
    out[is_prefix] = prefix
    out[~is_prefix] = tokens
    return out, starts


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
        needed = "EOS" if protocol.causal == "eos" else "BOS or EOS"
        raise InputError(
            f"protocol {protocol.name!r} needs {needed} before the sentence and the tokenizer has none; "
            f"{_without_specials('causal')} need no special token."
        )
    return int(token)


def surround(tokenizer: Any, protocol: Protocol) -> tuple[int, int]:
    """Return the ids before and after a masked model's sentence: BOS and EOS, else CLS and SEP.

    Raises:
        InputError: the tokenizer has neither pair.
    """
    for first, last in (("bos", "eos"), ("cls", "sep")):
        ids = getattr(tokenizer, f"{first}_token_id"), getattr(tokenizer, f"{last}_token_id")
        if None not in ids:
            return ids
    raise InputError(
        f"protocol {protocol.name!r} needs BOS and EOS, or CLS and SEP, around the sentence and "
        f"the tokenizer has none; {_without_specials('masked')} need no special token."
    )


def _without_specials(field: str) -> str:
    return ", ".join(name for name, protocol in PROTOCOLS.items() if getattr(protocol, field) == "default")


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

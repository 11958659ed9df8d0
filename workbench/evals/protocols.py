"""Named scoring protocols, and sentences encoded as rows of token ids under them.

The leading space, the prefix token and the rule for ties move a BLiMP score by several points between tools,
so each combination has a name that is saved with every result.
"""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Int

from workbench.errors import InputError, nearest

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerFast

    from workbench.model.transformer import HookedTransformer

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
    """True if a space is put before the sentence, as a continuation has it."""
    causal: Specials
    """Prefix for a causal model: `bos` (BOS, else EOS) or `eos`, neither of them scored; `default`: the
    tokenizer's own special tokens, and the first token is not scored."""
    causal_reduction: Reduction = "sum"
    """Log-probabilities of the tokens are summed, or averaged."""
    masked: Specials | None = None
    """What surrounds the sentence for a masked model: `bos` for BOS and EOS (else CLS and SEP) as in
    training, `default` for the tokenizer's own special tokens; None if the protocol has no masked models."""
    masked_reduction: Reduction = "sum"
    tie: float
    """Score of a pair with two equal sentence scores: 1 correct, 0 wrong, 0.5 half."""

    def reduction(self, objective: str | None) -> Reduction:
        """Return how token scores become a sentence score for a model with this objective (clm or mlm)."""
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
"""All protocols by name."""


def find_protocol(name: str, objective: str | None = "clm", pll: str = "original") -> Protocol:
    """Return the protocol called `name` after checking that it suits the model.

    Args:
        name: a key of `PROTOCOLS`.
        objective: `clm` or `mlm`, the model's.
        pll: pseudo-log-likelihood for a masked model: `original` (Salazar et al. 2020: each token masked in
            turn) or `within_word_l2r` (Kauf & Ivanova 2023: the later tokens of its word masked with it).

    Raises:
        InputError: an unknown protocol or `pll`, or a protocol that is not defined for masked models.
    """
    if name not in PROTOCOLS:
        raise InputError(f"Unknown scoring protocol {name!r}. {nearest(name, PROTOCOLS)}")
    if pll not in PLL_METRICS:
        raise InputError(f"Unknown pseudo-log-likelihood {pll!r}. {nearest(pll, PLL_METRICS)}")
    protocol = PROTOCOLS[name]
    if objective == "mlm" and protocol.masked is None:
        able = ", ".join(key for key, other in PROTOCOLS.items() if other.masked is not None)
        raise InputError(f"Protocol {name!r} is not defined for masked models; choose from: {able}.")
    return protocol


Label: TypeAlias = Callable[[int], str]
"""Returns the name of sentence i for error messages."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Token ids of many sequences, concatenated."""

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


def ragged(ids: Sequence[Sequence[int]]) -> Rows:
    """Return lists of ids as `Rows`."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    flat = np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum()))
    return Rows(flat, np.concatenate([[0], lengths.cumsum()]))


def encode(
    tokenizer: "PreTrainedTokenizerFast", sentences: Sequence[str], *, specials: bool
) -> list["Encoding"]:
    """Return the `tokenizers.Encoding` of each sentence; `specials` adds the tokenizer's own special tokens.

    This bypasses `PreTrainedTokenizerFast.__call__`, which takes twice the time.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return backend.encode_batch(list(sentences), add_special_tokens=specials)


def causal_rows(
    tokenizer: "PreTrainedTokenizerFast", sentences: Sequence[str], protocol: Protocol, label: Label
) -> Rows:
    """Encode each sentence as ids of which all but the first are scored.

    Under `bos` and `eos` the first id is that token; it is not repeated in front of a sentence that spells
    it.

    Raises:
        InputError: an empty sentence, one of which nothing is scored, or a tokenizer without the token that
            the protocol needs.
    """
    refuse_empty(sentences, label)
    texts = [" " + sentence for sentence in sentences] if protocol.space else sentences
    if protocol.causal == "default":
        rows = ragged([encoding.ids for encoding in encode(tokenizer, texts, specials=True)])
    else:
        prefix = _prefix_token(tokenizer, protocol)
        if splits_at_spaces(tokenizer, texts):
            rows = Rows(*word_rows(tokenizer, texts, prefix))
        else:
            ids = [encoding.ids for encoding in encode(tokenizer, texts, specials=False)]
            rows = ragged([row if row[:1] == [prefix] else [prefix, *row] for row in ids])
    short = np.flatnonzero(rows.lengths < 2)
    if len(short):
        raise InputError(
            f"{label(int(short[0]))} has {rows.lengths[short[0]]} token, and protocol "
            f"{protocol.name!r} does not score the first; choose another protocol or leave the pair out."
        )
    return rows


def _prefix_token(tokenizer: "PreTrainedTokenizerFast", protocol: Protocol) -> int:
    """Return the id in front of a causal model's sentence: BOS, else EOS; EOS if the protocol says so."""
    bos, eos = _special_id(tokenizer, "bos"), _special_id(tokenizer, "eos")
    token = eos if protocol.causal == "eos" or bos is None else bos
    if token is None:
        needed = "EOS" if protocol.causal == "eos" else "BOS or EOS"
        raise InputError(
            f"Protocol {protocol.name!r} needs {needed} before the sentence and the tokenizer has none; "
            f"{_without_specials('causal')} need no special token."
        )
    return token


@dataclasses.dataclass(frozen=True)
class MaskedRows:
    """Sentences for a masked model with their special tokens, and which tokens are predicted."""

    rows: Rows
    targets: Bool[np.ndarray, " total"]
    """True at the ids that are predicted."""
    words: Int[np.ndarray, " total"]
    """Index of the word in its sentence that each token belongs to; -1 for special tokens."""


def masked_rows(
    tokenizer: "PreTrainedTokenizerFast", sentences: Sequence[str], protocol: Protocol, label: Label
) -> MaskedRows:
    """Encode each sentence between BOS and EOS (else CLS and SEP), or with the tokenizer's own special
    tokens.

    Raises:
        InputError: an empty sentence, or a tokenizer without a mask token or the tokens that the protocol
        needs.
    """
    refuse_empty(sentences, label)
    if tokenizer.mask_token_id is None:
        raise InputError("the tokenizer has no mask token, so it cannot be used with a masked model.")
    texts = [" " + sentence for sentence in sentences] if protocol.space else sentences
    default = protocol.masked == "default"
    encoded = encode(tokenizer, texts, specials=default)
    ids = [encoding.ids for encoding in encoded]
    words = [[-1 if word is None else word for word in encoding.word_ids] for encoding in encoded]
    if default:
        special = [encoding.special_tokens_mask for encoding in encoded]
    else:
        before, after = _surround(tokenizer, protocol)
        ids = [[before, *row, after] for row in ids]
        words = [[-1, *row, -1] for row in words]
        special = [[1, *[0] * (len(row) - 2), 1] for row in ids]
    rows, targets = ragged(ids), ragged(special).ids == 0
    row_of = np.repeat(np.arange(len(rows)), rows.lengths)
    untargeted = np.flatnonzero(np.bincount(row_of[targets], minlength=len(rows)) == 0)
    if len(untargeted):
        raise InputError(f"{label(int(untargeted[0]))} has special tokens only; nothing can be predicted.")
    return MaskedRows(rows, targets, ragged(words).ids)


def _surround(tokenizer: "PreTrainedTokenizerFast", protocol: Protocol) -> tuple[int, int]:
    """Return the ids before and after a masked model's sentence: BOS and EOS, else CLS and SEP."""
    for first, last in (("bos", "eos"), ("cls", "sep")):
        before, after = _special_id(tokenizer, first), _special_id(tokenizer, last)
        if before is not None and after is not None:
            return before, after
    raise InputError(
        f"Protocol {protocol.name!r} needs BOS and EOS, or CLS and SEP, around the sentence and "
        f"the tokenizer has none; {_without_specials('masked')} need no special token."
    )


def _special_id(tokenizer: "PreTrainedTokenizerFast", role: str) -> int | None:
    return getattr(tokenizer, f"{role}_token_id")


def _without_specials(field: str) -> str:
    return ", ".join(name for name, protocol in PROTOCOLS.items() if getattr(protocol, field) == "default")


def splits_at_spaces(tokenizer: "PreTrainedTokenizerFast", texts: Sequence[str]) -> bool:
    """Return True if the ids of each text are the ids of its words, concatenated.

    GPT-2's pre-tokenization (Radford et al. 2019) never crosses the space between two words: a single space
    belongs to the word after it. That holds for a byte-level BPE without a normalizer, for printable texts
    without two spaces in a row that spell out no added token such as `<eos>`.
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
    tokenizer: "PreTrainedTokenizerFast", texts: Sequence[str], prefix: int
) -> tuple[Int[np.ndarray, " total"], Int[np.ndarray, " row_and_one"]]:
    """Return `ids` and `starts` of `Rows` with `prefix` before each text, tokenizing each distinct word once.

    The 134,000 sentences of BLiMP have about 3,000 distinct words. The texts must pass `splits_at_spaces`.
    """
    pieces = "\n".join(texts).replace(" ", "\0 ").replace("\n", "\0").split("\0")
    number = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    which = np.fromiter(map(number.__getitem__, pieces), np.int64, len(pieces))
    ids = [encoding.ids for encoding in encode(tokenizer, list(number), specials=False)]
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


def refuse_empty(sentences: Sequence[str], label: Label) -> None:
    """Raise `InputError` naming the first sentence without a visible character, if there is one."""
    for index, sentence in enumerate(sentences):
        if not sentence.strip():
            raise InputError(f"{label(index)} is empty; every sentence needs at least one word.")


def refuse_misfit(model: "HookedTransformer", rows: Rows, label: Label, unread: int = 0) -> None:
    """Refuse ids that the model has no embedding for and rows beyond its context.

    Args:
        model: the model.
        rows: token ids.
        label: names a row in the error.
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

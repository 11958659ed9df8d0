"""Prompts as tokens: pairs of clean and corrupted prompts, the positions that are read, and alignments of
prompts that differ in length."""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.data.tokenizer import token_texts
from workbench.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from workbench.model.transformer import HookedTransformer

PromptInput: TypeAlias = str | Sequence[str] | Tensor
"""A prompt, prompts, or token ids [pair pos]."""
Answers: TypeAlias = str | int | Sequence[str | int] | Tensor
"""A text of one token or an id, for all pairs; or one for each pair, also as ids [pair]."""


class Prompts(NamedTuple):
    """Prompts as token ids, padded on the right."""

    tokens: Int[Tensor, "pair pos"]
    mask: Bool[Tensor, "pair pos"] | None
    """True at tokens; None if no row is padded."""


def token_rows(
    model: "HookedTransformer", prompts: PromptInput
) -> tuple[Int[Tensor, "pair pos"], Bool[Tensor, "pair pos"]]:
    """Return the token ids of prompts and a mask, True at tokens.

    Raises:
        InputError: no prompt, or ids outside the vocabulary.
    """
    if not isinstance(prompts, Tensor):
        return model.to_tokens_and_mask(prompts)
    if not prompts.numel():
        raise InputError("the prompts have no tokens; give some text or ids.")
    tokens = prompts.reshape(-1, prompts.shape[-1]).to(model.device)
    low, high = (int(end) for end in tokens.aminmax())
    if low < 0 or high >= model.config.d_vocab:
        raise InputError(f"token ids run from {low} to {high}; the vocabulary has {model.config.d_vocab}.")
    return tokens, torch.ones_like(tokens, dtype=torch.bool)


def prompt_pair(
    model: "HookedTransformer",
    clean: PromptInput,
    corrupted: PromptInput,
    alignment: "Alignment | None" = None,
) -> tuple[Prompts, Prompts]:
    """Return clean and corrupted prompts as tokens.

    Raises:
        InputError: different numbers of prompts; without an alignment, different numbers of tokens in a pair;
            an alignment of other prompts.
    """
    rows = _paired_rows(model, clean, corrupted)
    lengths = [mask.sum(1) for _, mask in rows]
    if alignment is not None:
        for side, (tokens, mask) in zip(("clean", "corrupted"), rows, strict=True):
            texts = [tuple(labels(model, row[real][None])) for row, real in zip(tokens, mask, strict=True)]
            if tuple(texts) != getattr(alignment, side):
                raise InputError(f"the alignment is of other {side} prompts; make it with these.")
    elif not torch.equal(*lengths):
        worst = int((lengths[0] != lengths[1]).int().argmax())
        raise InputError(
            f"pair {worst} has {int(lengths[0][worst])} clean and {int(lengths[1][worst])} corrupted tokens; "
            "choose prompts of equal length (`patch` also takes alignment=align(model, clean, corrupted)).",
            option="--align",
        )
    first, second = (Prompts(tokens, None if bool(mask.all()) else mask) for tokens, mask in rows)
    return first, second


def _paired_rows(
    model: "HookedTransformer", clean: PromptInput, corrupted: PromptInput
) -> list[tuple[Tensor, Tensor]]:
    rows = [token_rows(model, prompts) for prompts in (clean, corrupted)]
    counts = [len(tokens) for tokens, _ in rows]
    if counts[0] != counts[1]:
        raise InputError(f"{counts[0]} clean prompts and {counts[1]} corrupted ones do not make pairs.")
    return rows


def last_positions(tokens: Int[Tensor, "pair pos"], mask: Tensor | None) -> Int[Tensor, " pair"]:
    """Return the position of each row's last token."""
    if mask is None:
        return torch.full((len(tokens),), tokens.shape[1] - 1, device=tokens.device)
    return mask.sum(1) - 1


def hidden_positions(model: "HookedTransformer", tokens: Int[Tensor, "pair pos"]) -> Int[Tensor, " pair"]:
    """Return the position of each row's one mask token.

    Raises:
        InputError: a tokenizer without a mask token, or a row that has not exactly one.
    """
    tokenizer = model.tokenizer
    if tokenizer is None or tokenizer.mask_token_id is None:
        raise InputError("a masked model is read at a mask token; its tokenizer has none: give position=.")
    hidden = tokens.eq(torch.tensor(tokenizer.mask_token_id, device=tokens.device))
    counts = hidden.sum(1)
    if bool((counts != 1).any()):
        worst = int((counts != 1).int().argmax())
        raise InputError(
            f"prompt {worst} has {int(counts[worst])} mask tokens; a masked model is read at exactly one: "
            f"put one {tokenizer.mask_token} into each prompt."
        )
    return hidden.int().argmax(1)


def read_positions(
    model: "HookedTransformer",
    tokens: Int[Tensor, "pair pos"],
    mask: Tensor | None,
    position: int | Sequence[int] | None = None,
) -> Int[Tensor, " pair"]:
    """Return the position at which each row's prediction is read.

    That is the given position, counted from the end if negative; by default the last token, or the mask token
    of a masked model.

    Raises:
        InputError: outside the row, another number of positions than rows, or not exactly one mask in a row.
    """
    last = last_positions(tokens, mask)
    if position is None:
        return last if model.config.objective == "clm" else hidden_positions(model, tokens)
    given = [position] * len(tokens) if isinstance(position, int) else list(position)
    if len(given) != len(tokens):
        raise InputError(f"{len(given)} positions were given for {len(tokens)} prompts; give one for each.")
    positions = torch.tensor(given, device=tokens.device)
    positions = torch.where(positions < 0, positions + last + 1, positions)
    outside = (positions < 0) | (positions > last)
    if bool(outside.any()):
        row = int(outside.int().argmax())
        size = int(last[row]) + 1
        raise InputError(
            f"position {given[row]} is outside prompt {row}, which has {size} tokens, BOS included."
        )
    return positions


def labels(model: "HookedTransformer", tokens: Int[Tensor, "pair pos"]) -> list[str]:
    """Return the first row's tokens: texts if the model has a tokenizer, else ids."""
    return token_texts(model.tokenizer, tokens[0].tolist())


@dataclasses.dataclass(frozen=True)
class Alignment:
    """The corresponding tokens of prompts that differ in length; made by `align`."""

    clean: tuple[tuple[str, ...], ...]
    corrupted: tuple[tuple[str, ...], ...]
    matched: tuple[tuple[tuple[int, int], ...], ...]
    """For each pair, (clean position, corrupted position), both ascending."""

    def match(self, clean: int, corrupted: int, pair: int = 0) -> "Alignment":
        """Return a copy with two positions matched; matches of either, or crossing this one, are removed.

        Raises:
            InputError: a pair or position out of range.
        """
        self._check(pair, clean, corrupted)
        kept = [
            (a, b)
            for a, b in self.matched[pair]
            if (a < clean and b < corrupted) or (a > clean and b > corrupted)
        ]
        return self._replace(pair, sorted([*kept, (clean, corrupted)]))

    def unmatch(self, clean: int, pair: int = 0) -> "Alignment":
        """Return a copy without the match of a clean position, which is then not patched.

        Raises:
            InputError: a pair or position out of range.
        """
        self._check(pair, clean, 0)
        return self._replace(pair, [(a, b) for a, b in self.matched[pair] if a != clean])

    def places(self, into_clean: bool, width: int) -> Int[Tensor, "pair pos"]:
        """Return the matching position of the donor for each position of the edited prompts; -1 for none.

        Args:
            into_clean: True if the clean prompts are edited.
            width: positions of the edited batch.
        """
        table = torch.full((len(self.matched), width), -1)
        for pair, matches in enumerate(self.matched):
            for clean, corrupted in matches:
                edited, donor = (clean, corrupted) if into_clean else (corrupted, clean)
                table[pair, edited] = donor
        return table

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per token or match: pair, clean_pos, clean, corrupted_pos, corrupted (NA: none)."""
        import pandas as pd

        rows = [
            (pair, a, None if a is None else clean[a], b, None if b is None else corrupted[b])
            for pair, (clean, corrupted) in enumerate(zip(self.clean, self.corrupted, strict=True))
            for a, b in self._rows(pair)
        ]
        frame = pd.DataFrame(rows, columns=["pair", "clean_pos", "clean", "corrupted_pos", "corrupted"])
        return frame.astype({"clean_pos": "Int64", "corrupted_pos": "Int64"})

    def __str__(self) -> str:
        """Return two lines per pair, matched tokens below each other."""
        blocks = []
        for pair, (clean, corrupted) in enumerate(zip(self.clean, self.corrupted, strict=True)):
            lines = ["clean    ", "corrupted"]
            for a, b in self._rows(pair):
                cells = [
                    "" if a is None else f"{a}:{clean[a]!r}",
                    "" if b is None else f"{b}:{corrupted[b]!r}",
                ]
                size = max(map(len, cells))
                lines = [f"{line} {cell:<{size}}" for line, cell in zip(lines, cells, strict=True)]
            blocks.append("\n".join(line.rstrip() for line in lines))
        return "\n\n".join(blocks)

    def _rows(self, pair: int) -> list[tuple[int | None, int | None]]:
        rows: list[tuple[int | None, int | None]] = []
        ends = (len(self.clean[pair]), len(self.corrupted[pair]))
        at = (0, 0)
        for match in (*self.matched[pair], ends):
            rows += [(a, None) for a in range(at[0], match[0])] + [(None, b) for b in range(at[1], match[1])]
            if match != ends:
                rows.append(match)
            at = (match[0] + 1, match[1] + 1)
        return rows

    def _replace(self, pair: int, matches: Sequence[tuple[int, int]]) -> "Alignment":
        matched = [*self.matched[:pair], tuple(matches), *self.matched[pair + 1 :]]
        return dataclasses.replace(self, matched=tuple(matched))

    def _check(self, pair: int, clean: int, corrupted: int) -> None:
        if not 0 <= pair < len(self.matched):
            raise InputError(f"pair {pair} is out of range (0-{len(self.matched) - 1}).")
        for name, place, tokens in (("clean", clean, self.clean), ("corrupted", corrupted, self.corrupted)):
            if not 0 <= place < len(tokens[pair]):
                raise InputError(
                    f"{name} position {place} of pair {pair} is out of range (0-{len(tokens[pair]) - 1})."
                )


def align(model: "HookedTransformer", clean: PromptInput, corrupted: PromptInput) -> Alignment:
    """Propose which tokens of clean and corrupted prompts correspond.

    Prompts of equal length match position by position. Otherwise their longest common blocks match (as in
    `difflib`), and replaced tokens are paired from the end, where a word's last token is. The proposal can be
    printed, and changed with `match` and `unmatch`.

    Raises:
        InputError: different numbers of prompts.
    """
    rows = _paired_rows(model, clean, corrupted)
    ids = [[row[mask].tolist() for row, mask in zip(*side, strict=True)] for side in rows]
    words = [tuple(tuple(labels(model, torch.tensor([row]))) for row in side) for side in ids]
    return Alignment(words[0], words[1], tuple(_matches(a, b) for a, b in zip(*ids, strict=True)))


def _matches(clean: list[int], corrupted: list[int]) -> tuple[tuple[int, int], ...]:
    if len(clean) == len(corrupted):
        return tuple((position, position) for position in range(len(clean)))
    matches = []
    blocks = difflib.SequenceMatcher(None, clean, corrupted, autojunk=False).get_opcodes()
    for tag, a, a_end, b, b_end in blocks:
        if tag in ("equal", "replace"):
            count = min(a_end - a, b_end - b)
            matches += [(a_end - count + step, b_end - count + step) for step in range(count)]
    return tuple(matches)

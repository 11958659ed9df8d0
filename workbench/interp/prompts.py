"""Which token of one prompt stands for which of the other, where a pair differs in length.

Patching goes position by position; prompts of equal length match place by place. For others a matching is
proposed: what the two share stands together (the longest common blocks, as in `difflib`), and of what was
replaced the tokens are paired from the end, where a word's last piece stands. It can be read, printed and
changed before it is used.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.data.tokenizer import token_texts
from workbench.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


# Pairs of prompts that differ in what matters, and what they are judged by.


def token_rows(model: Any, given: Any) -> tuple[Int[Tensor, "pair pos"], Bool[Tensor, "pair pos"]]:
    """Token ids of prompts, and where they are no padding.

    Args:
        model: a `HookedTransformer`.
        given: a prompt, prompts, or token ids [pair pos].

    Raises:
        InputError: no prompt, or ids that the model does not know.
    """
    if isinstance(given, Tensor):
        if not given.numel():
            raise InputError("the prompts have no tokens; give some text or ids.")
        tokens = given.reshape(-1, given.shape[-1]).to(model.device)
        low, high = (int(end) for end in tokens.aminmax())
        if low < 0 or high >= model.config.d_vocab:
            raise InputError(
                f"token ids run from {low} to {high}; the vocabulary has {model.config.d_vocab}."
            )
        return tokens, torch.ones_like(tokens, dtype=torch.bool)
    return model.to_tokens_and_mask(given)


def prompts(model: Any, clean: Any, corrupted: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Clean and corrupted token ids [pair pos], and 1 at tokens where some row is padded.

    Raises:
        InputError: other numbers of prompts, or of tokens in a pair.
    """
    (first, one), (second, other) = paired_rows(model, clean, corrupted)
    lengths = one.sum(1), other.sum(1)
    if not torch.equal(*lengths):
        worst = int((lengths[0] != lengths[1]).int().argmax())
        raise InputError(
            f"pair {worst} has {int(lengths[0][worst])} clean and {int(lengths[1][worst])} corrupted tokens; "
            "patching goes position by position: choose prompts of equal length, or match their tokens: "
            "alignment=align(model, clean, corrupted).",
            option="--align",
        )
    return first, second, None if bool(one.all()) else one


def paired_rows(model: Any, clean: Any, corrupted: Any) -> list[tuple[Tensor, Tensor]]:
    """`token_rows` of both.

    Raises:
        InputError: other numbers of prompts.
    """
    rows = [token_rows(model, given) for given in (clean, corrupted)]
    counts = [len(tokens) for tokens, _ in rows]
    if counts[0] != counts[1]:
        raise InputError(f"{counts[0]} clean prompts and {counts[1]} corrupted ones do not make pairs.")
    return rows


def last_positions(tokens: Int[Tensor, "pair pos"], mask: Tensor | None) -> Int[Tensor, " pair"]:
    """The place of each row's last token."""
    if mask is None:
        return torch.full((len(tokens),), tokens.shape[1] - 1, device=tokens.device)
    return mask.sum(1) - 1


def hidden_positions(model: Any, tokens: Int[Tensor, "pair pos"]) -> Int[Tensor, " pair"]:
    """The place of each row's one mask token.

    Raises:
        InputError: a tokenizer without one, or a row that has not exactly one.
    """
    hidden = getattr(model.tokenizer, "mask_token_id", None)
    if hidden is None:
        raise InputError("a masked model answers at a mask token; its tokenizer has none: give position=.")
    counts = (tokens == hidden).sum(1)
    if bool((counts != 1).any()):
        worst = int((counts != 1).int().argmax())
        raise InputError(
            f"prompt {worst} has {int(counts[worst])} mask tokens; a masked model answers at exactly one: "
            f"put one {model.tokenizer.mask_token} into each prompt."
        )
    return (tokens == hidden).int().argmax(1)


def read_positions(
    model: Any,
    tokens: Int[Tensor, "pair pos"],
    mask: Tensor | None,
    position: int | Sequence[int] | None = None,
) -> Int[Tensor, " pair"]:
    """Where each row's answer is read off: a given position, counted from the end if negative; else a causal
    model's last token, or the mask token of a masked one.

    Raises:
        InputError: outside the row, another number of positions than rows, or not exactly one mask in a row.
    """
    last = last_positions(tokens, mask)
    if position is None:
        return last if model.config.objective == "clm" else hidden_positions(model, tokens)
    given = [position] * len(tokens) if isinstance(position, int) else list(position)
    if len(given) != len(tokens):
        raise InputError(f"{len(given)} positions were given for {len(tokens)} prompts; give one for each.")
    found = torch.tensor(given, device=tokens.device)
    found = torch.where(found < 0, found + last + 1, found)
    outside = (found < 0) | (found > last)
    if bool(outside.any()):
        row = int(outside.int().argmax())
        size = int(last[row]) + 1
        raise InputError(
            f"position {given[row]} is outside prompt {row}, which has {size} tokens, BOS included."
        )
    return found


def labels(model: Any, tokens: Int[Tensor, "pair pos"]) -> list[str]:
    """The first row's tokens: text if the model has a tokenizer, ids otherwise."""
    return token_texts(model.tokenizer, tokens[0].tolist())


NOTHING = -1


@dataclasses.dataclass(frozen=True)
class Alignment:
    """For each pair, tokens of both prompts and which of them match."""

    clean: tuple[tuple[str, ...], ...]
    corrupted: tuple[tuple[str, ...], ...]
    matched: tuple[tuple[tuple[int, int], ...], ...]
    """For each pair, (clean position, corrupted position), both ascending."""

    def match(self, clean: int, corrupted: int, pair: int = 0) -> "Alignment":
        """With these two positions matched, and whatever crossed that or held one of them no longer so.

        Raises:
            InputError: a pair or position that is not there.
        """
        self._need(pair, clean, corrupted)
        kept = [
            (a, b)
            for a, b in self.matched[pair]
            if (a < clean and b < corrupted) or (a > clean and b > corrupted)
        ]
        return self._with(pair, sorted([*kept, (clean, corrupted)]))

    def unmatch(self, clean: int, pair: int = 0) -> "Alignment":
        """Without the match of a clean position: it is not patched.

        Raises:
            InputError: a pair or position that is not there.
        """
        self._need(pair, clean, 0)
        return self._with(pair, [(a, b) for a, b in self.matched[pair] if a != clean])

    def places(self, into_clean: bool, width: int) -> Int[Tensor, "pair pos"]:
        """For each position of the patched prompts the other's that stands for it; -1 for none.

        Args:
            into_clean: whether the clean prompts are patched.
            width: positions of the patched batch.
        """
        found = torch.full((len(self.matched), width), NOTHING)
        for pair, matches in enumerate(self.matched):
            for clean, corrupted in matches:
                mine, other = (clean, corrupted) if into_clean else (corrupted, clean)
                found[pair, mine] = other
        return found

    def to_frame(self) -> "pd.DataFrame":
        """One row a token that either has: pair, clean_pos, clean, corrupted_pos, corrupted; NA for none."""
        import pandas as pd

        rows = [
            (pair, a, None if a is None else one[a], b, None if b is None else other[b])
            for pair, (one, other) in enumerate(zip(self.clean, self.corrupted, strict=True))
            for a, b in self._rows(pair)
        ]
        frame = pd.DataFrame(rows, columns=["pair", "clean_pos", "clean", "corrupted_pos", "corrupted"])
        return frame.astype({"clean_pos": "Int64", "corrupted_pos": "Int64"})

    def __str__(self) -> str:
        """Two lines a pair, matched tokens under each other."""
        blocks = []
        for pair, (one, other) in enumerate(zip(self.clean, self.corrupted, strict=True)):
            lines = ["clean    ", "corrupted"]
            for a, b in self._rows(pair):
                cells = ["" if a is None else f"{a}:{one[a]!r}", "" if b is None else f"{b}:{other[b]!r}"]
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

    def _with(self, pair: int, matches: Sequence[tuple[int, int]]) -> "Alignment":
        matched = [*self.matched[:pair], tuple(matches), *self.matched[pair + 1 :]]
        return dataclasses.replace(self, matched=tuple(matched))

    def _need(self, pair: int, clean: int, corrupted: int) -> None:
        if not 0 <= pair < len(self.matched):
            raise InputError(f"there is no pair {pair}; the alignment has {len(self.matched)}.")
        for name, place, tokens in (("clean", clean, self.clean), ("corrupted", corrupted, self.corrupted)):
            if not 0 <= place < len(tokens[pair]):
                raise InputError(
                    f"pair {pair} has no {name} position {place}; it has 0 to {len(tokens[pair]) - 1}."
                )


def align(model: Any, clean: Any, corrupted: Any) -> Alignment:
    """Propose which tokens match.

    Args:
        model: a `HookedTransformer`.
        clean: prompts, or token ids [pair pos].
        corrupted: as many.

    Raises:
        InputError: other numbers of prompts.
    """
    rows = paired_rows(model, clean, corrupted)
    ids = [[row[real].tolist() for row, real in zip(*side, strict=True)] for side in rows]
    words = [tuple(tuple(labels(model, torch.tensor([row]))) for row in side) for side in ids]
    return Alignment(words[0], words[1], tuple(_matches(a, b) for a, b in zip(*ids, strict=True)))


def aligned_prompts(
    model: Any, clean: Any, corrupted: Any, alignment: Alignment | None
) -> list[tuple[Tensor, Tensor | None]]:
    """Clean and corrupted token ids [pair pos], each with a mask: 1 at tokens; None where nothing is padded.

    Raises:
        InputError: as `prompts`; an alignment of other prompts.
    """
    if alignment is None:
        first, second, mask = prompts(model, clean, corrupted)
        return [(first, mask), (second, mask)]
    found = []
    for name, (tokens, real), mine in zip(
        ("clean", "corrupted"),
        paired_rows(model, clean, corrupted),
        (alignment.clean, alignment.corrupted),
        strict=True,
    ):
        if [labels(model, row[mask][None]) for row, mask in zip(tokens, real, strict=True)] != list(
            map(list, mine)
        ):
            raise InputError(f"the alignment is of other {name} prompts; make it with these.")
        found.append((tokens, None if bool(real.all()) else real))
    return found


def _matches(one: list[int], other: list[int]) -> tuple[tuple[int, int], ...]:
    if len(one) == len(other):
        return tuple((place, place) for place in range(len(one)))
    found = []
    for tag, a, a_end, b, b_end in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag in ("equal", "replace"):
            count = min(a_end - a, b_end - b)
            found += [(a_end - count + step, b_end - count + step) for step in range(count)]
    return tuple(found)

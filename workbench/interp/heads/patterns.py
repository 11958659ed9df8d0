"""What attention can be said to look at: keys that count for a query, by name."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class Rows:
    """A batch, and what patterns ask of it."""

    tokens: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"]
    repeat: int
    """Length of `r` in `[BOS] r r`; 0 in other text."""
    sets: dict[str, Bool[Tensor, " d_vocab"]]

    @property
    def distance(self) -> Int[Tensor, "1 query key"]:
        place = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return (place[:, None] - place)[None]

    def keys_in(self, name: str) -> Tensor:
        return self.sets[name][self.tokens][:, None, :] & (self.distance != 0)

    def second(self, distance: int) -> Tensor:
        """From the second copy of `r`, which ends the row, that far back."""
        start = self.tokens.shape[1] - self.repeat
        place = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return (self.distance == distance) & (place >= start)[None, :, None]


TEXT: dict[str, Callable[[Rows], Tensor]] = {
    "previous": lambda rows: rows.distance == 1,
    "next": lambda rows: rows.distance == -1,
    "self": lambda rows: rows.distance == 0,
    "sink": lambda rows: (
        (rows.distance != 0) & (torch.arange(rows.tokens.shape[1]) == 0).to(rows.real.device)
    ),
    "same_word": lambda rows: (rows.tokens[:, :, None] == rows.tokens[:, None, :]) & (rows.distance != 0),
    "punctuation": lambda rows: rows.keys_in("punctuation"),
    "name": lambda rows: rows.keys_in("name"),
}
"""Patterns in the sequences given: keys [batch query key] that count. A token is not its own pattern, but in
`self`; `sink` is the first place, where BOS stands."""

REPEATED: dict[str, Callable[[Rows], Tensor]] = {
    "duplicate": lambda rows: rows.second(rows.repeat),
    "induction": lambda rows: rows.second(rows.repeat - 1),
}
"""Patterns on `[BOS] r r` with random r, queries in the second r: the same token in the first, and the token
that followed it there."""

SCORES = (*TEXT, *REPEATED, *(f"{name}_unigram" for name in REPEATED))


def length_of_repeats(config: Any, asked: int | None) -> int:
    """Tokens in r: so that `[BOS] r r` fits, and every window reaches from one copy to the other."""
    room = (config.n_ctx - 1) // 2
    if asked is not None:
        if not 2 <= asked <= room:
            raise InputError(f"repeat_length = {asked} must lie between 2 and {room}, half the context.")
        return asked
    return min(32, room, *(window - 1 for window in config.windows if window > 2))


def impossible(
    config: Any, punctuation: Any, names: Any, unigram: Any, length: int, repeats: int
) -> dict[str, str]:
    """Scores that make no sense here, and why."""
    found = {}
    if config.attention == "causal":
        found["next"] = "a causal model cannot see the next token"
    else:
        reason = "it predicts the next token from an earlier copy, and a bidirectional model sees that token"
        found |= {"induction": reason, "induction_unigram": reason}
    for name, ids in (("punctuation", punctuation), ("name", names)):
        if not len(ids):
            found[name] = "no token ids were given for it"
    for name in REPEATED:
        if length < 2 or repeats < 1:
            why = "no random sequences were asked for" if repeats < 1 else "the context is too short"
            found |= {name: why, f"{name}_unigram": why}
        if unigram is None:
            found.setdefault(f"{name}_unigram", "no unigram distribution was given")
    return found


def choose(scores: Sequence[str] | None, omitted: dict[str, str]) -> set[str]:
    """The scores to take.

    Raises:
        InputError: one that there is not, or that makes no sense here.
    """
    if scores is None:
        return {name for name in SCORES if name not in omitted}
    for name in scores:
        if name not in SCORES:
            raise InputError(f"no score is called {name!r}. {nearest(name, SCORES)}")
        if name in omitted:
            raise InputError(f"the score {name} cannot be taken: {omitted[name]}.")
    return set(scores)

"""Rows of different lengths as one list of tokens, laid out in rows only where attention needs it."""

from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.model.cache import LayerCache


class Tokens:
    """The tokens of rows that each run from a start to before a stop, row by row.

    Args:
        pair: which pair each row belongs to.
        start: its first position.
        stop: the position behind its last.
        at: where the first row's tokens stand in a list that these are part of.
    """

    def __init__(
        self,
        pair: Int[Tensor, " row"],
        start: Int[Tensor, " row"],
        stop: Int[Tensor, " row"],
        at: int = 0,
    ) -> None:
        self.pair, self.start, self.stop = pair, start, stop
        counts = stop - start
        self.first = counts.cumsum(0) - counts
        """Index of each row's first token."""
        self.row = torch.arange(len(pair), device=pair.device).repeat_interleave(counts)
        """Of each token."""
        self.pos = torch.arange(len(self.row), device=pair.device) - (self.first - start)[self.row]
        """Of each token."""
        self.at = slice(at, at + len(self.row))
        """These tokens' places in the list that they are part of."""

    def between(self, first: int, last: int) -> "Tokens":
        """The rows from `first` to before `last`."""
        if first == 0 and last == len(self.pair):
            return self
        some = slice(first, last)
        before = int(self.first[first]) if first < len(self.pair) else len(self.row)
        return Tokens(self.pair[some], self.start[some], self.stop[some], before)

    @cached_property
    def is_whole(self) -> bool:
        """Whether all rows are alike and start at 0."""
        return not bool(self.start.any()) and bool((self.stop == self.stop[0]).all())

    def of(self, x: Float[Tensor, "pair pos *rest"]) -> Float[Tensor, "1 token *rest"]:
        """Each pair's values at these tokens."""
        return x[self.pair[self.row], self.pos][None]


class Shown(LayerCache):
    """Keys and values that are all there already: nothing new is added.

    Args:
        keys: [row kv_head key_pos d_head].
        values: [row kv_head key_pos d_value].
    """

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """What is there."""
        return self.keys, self.values


class Packed(LayerCache):
    """A base run's keys and values in each row, and the rows' own tokens in their places.

    Args:
        keys: of the base run, [pair pos kv_head d_head].
        values: the same.
        tokens: of the rows.
        low: the first position that has queries.
    """

    def __init__(self, keys: Tensor, values: Tensor, tokens: Tokens, low: int) -> None:
        super().__init__(keys, values)
        self.tokens, self.low = tokens, low
        self.whole = tokens.is_whole and int(tokens.stop[0]) == keys.shape[1] and low == 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of each row, [row kv_head key_pos d], from the tokens', [1 kv_head token d]."""
        keys, values = (self._laid(new, old) for new, old in ((k, self.keys), (v, self.values)))
        return keys.transpose(1, 2), values.transpose(1, 2)

    def join(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries too in rows; 0 where a row has no token."""
        mine = q[0].transpose(0, 1)
        if self.whole:
            laid = mine.unflatten(0, (len(self.tokens.pair), -1))
        else:
            laid = q.new_zeros(len(self.tokens.pair), self.keys.shape[1] - self.low, *mine.shape[1:])
            laid[self.tokens.row, self.tokens.pos - self.low] = mine
        return laid.transpose(1, 2), *self.append(k, v)

    def part(self, z: Float[Tensor, "row query_pos head d_value"]) -> Float[Tensor, "1 token head d_value"]:
        """The tokens' results."""
        if self.whole:
            return z.flatten(0, 1)[None]
        return z[self.tokens.row, self.tokens.pos - self.low][None]

    def _laid(self, new: Tensor, old: Tensor) -> Tensor:
        mine = new[0].transpose(0, 1)
        if self.whole:
            return mine.unflatten(0, (len(self.tokens.pair), -1))
        laid = old[self.tokens.pair]
        laid[self.tokens.row, self.tokens.pos] = mine
        return laid

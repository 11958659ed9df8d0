"""Streaming numbers of many neurons at once: moments, histogram, best passages, a uniform sample of tokens.

Everything is updated row by row, while a row's activations are in the processor's cache, and costs a fraction
of the forward pass; what is kept does not grow with the text.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

LOWEST, OCTAVES = -6, 11
"""The histogram's smallest magnitude is 2 ** LOWEST; it has two bins an octave."""
BINS = 2 * 2 * OCTAVES + 1
_FIRST = 2 * (127 + LOWEST) - 1  # the float's exponent and first bit of its fraction, one bin below
_MAGNITUDES = [2.0 ** (LOWEST + octave) * half for octave in range(OCTAVES) for half in (1.0, 1.5)]
EDGES = np.array([-np.inf, *(-np.array(_MAGNITUDES[::-1])), *_MAGNITUDES, np.inf])
"""Edges of the bins; the middle one holds magnitudes under 2 ** LOWEST."""

ROWS_AT_ONCE = 16

Where = slice | Tensor
"""Which positions of a row count."""


class Tally:
    """What is kept of one layer.

    Args:
        width: neurons.
        count: best passages to keep of each.
        device: where activations are.
    """

    def __init__(self, width: int, count: int, device: torch.device) -> None:
        self.count = count
        self.tokens = 0
        self.value = torch.full((width, count), -torch.inf, dtype=torch.float64, device=device)
        """The best rows' largest activations, [neuron rank], descending."""
        self.row = torch.full((width, count), -1, device=device)
        self.pos = torch.full((width, count), -1, device=device)
        self._key = torch.full((width, count), -1, device=device)
        self.positive = torch.zeros(width, dtype=torch.int64, device=device)
        self.histogram = torch.zeros(width * BINS, dtype=torch.int64, device=device)
        self._shift: Tensor | None = None
        self._sums = torch.zeros(2, width, dtype=torch.float64, device=device)
        self._offsets = torch.arange(width, dtype=torch.int32, device=device) * BINS + BINS // 2

    def add(
        self,
        x: Float[Tensor, "row pos neuron"],
        rows: Int[Tensor, " row"],
        wanted: Sequence[Where],
        keys: Int[Tensor, "row pos"],
    ) -> None:
        """Take in a batch.

        Args:
            x: activations.
            rows: the rows' numbers in the text.
            wanted: the positions that count, one or more a row.
            keys: positions that read alike have the same.
        """
        best = torch.stack([self._row(x[index, where]) for index, where in enumerate(wanted)], 1)
        for first in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            self._merge(x[part], best[:, part], rows[part], wanted[part], keys[part])

    def _row(self, x: Float[Tensor, "pos neuron"]) -> Float[Tensor, " neuron"]:
        if self._shift is None:
            self._shift = x.mean(0)  # sums about it stay exact for a neuron that is always on
        self.tokens += len(x)
        self.positive += (x > 0).sum(0)
        away = x - self._shift
        self._sums[0] += away.sum(0)
        self._sums[1] += away.square_().sum(0)
        bits = x.float().view(torch.int32)
        step = ((bits & 0x7FFFFFFF) >> 22).clamp_(_FIRST, _FIRST + BINS // 2).sub_(_FIRST)
        sign = bits >> 31  # -1 below 0, else 0
        bins = step.bitwise_xor_(sign).sub_(sign).add_(self._offsets)
        self.histogram += torch.bincount(bins.flatten(), minlength=len(self.histogram))
        return x.amax(0)

    def _merge(
        self,
        x: Tensor,
        best: Float[Tensor, "neuron row"],
        rows: Tensor,
        wanted: Sequence[Where],
        keys: Tensor,
    ) -> None:
        """Put rows that beat a neuron's last one into its list: larger first, then the earlier row; of those
        that read alike only the first."""
        better = (best > self.value[:, -1:]) | ((best == self.value[:, -1:]) & (rows < self.row[:, -1:]))
        neurons = better.any(1).nonzero()[:, 0]
        if not len(neurons):
            return
        better = better[neurons]
        pos, key = torch.full((2, *better.shape), -1, device=rows.device)
        for index, where in enumerate(wanted):
            who = better[:, index].nonzero()[:, 0]
            if len(who):
                first = x[index, where][:, neurons[who]].argmax(0)
                pos[who, index] = (
                    first + where.start if isinstance(where, slice) else where.to(first.device)[first]
                )
                key[who, index] = keys[index, pos[who, index]]
        new = torch.where(better, best[neurons].double(), -torch.inf), rows.expand_as(better), pos, key
        old = self.value, self.row, self.pos, self._key
        tables = [torch.cat([kept[neurons], fresh], 1) for kept, fresh in zip(old, new, strict=True)]
        order = tables[1].argsort(dim=1, stable=True)
        order = order.gather(1, tables[0].gather(1, order).argsort(dim=1, descending=True, stable=True))
        sorted_keys = tables[3].gather(1, order)
        alike = (sorted_keys[:, :, None] == sorted_keys[:, None, :]).tril(-1).any(2)
        tables[0].scatter_(1, order, tables[0].gather(1, order).masked_fill(alike, -torch.inf))
        order = order.gather(1, alike.to(torch.uint8).argsort(dim=1, stable=True))[:, : self.count]
        value, row, pos, key = (table.gather(1, order) for table in tables)
        empty = value == -torch.inf
        for table in (row, pos, key):
            table[empty] = -1
        self.value[neurons], self.row[neurons], self.pos[neurons], self._key[neurons] = value, row, pos, key

    @property
    def mean(self) -> Float[Tensor, " neuron"]:
        """Mean activation."""
        assert self._shift is not None
        return self._shift.double() + self._sums[0] / self.tokens

    @property
    def variance(self) -> Float[Tensor, " neuron"]:
        """Population variance."""
        return (self._sums[1] / self.tokens - (self._sums[0] / self.tokens) ** 2).clamp(min=0)


class TokenSample:
    """A uniform sample of token positions without replacement: those whose hashes are smallest.

    A position's hash is a function of the seed, its row and its place, so the sample is that of the text,
    however it is cut into batches, and lies in random order.

    Args:
        size: positions to keep.
        seed: another seed, another sample.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.keys = np.zeros(0, np.uint64)
        self.row, self.pos = np.zeros((2, 0), np.int64)
        self.values: list[Tensor] = []
        """One tensor a layer, [token neuron]; as they stand after `finish`."""
        self._new: tuple[np.ndarray, ...] = ()
        self._pieces: list[Sequence[Tensor]] = []
        self._bound: np.uint64 | None = None

    def choose(self, rows: Int[np.ndarray, " token"], places: Int[np.ndarray, " token"]) -> np.ndarray:
        """Which of these positions may be among the smallest; `keep` must follow with their values."""
        keys = _mixed(np.array([self.seed % 2**64], np.uint64))
        for number in (rows, places):
            keys = _mixed(keys + number.astype(np.uint64))
        chosen = np.arange(len(keys)) if self._bound is None else np.flatnonzero(keys < self._bound)
        self._new = keys[chosen], rows[chosen], places[chosen]
        return chosen

    def keep(self, values: Sequence[Float[Tensor, "token neuron"]]) -> None:
        """Take in the activations at the chosen positions."""
        self.keys, self.row, self.pos = (
            np.concatenate([old, new])
            for old, new in zip((self.keys, self.row, self.pos), self._new, strict=True)
        )
        self._pieces.append(values)
        if len(self.keys) > self.size + self.size // 2:  # seldom, for it copies everything
            self.finish()

    def finish(self) -> None:
        """Drop what is not among the smallest."""
        order = np.argsort(self.keys, kind="stable")[: self.size]
        self.keys, self.row, self.pos = self.keys[order], self.row[order], self.pos[order]
        pieces = [self.values, *self._pieces] if self.values else self._pieces
        self.values = [torch.cat(layer)[order] for layer in zip(*pieces, strict=True)]
        self._pieces = []
        if len(self.keys) == self.size:
            self._bound = self.keys[-1]


def _mixed(x: Shaped[np.ndarray, " token"]) -> Shaped[np.ndarray, " token"]:
    """splitmix64 (Steele et al. 2014): every bit of the result depends on every bit of the number."""
    x = x + np.uint64(0x9E3779B97F4A7C15)  # overflow wraps
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def context_keys(tokens: Int[Tensor, "row pos"], length: int) -> Int[Tensor, "row pos"]:
    """A number for each position, the same where the last `length` tokens, its own included, are the same."""
    keys = torch.zeros_like(tokens)
    for back in range(length):
        before = torch.full_like(tokens, -1)
        before[:, back:] = tokens[:, : tokens.shape[1] - back]
        keys = keys * 6364136223846793005 + before + 2  # overflow wraps: a hash
    return keys & 0x7FFFFFFFFFFFFFFF

"""A corpus in blocks: what one shard on the disk holds, and in which batches it is read."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError

if TYPE_CHECKING:
    from probes.align import Aligned

TOKENS_PER_SHARD = 8_192
"""So much is lost at most when a process is killed, and so much is sorted by length at once."""
TOKENS_PER_FORWARD = 4_096

TOKEN_CHOICES = ("first", "last", "mean")
"""Which of a word's tokens stand for it."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Windows of nearly the same length, and the rows in them."""

    windows: np.ndarray
    """[batch] numbers of the windows, the shortest first."""
    row: np.ndarray
    """[row] place in the shard."""
    at: np.ndarray
    """[row] which of `windows`."""
    first: np.ndarray
    """[row span] first token of each span, in its window."""
    last: np.ndarray
    """[row span]"""


@dataclasses.dataclass(frozen=True)
class Block:
    """Windows [start, stop), and the rows that lie in them."""

    index: int
    start: int
    stop: int
    rows: np.ndarray
    """[row] their numbers in the corpus, in the order in which the shard holds them."""
    tokens: int
    """Tokens in the windows."""


class Blocks:
    """Cuts an aligned corpus into blocks; the same corpus gives the same blocks.

    Args:
        aligned: tokens, and the rows' windows and positions (see `probes.align.Aligned`).
    """

    def __init__(self, aligned: "Aligned") -> None:
        self._tokens = aligned.tokens
        self._first, self._last = _spans(aligned.first), _spans(aligned.last)
        self._window = np.asarray(aligned.window, np.int64)
        self.n_rows, self.n_spans = self._first.shape
        self.lengths = np.array([len(window) for window in aligned.tokens], np.int64)
        self._check()
        order = np.argsort(self._window, kind="stable")
        used = np.unique(self._window)
        # Windows without a row are never read.
        sums = np.cumsum(self.lengths[used])
        shard = (sums - 1) // TOKENS_PER_SHARD
        edges = np.flatnonzero(np.r_[True, shard[1:] != shard[:-1], True]) if len(used) else np.zeros(0, int)
        placed = np.searchsorted(self._window[order], used)
        placed = np.r_[placed, len(order)]
        self._used = used
        self.blocks = [
            Block(
                index, int(start), int(stop), order[placed[start] : placed[stop]],
                int(self.lengths[used[start:stop]].sum()),
            )
            for index, (start, stop) in enumerate(itertools.pairwise(edges))
        ]  # fmt: skip

    @property
    def tokens(self) -> int:
        """Tokens to be read."""
        return sum(block.tokens for block in self.blocks)

    def batches(self, block: Block) -> Iterator[Batch]:
        """A block's windows, sorted by length, so many that a forward has `TOKENS_PER_FORWARD` tokens."""
        windows = self._used[block.start : block.stop]
        windows = windows[np.argsort(self.lengths[windows], kind="stable")]
        place = np.empty(len(self.lengths), np.int64)
        at_row = self._window[block.rows]
        start = 0
        while start < len(windows):
            stop = start + 1
            while (
                stop < len(windows) and (stop - start + 1) * self.lengths[windows[stop]] <= TOKENS_PER_FORWARD
            ):
                stop += 1
            chosen = windows[start:stop]
            place[chosen] = np.arange(len(chosen))
            mine = np.flatnonzero(np.isin(at_row, chosen))
            rows = block.rows[mine]
            yield Batch(chosen, mine, place[at_row[mine]], self._first[rows], self._last[rows])
            start = stop

    def window(self, index: int) -> list[int]:
        """A window's token ids."""
        return self._tokens[int(index)]

    def range_of_ids(self) -> tuple[int, int]:
        """The smallest and the largest token id."""
        ends = [(min(window), max(window)) for window in self._tokens if len(window)]
        return min(low for low, _ in ends), max(high for _, high in ends)

    def digest(self, token: str) -> str:
        """24 hexadecimal digits that change with any token id, any span, and the choice of token."""
        digest = hashlib.sha256(f"{token} {TOKENS_PER_SHARD} {self._first.shape}".encode())
        digest.update(self.lengths.tobytes())
        for window in self._tokens:
            digest.update(np.asarray(window, np.int64).tobytes())
        for field in (self._window, self._first, self._last):
            digest.update(np.ascontiguousarray(field).tobytes())
        return digest.hexdigest()[:24]

    def _check(self) -> None:
        rows = len(self._window)
        if not rows:
            raise InputError("there is nothing to read: the corpus has no labelled words.")
        if not len(self._first) == len(self._last) == rows:
            raise InputError(
                f"{rows:,} rows have {len(self._first):,} first and {len(self._last):,} last tokens."
            )
        if self._window.min() < 0 or self._window.max() >= len(self.lengths):
            raise InputError(f"rows name windows up to {self._window.max()}; there are {len(self.lengths)}.")
        ends = self.lengths[self._window][:, None]
        if (self._first < 0).any() or (self._first > self._last).any() or (self._last >= ends).any():
            raise InputError(
                "a row's span lies outside its window; align the corpus with the run's tokenizer."
            )


def _spans(values: Any) -> np.ndarray:
    array = np.asarray(values, np.int64)
    return array[:, None] if array.ndim == 1 else array

"""A corpus: training and validation stories, lazily read, with a fingerprint of their contents."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from workbench.data.sources import read_source
from workbench.errors import ConfigError, DataError
from workbench.stats import generator

if TYPE_CHECKING:
    from pyarrow import ChunkedArray

EMBEDDED = "embedded"
VALIDATION_FRACTION = 0.01
VALIDATION_LIMIT = 10_000
_TRAIN = ("train", "training")
_VALIDATION = ("validation", "valid", "val", "dev", "test")


class Stories(Sequence[str]):
    """A sequence of strings on disk, read on access.

    Args:
        column: strings, usually memory-mapped.
        rows: the rows of the column that are in the sequence, int64 `[stories]`, ascending.
    """

    def __init__(self, column: "ChunkedArray", rows: np.ndarray) -> None:
        self._column, self._rows = column, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if not isinstance(index, slice):
            return self._column[int(self._rows[index])].as_py()
        rows = self._rows[index]
        if not len(rows):
            return []
        low, high = int(rows.min()), int(rows.max()) + 1
        if high - low > 2 * len(rows) + 16:
            return [self._column[int(row)].as_py() for row in rows]
        block = self._column.slice(low, high - low).to_pylist()
        return [block[row - low] for row in rows]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 1000):
            yield from self[start : start + 1000]

    def __repr__(self) -> str:
        return f"Stories({len(self):,})"


@dataclass(frozen=True)
class Corpus:
    """Training and validation stories.

    Attributes:
        name: short name for tables.
        source: argument of `open_corpus` that opens it again: `"embedded"`, a hub name or an absolute path.
        fingerprint: SHA-256 that changes with any story, the split or the limit.
        train: the training stories.
        validation: the validation stories.
        column: name of the column in the source.
        held_out: origin of the validation stories: a split's name in the source, or `"seeded share"`.
        blank: number of skipped stories, empty or only white space.
    """

    name: str
    source: str
    fingerprint: str
    train: Sequence[str]
    validation: Sequence[str]
    column: str = "text"
    held_out: str = "seeded share"
    blank: int = 0


def open_corpus(
    source: str | Path | None = None,
    *,
    n_stories: int = 20_000,
    seed: int = 0,
    column: str = "text",
    limit: int | None = None,
    cache: Path | None = None,
) -> Corpus:
    """Open a corpus.

    Args:
        source: None or `"embedded"` for the stories that come with the package; a `.txt` file with
            `<|endoftext|>` between stories, a `.jsonl` or `.parquet` file; a folder in hub layout; a hub name
            such as `roneneldan/TinyStories` (`owner/name:configuration` if it has several).
        n_stories: embedded training stories to generate; validation adds 1 %.
        seed: of the embedded stories, and of the held-out stories if the source has no validation split.
        column: the column with the stories.
        limit: use only the first `limit` stories of each split.
        cache: folder for the `datasets` library's Arrow copies, instead of its own.

    Without a validation split, a seeded 1 % of the stories (at least one, at most 10,000) is held out. Only
    stories that occur once are drawn, so that no validation story is an exact duplicate of a training story.

    Raises:
        ConfigError: `limit` or `n_stories` is under 1.
        DataError: no such source, nothing readable, no such column, or no stories; one line says which.
    """
    for name, number in (("limit", limit), ("n_stories", n_stories)):
        if number is not None and number < 1:
            raise ConfigError(f"{name} must be 1 or more, not {number}.")
    if source is None or str(source) == EMBEDDED:
        return _embedded(n_stories, seed, limit)
    read = read_source(str(source), column, cache)
    rows = {split: _filled(values) for split, values in read.splits.items()}
    blank = sum(len(read.splits[split]) - len(rows[split]) for split in rows)
    rows = {split: kept for split, kept in rows.items() if len(kept)}
    if not rows:
        raise DataError(f"{source} holds no stories" + (f", only {blank} blank ones." if blank else "."))
    train = next((split for split in _TRAIN if split in rows), None) or (
        next(iter(rows)) if len(rows) == 1 else None
    )
    if train is None:
        raise DataError(f"{source} has no split named train; it has {', '.join(rows)}.")
    held_out = next((split for split in _VALIDATION if split in rows and split != train), None)
    if held_out:
        train_rows, validation_rows, values = rows[train], rows[held_out], read.splits[held_out]
    else:
        values = read.splits[train]
        train_rows, validation_rows = _hold_out(values, rows[train], seed, str(source))
    train_rows, validation_rows = train_rows[:limit], validation_rows[:limit]
    digests = [_digest(values, validation_rows), _digest(read.splits[train], train_rows)]
    return Corpus(
        name=read.name,
        source=read.where,
        fingerprint=hashlib.sha256("".join(digests).encode()).hexdigest(),
        train=Stories(read.splits[train], train_rows),
        validation=Stories(values, validation_rows),
        column=column,
        held_out=held_out or "seeded share",
        blank=blank,
    )


def _embedded(n_stories: int, seed: int, limit: int | None) -> Corpus:
    import pyarrow as pa

    from workbench.data.embedded.stories import split_stories

    n_train = min(n_stories, limit or n_stories)
    n_validation = min(max(1, round(n_stories * VALIDATION_FRACTION)), limit or n_stories)
    train, validation = split_stories(n_train, n_validation, seed)
    digests = [
        _digest(pa.chunked_array([pa.array(texts, pa.large_string())]), np.arange(len(texts)))
        for texts in (validation, train)
    ]
    return Corpus(
        name=EMBEDDED,
        source=EMBEDDED,
        fingerprint=hashlib.sha256("".join(digests).encode()).hexdigest(),
        train=train,
        validation=validation,
    )


def _filled(column: "ChunkedArray") -> np.ndarray:
    """Return the rows with more than white space in them, int64, ascending."""
    import pyarrow.compute as pc

    kept, start = [np.empty(0, dtype=np.int64)], 0
    for chunk in column.chunks:
        trimmed = pc.utf8_ltrim_whitespace(chunk)  # type: ignore[attr-defined]
        filled = pc.greater(pc.binary_length(trimmed), 0)  # type: ignore[attr-defined]
        kept.append(np.flatnonzero(filled.to_numpy(zero_copy_only=False)) + start)
        start += len(chunk)
    return np.concatenate(kept)


def _hold_out(
    column: "ChunkedArray", rows: np.ndarray, seed: int, source: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return training and validation rows, both ascending."""
    hashes = np.empty(len(rows), dtype=np.uint64)
    for index, story in enumerate(Stories(column, rows)):
        hashes[index] = int.from_bytes(hashlib.blake2b(story.encode(), digest_size=8).digest())
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    once = np.sort(first[counts == 1])
    if len(first) < 2 or not len(once):
        what = "one story" if len(rows) == 1 else f"{len(first)} different stories, each more than once"
        raise DataError(
            f"{source} holds {what}: at least one more is needed for validation; in a .txt file put "
            "<|endoftext|> between stories."
        )
    n_validation = min(max(1, int(len(rows) * VALIDATION_FRACTION)), VALIDATION_LIMIT)
    drawn = generator(seed, "validation split").permutation(len(once))[:n_validation]
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[once[drawn]] = True
    return rows[~chosen], rows[chosen]


def _digest(column: "ChunkedArray", rows: np.ndarray) -> str:
    """Return the SHA-256s of the lengths and of the bytes of the stories in these rows, however chunked."""
    import pyarrow as pa

    lengths, contents = hashlib.sha256(), hashlib.sha256()
    start = 0
    for chunk in column.chunks:
        low, high = np.searchsorted(rows, [start, start + len(chunk)])
        inside = rows[low:high] - start
        start += len(chunk)
        if not len(inside):
            continue
        texts = chunk.cast(pa.large_binary())
        if len(inside) < len(texts):
            texts = texts.take(pa.array(inside))
        _, offsets, data = texts.buffers()
        ends = np.frombuffer(offsets, dtype="<i8")[texts.offset : texts.offset + len(texts) + 1]
        lengths.update(np.diff(ends).tobytes())
        contents.update(memoryview(data)[ends[0] : ends[-1]])
    return lengths.hexdigest() + contents.hexdigest()

"""A corpus: named training and validation stories, lazily read, with a fingerprint of their contents."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from workbench.data.sources import read_source
from workbench.errors import ConfigError, DataError
from workbench.stats import generator

EMBEDDED = "embedded"
VALIDATION_SHARE = 0.01
VALIDATION_MOST = 10_000
_TRAIN = ("train", "training")
_VALIDATION = ("validation", "valid", "val", "dev", "test")


class Stories(Sequence[str]):
    """Stories on disk: behaves as a list of strings, reads what is asked for.

    Args:
        column: a `pyarrow.ChunkedArray` of strings, usually memory-mapped.
        rows: which of its rows, in this order: int64 `[stories]`, ascending.
    """

    def __init__(self, column: Any, rows: np.ndarray) -> None:
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
        source: what opens it again: `"embedded"`, a name of the hub, or an absolute path.
        fingerprint: SHA-256 that changes with any story, the split or the limit.
        train: the training stories.
        validation: the validation stories.
        column: the column they came from.
        held_out: how validation came about: a split's name in the source, or `"seeded share"`.
        blank: stories left out because there is nothing but white space in them.
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
    """Open what `--data` names.

    Args:
        source: None or `"embedded"` for the stories that come with the package; a `.txt` file with
            `<|endoftext|>` between stories, a `.jsonl` or `.parquet` file; a folder in hub layout; a name of
            the hub such as `roneneldan/TinyStories` (`owner/name:configuration` where it has several).
        n_stories: embedded training stories to write; validation is 1 % more.
        seed: of the embedded stories, and of the held-out share where the source has no validation split.
        column: which column holds the stories.
        limit: at most so many stories of each split, the first ones.
        cache: folder for the `datasets` library's Arrow copies, in place of its own.

    Without a validation split, a seeded 1 % of the stories (at least one, at most 10,000) is held out; only
    stories that stand once are drawn, so an exact duplicate trains and never validates.

    Raises:
        ConfigError: `limit` or `n_stories` is under 1.
        DataError: nothing there, nothing readable, no such column, no stories; one line says which.
    """
    for name, number in (("limit", limit), ("n_stories", n_stories)):
        if number is not None and number < 1:
            raise ConfigError(f"{name} must be 1 or more, not {number}.")
    if source is None or str(source) == EMBEDDED:
        return _embedded(n_stories, seed, limit)
    found = read_source(str(source), column, cache)
    rows = {split: _filled(values) for split, values in found.splits.items()}
    blank = sum(len(found.splits[split]) - len(rows[split]) for split in rows)
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
        train_rows, validation_rows, values = rows[train], rows[held_out], found.splits[held_out]
    else:
        values = found.splits[train]
        train_rows, validation_rows = _hold_out(values, rows[train], seed, str(source))
    train_rows, validation_rows = train_rows[:limit], validation_rows[:limit]
    digests = [_digest(values, validation_rows), _digest(found.splits[train], train_rows)]
    return Corpus(
        name=found.name,
        source=found.where,
        fingerprint=hashlib.sha256("".join(digests).encode()).hexdigest(),
        train=Stories(found.splits[train], train_rows),
        validation=Stories(values, validation_rows),
        column=column,
        held_out=held_out or "seeded share",
        blank=blank,
    )


def _embedded(n_stories: int, seed: int, limit: int | None) -> Corpus:
    import pyarrow as pa

    from workbench.data.embedded.stories import split_stories

    n_train = min(n_stories, limit or n_stories)
    n_validation = min(max(1, round(n_stories * VALIDATION_SHARE)), limit or n_stories)
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


def _filled(column: Any) -> np.ndarray:
    """Rows with more than white space in them, int64, ascending."""
    import pyarrow.compute as pc

    kept, start = [np.empty(0, dtype=np.int64)], 0
    for chunk in column.chunks:
        trimmed = pc.utf8_ltrim_whitespace(chunk)  # type: ignore[attr-defined]
        filled = pc.greater(pc.binary_length(trimmed), 0)  # type: ignore[attr-defined]
        kept.append(np.flatnonzero(filled.to_numpy(zero_copy_only=False)) + start)
        start += len(chunk)
    return np.concatenate(kept)


def _hold_out(column: Any, rows: np.ndarray, seed: int, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into training and validation ones; both ascending."""
    hashes = np.empty(len(rows), dtype=np.uint64)
    for index, story in enumerate(Stories(column, rows)):
        hashes[index] = int.from_bytes(hashlib.blake2b(story.encode(), digest_size=8).digest())
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    once = np.sort(first[counts == 1])
    if len(first) < 2 or not len(once):
        what = "one story" if len(rows) == 1 else f"{len(first)} different stories, each more than once"
        raise DataError(
            f"{source} holds {what}: at least one more is needed to validate on; in a .txt file put "
            "<|endoftext|> between stories."
        )
    wanted = min(max(1, int(len(rows) * VALIDATION_SHARE)), VALIDATION_MOST)
    drawn = generator(seed, "validation split").permutation(len(once))[:wanted]
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[once[drawn]] = True
    return rows[~chosen], rows[chosen]


def _digest(column: Any, rows: np.ndarray) -> str:
    """SHA-256 of the lengths and of the bytes of the stories in these rows, whatever chunks they lie in."""
    import pyarrow as pa

    lengths, contents = hashlib.sha256(), hashlib.sha256()
    start = 0
    for chunk in column.chunks:
        low, high = np.searchsorted(rows, [start, start + len(chunk)])
        wanted = rows[low:high] - start
        start += len(chunk)
        if not len(wanted):
            continue
        texts = chunk.cast(pa.large_binary())
        if len(wanted) < len(texts):
            texts = texts.take(pa.array(wanted))
        _, offsets, data = texts.buffers()
        ends = np.frombuffer(offsets, dtype="<i8")[texts.offset : texts.offset + len(texts) + 1]
        lengths.update(np.diff(ends).tobytes())
        contents.update(memoryview(data)[ends[0] : ends[-1]])
    return lengths.hexdigest() + contents.hexdigest()

"""Characters to tokens: which tokens hold an item's letters, exactly, by the fast tokenizer's offsets.

A span's tokens are those that hold at least one of its characters. A leading space belongs to the token
(byte-level tokenizers count it in, others leave it out; both come to the same). The tokens of an emoji that
is split into bytes share one character, and all of them belong to its span. A token that holds letters of two
words (` don` of "do" + "n't") belongs to both; of two words in the same token (`."`) the first stands.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Int, Num

from probes.aligned import Aligned
from probes.examples import Document, Item
from workbench.errors import ConfigError, DataError, shown

MOST_DROPPED = 0.01
"""Share of the labels that may fail to align before the task is refused."""
COUNTS = ("labels", "dropped", "cut", "merged", "single")
"""What `Aligned.counts` counts."""
_BATCH = 1000
_WORD = re.compile(r"\w+|[^\w\s]")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|\n+\s*")


class _Rows:
    """Rows as they come, in plain lists."""

    def __init__(self) -> None:
        self.tokens: list[list[int]] = []
        self.window: list[int] = []
        self.first: list[tuple[int, ...]] = []
        self.last: list[tuple[int, ...]] = []
        self.label: list[str | float] = []
        self.word: list[str] = []
        self.group: list[int] = []
        self.position: list[int] = []
        self.groups: dict[str, int] = {}
        self.dropped: list[str] = []
        self.counts: dict[str, int] = dict.fromkeys(COUNTS, 0)


def align(
    documents: Iterable[Document],
    tokenizer: Any,
    n_ctx: int,
    *,
    max_rows: int | None = None,
    max_dropped: float = MOST_DROPPED,
    masked: bool = False,
) -> Aligned:
    """Tokenize documents and find each item's tokens.

    A document that does not fit is split at its sentences, and each window starts with BOS. Where a single
    sentence is longer than the context, the labels past it are left out and counted as `cut`.

    Args:
        documents: read lazily, and no further than `max_rows` asks.
        tokenizer: a `PreTrainedTokenizerFast`.
        n_ctx: the model's context; BOS, where the tokenizer has one, takes a place of it.
        max_rows: stop after the document in which so many rows are reached.
        max_dropped: refuse when more than this share of the labels does not align.
        masked: end each window with EOS, as masked models read texts.

    Raises:
        ConfigError: `max_rows` or `n_ctx` too small.
        DataError: no documents or no labels; a span that is empty, backwards or outside its text (with its
            document); labels of both kinds or not finite; too many labels that do not align; one class only.
    """
    from workbench.data.tokenizer import plain_encoder

    before = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    after = [int(tokenizer.eos_token_id)] if masked and tokenizer.eos_token_id is not None else []
    room = n_ctx - len(before) - len(after)
    if room < 1:
        raise ConfigError(f"n_ctx={n_ctx} leaves no room for a token beside BOS and EOS.")
    if max_rows is not None and max_rows < 1:
        raise ConfigError(f"max_rows={max_rows}: at least 1.")
    encoder = plain_encoder(tokenizer)
    rows = _Rows()
    for batch in _batches(documents):
        try:
            encoded = encoder.encode_batch([one.text for one in batch], add_special_tokens=False)
        except (UnicodeEncodeError, TypeError):
            raise DataError(_not_text(batch)) from None
        for document, one in zip(batch, encoded, strict=True):
            if max_rows is not None and len(rows.label) >= max_rows:
                break
            _add(rows, document, one, room, before, after)
        if max_rows is not None and len(rows.label) >= max_rows:
            break
    return _finished(rows, max_dropped, n_ctx)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    left = iter(documents)
    while batch := list(islice(left, _BATCH)):
        yield batch


def _not_text(batch: list[Document]) -> str:
    for document in batch:
        try:
            document.text.encode()
        except (UnicodeEncodeError, AttributeError):
            return f"{shown(document.group)}: its text is no Unicode text: {ascii(document.text)[:60]}"
    return "a document's text cannot be tokenized."


def _add(rows: _Rows, document: Document, one: Any, room: int, before: list[int], after: list[int]) -> None:
    """One document's windows and rows."""
    items = document.items
    if not items:
        return
    n_spans = len(items[0].spans)
    _check(document, n_spans)
    if rows.first and len(rows.first[0]) != n_spans:
        raise DataError(
            f"{shown(document.group)}: an item of {n_spans} spans where others have another number."
        )
    rows.counts["labels"] += len(items)
    places = np.array(one.offsets, dtype=np.int64).reshape(-1, 2)
    spans = np.array([item.spans for item in items], dtype=np.int64)
    first = np.searchsorted(places[:, 1], spans[..., 0], side="right")
    last = np.searchsorted(places[:, 0], spans[..., 1], side="left") - 1
    held = np.all(first <= last, axis=-1).tolist()
    windows = _windows(document.text, places, room)
    starts, ends = np.array(windows, dtype=np.int64).reshape(-1, 2).T
    which = np.maximum(np.searchsorted(starts, first, side="right") - 1, 0)
    fits = np.all((which == which[:, :1]) & (last < ends[which]), axis=-1).tolist()
    shift = starts[which] - len(before)
    base, ids = len(rows.tokens), one.ids
    rows.tokens += [before + ids[low:high] + after for low, high in windows]
    group = rows.groups.setdefault(document.group, len(rows.groups))
    words = np.array([match.start() for match in _WORD.finditer(document.text)], dtype=np.int64)
    position = np.maximum(np.searchsorted(words, spans[:, 0, 0], side="right") - 1, 0).tolist()
    window, firsts, lasts = which[:, 0].tolist(), (first - shift).tolist(), (last - shift).tolist()
    seen: set[tuple] = set()
    cut = 0
    for at, item in enumerate(items):
        if not held[at]:
            rows.counts["dropped"] += 1
            rows.dropped.append(_line(document, item, "no token holds it"))
            continue
        if not fits[at]:
            cut += 1
            continue
        here = tuple(firsts[at]), tuple(lasts[at])
        key = (window[at], *here)
        if key in seen:
            rows.counts["merged"] += 1
            continue
        seen.add(key)
        rows.window.append(base + window[at])
        rows.first.append(here[0])
        rows.last.append(here[1])
        rows.label.append(item.label)
        rows.word.append(item.word)
        rows.group.append(group)
        rows.position.append(position[at])
    if cut:
        rows.counts["cut"] += cut
        rows.dropped.append(f"{shown(document.group)}: {cut} of {len(items)} labels lie past the context")


def _check(document: Document, n_spans: int) -> None:
    """Refuse spans that no text can have."""
    length = len(document.text)
    for item in document.items:
        if len(item.spans) != n_spans or not n_spans:
            raise DataError(f"{shown(document.group)}: items of {n_spans} and of {len(item.spans)} spans.")
        for start, end in item.spans:
            if not 0 <= start < end <= length:
                raise DataError(
                    f"{shown(document.group)}: span {start}:{end} of label {shown(str(item.label))!r} is not "
                    f"in its text of {length} characters; spans are [start, end) in characters, from 0."
                )


def _line(document: Document, item: Item, why: str) -> str:
    words = " and ".join(repr(shown(document.text[start:end], 30)) for start, end in item.spans)
    return f"{shown(document.group)}: {words} ({shown(str(item.label), 30)}): {why}"


def _windows(text: str, places: Int[np.ndarray, "token 2"], room: int) -> list[tuple[int, int]]:
    """Token ranges, one a window: as many whole sentences as fit, each longer sentence cut at `room`."""
    count = len(places)
    if count <= room:
        return [(0, count)]
    ends = np.array([match.end() for match in _SENTENCE_END.finditer(text)], dtype=np.int64)
    cuts = np.searchsorted(places[:, 1], ends, side="right")  # the first token with a letter of the next one
    cuts = [int(cut) for cut in np.unique(cuts) if 0 < cut < count] + [count]
    windows, start, best = [], 0, 0
    for cut in cuts:
        if cut - start > room:
            if best > start:
                windows.append((start, best))
                start = best
            if cut - start > room:
                windows.append((start, start + room))
                start = best = cut
                continue
        best = cut
    if best > start:
        windows.append((start, best))
    return windows


def _finished(rows: _Rows, max_dropped: float, n_ctx: int) -> Aligned:
    """Arrays of the rows, after the checks that need all of them."""
    counts, dropped = rows.counts, rows.dropped
    if not counts["labels"]:
        raise DataError("The task gave no labels: no document has an item in it.")
    if counts["dropped"] > max_dropped * counts["labels"]:
        raise DataError(
            f"{counts['dropped']:,} of {counts['labels']:,} labels do not align with the tokens "
            f"({counts['dropped'] / counts['labels']:.1%}, at most {max_dropped:.0%} may): "
            f"{'; '.join(dropped[:3])}. Mend their spans."
        )
    if not rows.label:
        raise DataError(
            f"No label is left: {counts['cut']:,} lie past the context of {n_ctx} tokens, "
            f"{counts['dropped']:,} align with no token."
        )
    classes, label, keep = _labels(rows, counts, dropped)
    window, group = np.array(rows.window)[keep], np.array(rows.group)[keep]
    kept_words = [rows.word[at] for at in keep]
    words = sorted(set(kept_words))
    index = {word: at for at, word in enumerate(words)}
    return Aligned(
        tokens=rows.tokens,
        window=window,
        first=np.array(rows.first, dtype=np.int64)[keep],
        last=np.array(rows.last, dtype=np.int64)[keep],
        label=label,
        classes=classes,
        word=np.array([index[word] for word in kept_words], dtype=np.int64),
        words=tuple(words),
        group=group,
        position=np.array(rows.position, dtype=np.int64)[keep],
        dropped=dropped,
        groups=tuple(rows.groups),
        counts=counts,
    )


def _labels(
    rows: _Rows, counts: dict[str, int], dropped: list[str]
) -> tuple[tuple[str, ...], Num[np.ndarray, " row"], Int[np.ndarray, " row"]]:
    """Class names, labels as numbers, and the rows kept: a class of one member can be in one part only."""
    everything = np.arange(len(rows.label))
    kinds = {isinstance(label, str) for label in rows.label}
    if kinds == {True, False}:
        raise DataError("The task's labels are text and numbers mixed; one task has one kind.")
    if kinds == {False}:
        numbers = np.array(rows.label, dtype=np.float32)
        if not np.isfinite(numbers).all():
            where = list(rows.groups)[rows.group[int(np.argmin(np.isfinite(numbers)))]]
            raise DataError(f"{shown(where)}: a label that is no finite number.")
        if (numbers == numbers[0]).all():
            raise DataError(f"Every label is {numbers[0]:g}: there is nothing to predict.")
        return (), numbers, everything
    names, which, members = np.unique(
        np.array(rows.label, dtype=object), return_inverse=True, return_counts=True
    )
    for name in names[members == 1]:
        counts["single"] += 1
        dropped.append(f"class {shown(name)!r} has one member, which no split can teach and test: left out")
    if (members > 1).sum() < 2:
        raise DataError(
            f"The task has one class, {shown(names[members.argmax()])!r}"
            + (f", and {counts['single']} of one member" if counts["single"] else "")
            + ": there is nothing to predict. Give more documents or other labels."
        )
    keep = everything[members[which] > 1]
    left = names[members > 1]
    again = np.cumsum(members > 1) - 1
    return tuple(map(str, left)), again[which[keep]].astype(np.int64), keep

"""Rows of a user's own task, checked one by one: lines of the .jsonl, or what the function gives."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from probes.examples import Document, Item
from workbench.errors import DataError, nearest, shown

FIELDS = ("text", "span", "spans", "label", "group", "word")
EXAMPLE = '{"text": "A cat ran.", "span": [2, 5], "label": "noun"}'
LONGEST_LINE = 2**24
"""Bytes."""
LONGEST_LABEL = 200
"""Characters of a label or a word."""


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each row stands, for messages, and the row itself.

    Raises:
        DataError: unreadable, not UTF-8, or a line that is not JSON; with file and line.
    """
    number = 0
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
            while raw := stream.readline(LONGEST_LINE):
                number += 1
                where = f"{path}, line {number}"
                if len(raw) == LONGEST_LINE:
                    raise DataError(f"{where}: over {LONGEST_LINE:,} bytes; each line is one label.")
                if not raw.strip():
                    continue
                try:
                    yield where, json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
                except UnicodeDecodeError as error:
                    raise DataError(f"{where}: not UTF-8 (byte {error.start + 1}).") from None
                except (ValueError, RecursionError) as error:
                    reason = getattr(error, "msg", "nested too deeply")
                    raise DataError(f"{where}: not JSON ({reason}); such as {EXAMPLE}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def documents_of(rows: Iterable[tuple[str, Any]]) -> Iterator[Document]:
    """Documents of rows; rows that follow each other with the same text and group are one document."""
    text, group, items = "", "", []
    for where, row in rows:
        if isinstance(row, Document):
            one = _checked(row, where)
            if items:
                yield Document(text, group, tuple(items))
                items = []
            yield one
            continue
        new_text, new_group, item = _row(row, where)
        if items and (new_text, new_group) != (text, group):
            yield Document(text, group, tuple(items))
            items = []
        text, group = new_text, new_group
        items.append(item)
    if items:
        yield Document(text, group, tuple(items))


def _row(row: Any, where: str) -> tuple[str, str, Item]:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: a {type(row).__name__}, where an object such as {EXAMPLE} goes.")
    for key in row:
        if key not in FIELDS:
            raise DataError(f"{where}: field {shown(key)!r} means nothing here. {nearest(key, FIELDS)}")
    text = _text(row, "text", where)
    if ("span" in row) == ("spans" in row):
        raise DataError(f"{where}: give either 'span': [start, end], or 'spans', a list of two.")
    spans = row["spans"] if "spans" in row else [row["span"]]
    if not isinstance(spans, list | tuple) or not 1 <= len(spans) <= 2:
        raise DataError(f"{where}: 'spans' is {shown(spans)}, not a list of one or two [start, end].")
    pairs = tuple(_span(span, text, where) for span in spans)
    start, end = pairs[0]
    word = _text(row, "word", where) if "word" in row else text[start:end].strip().lower()
    if len(word) > LONGEST_LABEL:
        if "word" in row:
            raise DataError(f"{where}: 'word' has {len(word):,} characters, over {LONGEST_LABEL}.")
        word = word[:LONGEST_LABEL]
    if "group" in row:
        group = _text(row, "group", where)
    else:
        group = f"text {hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
    return text, group, Item(pairs, _label(row, where), word)


def _text(row: Mapping[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        found = shown(value) if field in row else "missing"
        raise DataError(f"{where}: field {field!r} is {found or 'blank'}, not text; such as {EXAMPLE}.")
    _unicode(value, field, where)
    return value


def _unicode(value: str, field: str, where: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: {field!r} holds half a surrogate pair, which is no Unicode text."
        ) from None


def _span(span: Any, text: str, where: str) -> tuple[int, int]:
    if (
        not isinstance(span, list | tuple)
        or len(span) != 2
        or not all(isinstance(at, int) and not isinstance(at, bool) for at in span)
    ):
        raise DataError(f"{where}: a span is [start, end], two whole numbers, not {shown(span)}.")
    start, end = span
    if not 0 <= start < end <= len(text):
        raise DataError(
            f"{where}: span [{shown(start)}, {shown(end)}] is not in its text of {len(text)} characters; "
            "spans are [start, end) in characters, from 0."
        )
    if not text[start:end].strip():
        raise DataError(f"{where}: span [{start}, {end}] holds nothing but white space.")
    return start, end


def _label(row: Mapping[str, Any], where: str) -> str | float:
    value = row.get("label")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        number = float(value) if abs(value) < 1e30 else math.inf
        if not math.isfinite(number):
            raise DataError(f"{where}: label {shown(value)} is no number that a probe can learn.")
        return number
    label = _text(row, "label", where).strip()
    if len(label) > LONGEST_LABEL:
        raise DataError(f"{where}: a label of {len(label):,} characters; at most {LONGEST_LABEL} can be.")
    return label


def _checked(document: Document, where: str) -> Document:
    """A document that a function made, its fields' types looked at."""
    row: dict[str, Any] = {"text": document.text, "group": document.group}
    if not isinstance(document.items, tuple | list):
        raise DataError(f"{where}: its items are {shown(document.items)}, not a tuple of Item.")
    items = []
    for item in document.items:
        if not isinstance(item, Item):
            raise DataError(f"{where}: an item is {shown(item)}, not an Item.")
        row |= {"spans": item.spans, "label": item.label, "word": item.word}
        items.append(_row(row, where)[2])
    _text(row, "text", where)
    return Document(document.text, _text(row, "group", where), tuple(items))

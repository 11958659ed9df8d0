"""Stories out of plain files: strict, streaming readers for `.txt` and `.jsonl`.

They feed `datasets.Dataset.from_generator`, which keeps the stories on disk; at no time is a whole file
in memory. Whatever a reader cannot take, it refuses with the file, the line and the remedy.
"""

import codecs
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.errors import DataError, nearest

READERS_VERSION = 1
SEPARATOR = "<|endoftext|>"
LONGEST_STORY = 64 * 2**20
"""Characters; a text without a separator for so long is no file of stories."""


def scan(path: Path, *, text: bool) -> str:
    """SHA-256 of a file's bytes; with `text`, also a check that all of it is UTF-8.

    Raises:
        DataError: unreadable; not UTF-8 (with the byte, its position and its line).
    """
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()
    position, line = 0, 1
    try:
        with open(path, "rb") as stream:
            while chunk := stream.read(2**20):
                digest.update(chunk)
                if text:
                    pending = len(decoder.getstate()[0])
                    _decode(decoder, chunk, path, position - pending, line)
                    line += chunk.count(b"\n")
                    position += len(chunk)
        if text:
            _decode(decoder, b"", path, position - len(decoder.getstate()[0]), line, final=True)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    return digest.hexdigest()


def _decode(
    decoder: codecs.IncrementalDecoder, chunk: bytes, path: Path, start: int, line: int, final: bool = False
) -> None:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError as error:
        line += error.object.count(b"\n", 0, error.start)
        raise DataError(
            f"{path} is not UTF-8 text: byte 0x{error.object[error.start]:02x} at position "
            f"{start + error.start} (line {line}); convert it first, such as with iconv -f latin1 -t utf-8."
        ) from None


def read_txt(paths: list[str], column: str) -> Iterator[dict[str, Any]]:
    """Stories between `<|endoftext|>`, without the white space around them; the end of a file ends one too.

    Raises:
        DataError: no separator in 64 million characters.
    """
    for path in paths:
        with open(path, encoding="utf-8-sig") as stream:
            rest = ""
            while chunk := stream.read(2**20):
                *whole, rest = (rest + chunk).split(SEPARATOR)
                yield from ({column: story.strip()} for story in whole if not story.isspace() and story)
                if len(rest) > LONGEST_STORY:
                    raise DataError(
                        f"{path}: no {SEPARATOR} in {len(rest):,} characters; put it between stories."
                    )
            if rest.strip():
                yield {column: rest.strip()}


def read_jsonl(paths: list[str], column: str) -> Iterator[dict[str, Any]]:
    """The `column` of each line's JSON object. Empty lines are passed over.

    Raises:
        DataError: a line that is not a JSON object, or has no such column or no text in it; with its number.
    """
    for path in paths:
        with open(path, encoding="utf-8-sig", newline="\n") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield {column: _text_of(line, column, f"{path}, line {number}")}


def _text_of(line: str, column: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deeply")
        raise DataError(f"{where}: not JSON ({reason}); a .jsonl file has one object on each line.") from None
    if not isinstance(row, dict):
        raise DataError(
            f'{where}: a {type(row).__name__}, not an object such as {{"{column}": "Once upon a time"}}.'
        )
    if column not in row:
        raise DataError(
            f"{where}: no column {column!r}; it has {', '.join(row) or 'none'}. {nearest(column, row)}"
        )
    story = row[column]
    if not isinstance(story, str):
        kind = "null" if story is None else type(story).__name__
        raise DataError(f"{where}: {column!r} is {kind}, not text; mend or remove the line.")
    try:
        story.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: {column!r} holds half a surrogate pair, which is no Unicode text."
        ) from None
    return story

"""Universal Dependencies treebanks: CoNLL-U files, plain or gz, read sentence by sentence.

Format: universaldependencies.org/format.html. Ten columns a word. A multiword token (`2-3`) gives its words
one stretch of letters; where the words' forms are those letters (`do` + `n't`) each has its own part of it,
else (French `du` = `de` + `le`) they have none, and `start` is -1. Empty nodes (`8.1`) have no letters and no
place in the basic tree: they are passed over.
"""

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from workbench.errors import DataError, nearest, shown

SUFFIXES = (".conllu", ".conllu.gz")
LONGEST_LINE = 2**20
"""Bytes; no word of a treebank needs more."""


def is_treebank(path: Path) -> bool:
    """Whether this is a CoNLL-U file by its name, or a folder that holds one."""
    if os.path.isdir(path):  # False of names that are too long to be any
        return any(file.name.endswith(SUFFIXES) for file in path.iterdir() if file.is_file())
    return path.name.endswith(SUFFIXES)


class Word(NamedTuple):
    """One syntactic word, with its place in the sentence's text."""

    index: int
    """From 1."""
    form: str
    lemma: str
    upos: str
    feats: str
    """As in the file: `Case=Nom|Number=Sing`, or `_`."""
    head: int
    """Index of the head; 0 for the root."""
    deprel: str
    start: int
    """First character in the text; -1 for a word without letters of its own."""
    end: int

    def feature(self, name: str) -> str:
        """The value of one feature, such as `Number`; "" if the word has none."""
        for pair in self.feats.split("|"):
            key, _, value = pair.partition("=")
            if key == name:
                return value
        return ""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A parsed sentence.

    Attributes:
        name: its `sent_id`, else file and line.
        text: its `# text`, else its tokens with the spaces that `SpaceAfter=No` leaves.
        words: in order.
    """

    name: str
    text: str
    words: tuple[Word, ...]

    def depths(self) -> list[int]:
        """How many arcs lie between each word and the root; the root's depth is 0.

        Raises:
            DataError: the heads go round in a circle.
        """
        depths = [-1] * (len(self.words) + 1)
        depths[0] = -1
        known = {0: -1}
        for word in self.words:
            path, at = [], word.index
            while at not in known:
                path.append(at)
                at = self.words[at - 1].head
                if len(path) > len(self.words):
                    raise DataError(f"{self.name}: its heads form a circle through word {at}; no tree.")
            for back, index in enumerate(reversed(path), start=1):
                known[index] = known[at] + back
        return [known[word.index] for word in self.words]


def treebank_files(source: str | Path) -> list[Path]:
    """The CoNLL-U files that a source names: itself, or those of a folder in alphabetical order.

    Raises:
        DataError: nothing there, or no such files in the folder.
    """
    path = Path(source).expanduser()
    if os.path.isfile(path):  # which, unlike Path.is_file, refuses no name that is too long
        return [path]
    if os.path.isdir(path):
        files = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES) and file.is_file())
        if files:
            return files
        raise DataError(f"{path} holds no treebank: no {' or '.join(SUFFIXES)} file is in it.")
    try:
        beside = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        beside = []
    hint = nearest(path.name, beside) if beside else ""
    hint = f" {hint}" if hint.startswith("Did") else ""
    raise DataError(
        f"No treebank at {path}.{hint} Give a .conllu or .conllu.gz file, or a folder of them, as Universal "
        "Dependencies ships them; leave it out for the embedded sentences."
    )


def read_treebank(source: str | Path, limit: int | None = None) -> Iterator[Sentence]:
    """The sentences of a file, or of all files of a folder, lazily; at most `limit`."""
    left = float("inf") if limit is None else limit
    for file in treebank_files(source):
        for sentence in read_conllu(file):
            if left <= 0:
                return
            left -= 1
            yield sentence


def read_conllu(path: Path) -> Iterator[Sentence]:
    """The sentences of one file.

    Raises:
        DataError: unreadable, not UTF-8, damaged gz, or a line that is not CoNLL-U; with file and line.
    """
    comments: dict[str, str] = {}
    rows: list[list[str]] = []
    first = number = 0
    for number, line in _lines(path):
        if not line:
            if rows:
                yield _sentence(path, first, comments, rows)
            elif comments:
                raise DataError(f"{path}, line {number}: a sentence without words.")
            comments, rows = {}, []
        elif line[0] == "#":
            key, equals, value = line[1:].partition("=")
            if equals:
                comments[key.strip()] = value.strip()
        else:
            columns = line.split("\t")
            if len(columns) != 10:
                raise DataError(
                    f"{path}, line {number}: {len(columns)} columns where CoNLL-U has 10, parted by tabs: "
                    f"{shown(line)}"
                )
            if not rows:
                first = number
            rows.append(columns)
    if rows:
        yield _sentence(path, first, comments, rows)
    if not first:
        raise DataError(f"{path} holds no sentences.")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends."""
    number = 0
    try:
        with _open(path) as stream:
            while raw := stream.readline(LONGEST_LINE):
                number += 1
                if len(raw) == LONGEST_LINE:
                    raise DataError(f"{path}, line {number}: over {LONGEST_LINE:,} bytes; no treebank.")
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: not UTF-8 (byte {error.start + 1}).") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} cannot be read past line {number} ({reason}).") from None


def _open(path: Path) -> Any:
    """A stream of bytes."""
    if path.name.endswith(".gz"):
        return gzip.open(path, "rb")
    return open(path, "rb")


def _sentence(path: Path, first: int, comments: dict[str, str], rows: list[list[str]]) -> Sentence:
    """Words and text out of the rows of one sentence."""
    tokens: list[tuple[str, bool, int, int]] = []  # form, space after, its words [from, to)
    words: list[list[str]] = []
    covered = 0
    for offset, row in enumerate(rows):
        where = f"{path}, line {first + offset}"
        name, form = row[0], row[1]
        space = "SpaceAfter=No" not in row[9]
        if name.isdecimal():
            if int(name) != len(words) + 1:
                raise DataError(f"{where}: word {shown(name)} where word {len(words) + 1} is due.")
            words.append(row)
            if len(words) > covered:
                tokens.append((form, space, len(words) - 1, len(words)))
        elif "-" in name:
            low, _, high = name.partition("-")
            if not (low.isdecimal() and high.isdecimal() and len(words) + 1 == int(low) < int(high)):
                raise DataError(f"{where}: {shown(name)!r} is no range of words after word {len(words)}.")
            covered = int(high)
            tokens.append((form, space, int(low) - 1, covered))
        elif not name.replace(".", "", 1).isdecimal():
            raise DataError(f"{where}: {shown(name)!r} is neither word, range (2-3) nor empty node (8.1).")
        if not form:
            raise DataError(f"{where}: an empty form.")
    if not words:
        raise DataError(f"{path}, line {first}: a sentence without words.")
    if covered > len(words):
        raise DataError(f"{path}, line {first}: a range ends at word {covered}, after the last.")
    text, starts = _text(comments.get("text", ""), tokens)
    places = [(-1, -1)] * len(words)
    for (form, _, low, high), start in zip(tokens, starts, strict=True):
        if high - low == 1:
            places[low] = (start, start + len(form))
            continue
        parts = [words[at][1] for at in range(low, high)]
        if "".join(parts).lower() == form.lower():
            for at, part in zip(range(low, high), parts, strict=True):
                places[at] = (start, start + len(part))
                start += len(part)
    made = []
    for index, (row, (start, end)) in enumerate(zip(words, places, strict=True), start=1):
        head = row[6]
        if not head.isdecimal() or not 0 <= int(head) <= len(words) or int(head) == index:
            line = first + rows.index(row)
            raise DataError(
                f"{path}, line {line}: head {shown(head)!r} of word {index} is no other word of the "
                f"{len(words)} and not 0."
            )
        made.append(Word(index, row[1], row[2], row[3], row[5], int(head), row[7], start, end))
    return Sentence(comments.get("sent_id") or f"{path.name}:{first}", text, tuple(made))


def _text(given: str, tokens: Iterable[tuple[str, bool, int, int]]) -> tuple[str, list[int]]:
    """The sentence's text and where each token starts: in the given text, where it holds the tokens with
    nothing but white space between them; else in the one that the tokens make."""
    starts, at = [], 0
    tokens = list(tokens)
    for form, *_ in tokens:
        found = given.find(form, at)
        if found < 0 or (found > at and given[at:found].strip()):
            break
        starts.append(found)
        at = found + len(form)
    else:
        if not given[at:].strip():
            return given, starts
    pieces, starts, at = [], [], 0
    for form, space, *_ in tokens:
        starts.append(at)
        pieces.append(form + " " if space else form)
        at += len(pieces[-1])
    return "".join(pieces).rstrip(), starts

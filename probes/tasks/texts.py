"""Texts for tasks that need no more than text: stories, or the sentences of a treebank."""

import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from probes.conllu import is_treebank, read_treebank
from probes.sources import need_limit

N_STORIES = 1000
"""Stories when nobody says how many."""

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]")
"""A word with its apostrophes, or one punctuation mark."""
_WORDS = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_BOUNDARY = re.compile(r"[.!?…]+[\"”’)\]]*\s+|\s*\n\s*")


def words_of(text: str) -> frozenset[str]:
    """A list of words, written as a text."""
    return frozenset(text.split())


def texts(source: str | Path | None, limit: int | None, seed: int) -> Iterator[tuple[str, str]]:
    """Names and texts: of whatever training reads (validation stories first, then training ones), or of a
    treebank; embedded validation stories for None.

    Raises:
        DataError: as `open_corpus` and `read_treebank`; a limit below 1.
    """
    need_limit(limit)
    if source is None or str(source) == "embedded":
        from workbench.data.embedded.stories import story

        for index in range(N_STORIES if limit is None else limit):
            yield f"embedded {seed}:{index}", story(index, seed, "validation")
    elif is_treebank(Path(source).expanduser()):
        for sentence in read_treebank(source, limit):
            yield sentence.name, sentence.text
    else:
        from workbench.data.corpus import open_corpus

        corpus = open_corpus(source)
        stories = chain(corpus.validation, corpus.train)
        for index, text in enumerate(islice(stories, N_STORIES if limit is None else limit)):
            yield f"{corpus.name}:{index}", text


def sentence_starts(text: str) -> list[int]:
    """Where each sentence starts: at the text's first letter, after `.`, `!` or `?` and a space (with the
    closing quotation mark between them), and on a new line."""
    first = len(text) - len(text.lstrip())
    ends = [match.end() for match in _BOUNDARY.finditer(text, first)]
    return [first, *(end for end in ends if first < end < len(text))]


def sentence_ends(text: str) -> list[tuple[int, int]]:
    """The mark (`.`, `!`, `?`) that ends each sentence, as a span of one character; sentences without any are
    passed over."""
    starts = sentence_starts(text)
    found = []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        stripped = text[start:end].rstrip('"”’)] \n\t')
        if stripped and stripped[-1] in ".!?…":
            found.append((start + len(stripped) - 1, start + len(stripped)))
    return found


def word_before(text: str, place: int) -> str:
    """The last word before a place, small: the word type of an item that is read at a mark. Marks are of
    three types only, which any probe tells apart, so that a control task on them would say nothing."""
    words = _WORDS.findall(text, max(0, place - 60), place)
    return words[-1].lower() if words else text[place : place + 1]

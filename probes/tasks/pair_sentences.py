"""Both sentences of minimal pairs, and the words in which they differ."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from probes.sources import need_limit
from workbench.data.pairs import Pair, open_pairs
from workbench.errors import DataError

N_EMBEDDED = 200
"""Embedded pairs of each paradigm when nobody says how many."""


class Contrast(NamedTuple):
    """Where the two sentences of a pair differ: one word each, the rest is the same."""

    place: int
    """Words before it."""
    good: str
    bad: str


def pairs(
    source: str | Path | None,
    limit: int | None,
    seed: int,
    wanted: Callable[[Pair], bool],
    what: str,
) -> Iterator[Pair]:
    """Pairs whose paradigm is wanted (asked of each paradigm's first pair), the paradigms taking turns.
    `limit` is of sentences, two a pair. Of the embedded pairs another seed draws others.

    Raises:
        DataError: as `open_pairs`; no such paradigm; a limit below 1.
    """
    need_limit(limit)
    if source is None or str(source) == "embedded":
        from workbench.data.embedded.pairs import embedded_pairs

        n = N_EMBEDDED if limit is None else min(N_EMBEDDED, (limit + 1) // 2)
        paradigms, name = embedded_pairs(n, seed), "The embedded set"
    else:
        found = open_pairs(str(source))
        paradigms, name = dict(found.paradigms), found.name
    chosen = [found for found in paradigms.values() if wanted(found[0])]
    if not chosen:
        raise DataError(f"{name} has no paradigm of {what}; it has {', '.join(list(paradigms)[:8])}.")
    left = float("inf") if limit is None else (limit + 1) // 2
    for at in range(max(map(len, chosen))):
        for found in chosen:
            if at < len(found) and left > 0 and found[at].sentence_good != found[at].sentence_bad:
                left -= 1
                yield found[at]


def contrast(pair: Pair) -> Contrast | None:
    """The one word in which the sentences differ, end marks left out; None if they differ in more."""
    good, bad = pair.sentence_good.split(), pair.sentence_bad.split()
    places = [at for at, (one, other) in enumerate(zip(good, bad, strict=False)) if one != other]
    if len(good) != len(bad) or len(places) != 1:
        return None
    return Contrast(places[0], bare(good[places[0]]), bare(bad[places[0]]))


def bare(word: str) -> str:
    """A word without the marks behind it."""
    return word.rstrip(".,?!;:")


def word_span(sentence: str, place: int) -> tuple[int, int]:
    """The characters of a word, counted from 0 by white space, without the marks behind it."""
    start = 0
    for at, word in enumerate(sentence.split()):
        start = sentence.index(word, start)
        if at == place:
            return start, start + len(bare(word))
        start += len(word)
    raise IndexError(place)

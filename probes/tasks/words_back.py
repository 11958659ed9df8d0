"""Which word stood one or two places back: what a layer remembers of its input (cf. Adi et al. 2017)."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.texts import WORD, texts
from workbench.errors import DataError

MOST_FREQUENT = 30
"""Classes beside `(other)`; counted on the first `COUNTED` texts."""
COUNTED = 500
OTHER = "(other)"


def words_back(
    back: int, source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """One item a word, its label the word `back` places before it, or `(other)` for the rarer ones.

    Raises:
        DataError: `back` below 1; as `texts`.
    """
    if back < 1:
        raise DataError(f"back={back}: at least one word back.")
    given = texts(source, limit, seed)
    first = list(islice(given, COUNTED))
    counts = Counter(match[0].lower() for _, text in first for match in WORD.finditer(text))
    frequent = {word for word, _ in counts.most_common(MOST_FREQUENT)}
    for name, text in chain(first, given):
        found = [(match.start(), match.end(), match[0].lower()) for match in WORD.finditer(text)]
        labels = [word if word in frequent else OTHER for *_, word in found]
        items = tuple(
            Item(((start, end),), label, word)
            for (start, end, word), label in zip(found[back:], labels, strict=False)
        )
        yield Document(text, name, items)


PREVIOUS = Task(
    name="previous_word",
    description=f"the word one place back: the {MOST_FREQUENT} most frequent ones, or other",
    kind="classes",
    corpus="stories",
    documents=partial(words_back, 1),
    unit="story",
)
BEFORE_PREVIOUS = Task(
    name="word_two_back",
    description=f"the word two places back: the {MOST_FREQUENT} most frequent ones, or other",
    kind="classes",
    corpus="stories",
    documents=partial(words_back, 2),
    unit="story",
)

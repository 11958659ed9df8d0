"""Which word stood one place back: what a layer remembers of its input (cf. Adi et al. 2017, word content)."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.texts import WORD, texts

MOST_FREQUENT = 30
"""Classes beside `other`; counted on the first `COUNTED` texts."""
COUNTED = 500
OTHER = "(other)"


def words_back(back: int, source: str | Path | None, limit: int | None, seed: int) -> Iterator[Document]:
    """One item a word, its label the word `back` places before it, or `(other)` for the rarer ones."""
    counts: Counter[str] = Counter()
    for _, text in texts(source, COUNTED if limit is None else min(limit, COUNTED), seed):
        counts.update(match[0].lower() for match in WORD.finditer(text))
    frequent = {word for word, _ in counts.most_common(MOST_FREQUENT)}
    for name, text in texts(source, limit, seed):
        found = [(match.start(), match.end(), match[0].lower()) for match in WORD.finditer(text)]
        items = tuple(
            Item(((start, end),), found[at - back][2] if found[at - back][2] in frequent else OTHER, word)
            for at, (start, end, word) in enumerate(found)
            if at >= back
        )
        yield Document(text, name, items)


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """The word before each word."""
    return words_back(1, source, limit, seed)


TASK = Task(
    name="previous_word",
    description=f"the word one place back: the {MOST_FREQUENT} most frequent ones, or other",
    kind="classes",
    corpus="stories",
    documents=documents,
    unit="story",
)

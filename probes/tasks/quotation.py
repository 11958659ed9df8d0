"""Is somebody speaking? Whether a word stands inside a quotation."""

from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.texts import WORD, texts

QUOTES = '"“”'


def inside(text: str) -> list[tuple[int, int]] | None:
    """The stretches between quotation marks; None if the marks do not pair, as in a quotation without end.
    A straight mark opens and closes in turn, a curly one as it is written."""
    found, opened = [], -1
    for at, letter in enumerate(text):
        if letter not in QUOTES:
            continue
        if (letter == "“" and opened >= 0) or (letter == "”" and opened < 0):
            return None
        if opened < 0:
            opened = at
        else:
            found.append((opened, at))
            opened = -1
    return None if opened >= 0 else found


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """One item a word (no marks): `inside` or `outside`. Texts whose quotation marks do not pair: none."""
    for name, text in texts(source, limit, seed):
        stretches = inside(text)
        items = []
        if stretches is not None:
            ends = iter((*stretches, (len(text), len(text))))
            low, high = next(ends)
            for match in WORD.finditer(text):
                while match.start() > high:
                    low, high = next(ends)
                if match[0][0].isalnum():
                    label = "inside" if low < match.start() < high else "outside"
                    items.append(Item((match.span(),), label, match[0].lower()))
        yield Document(text, name, tuple(items))


TASK = Task(
    name="quotation",
    description="whether a word stands inside a quotation",
    kind="classes",
    corpus="stories",
    documents=documents,
    unit="story",
)

"""Where a word stands: words since the start of the text, and since the start of its sentence."""

from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.texts import WORD, sentence_starts, texts


def from_text_start(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """One item a word; the label is the number of words and marks before it in the text."""
    for name, text in texts(source, limit, seed):
        items = tuple(
            Item((match.span(),), float(at), match[0].lower()) for at, match in enumerate(WORD.finditer(text))
        )
        yield Document(text, name, items)


def from_sentence_start(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """One item a word; the label is the number of words and marks before it in its sentence."""
    for name, text in texts(source, limit, seed):
        starts = [*sentence_starts(text), len(text) + 1]
        items, which, at = [], 0, 0
        for match in WORD.finditer(text):
            while match.start() >= starts[which + 1]:
                which, at = which + 1, 0
            items.append(Item((match.span(),), float(at), match[0].lower()))
            at += 1
        yield Document(text, name, tuple(items))


POSITION = Task(
    name="position",
    description="words since the start of the text",
    kind="number",
    corpus="stories",
    documents=from_text_start,
    unit="story",
)
SENTENCE_START = Task(
    name="sentence_start",
    description="words since the start of the sentence",
    kind="number",
    corpus="stories",
    documents=from_sentence_start,
    unit="story",
)

"""Part of speech: the universal tag (UPOS) of each word, as the treebank has it."""

from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.treebank import sentences


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """One document a sentence, one item a word. Words without letters of their own have none."""
    for sentence in sentences(source, limit, seed):
        items = tuple(
            Item(((word.start, word.end),), word.upos, word.form.lower())
            for word in sentence.words
            if word.start >= 0 and word.upos != "_"
        )
        yield Document(sentence.text, sentence.name, items)


TASK = Task(
    name="pos",
    description="part of speech of each word (UPOS)",
    kind="classes",
    corpus="ud",
    documents=documents,
    unit="sentence",
)

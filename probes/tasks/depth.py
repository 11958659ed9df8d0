"""Depth in the dependency tree: arcs from a word up to the root (Hewitt & Manning 2019, section 2.2)."""

from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.treebank import sentences


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """One item a word but punctuation; the label is a number, 0 for the root."""
    for sentence in sentences(source, limit, seed):
        items = tuple(
            Item(((word.start, word.end),), float(depth), word.form.lower())
            for word, depth in zip(sentence.words, sentence.depths(), strict=True)
            if word.start >= 0 and word.upos != "PUNCT"
        )
        yield Document(sentence.text, sentence.name, items)


TASK = Task(
    name="depth",
    description="arcs between each word and the root of the dependency tree",
    kind="number",
    corpus="ud",
    documents=documents,
    unit="sentence",
)

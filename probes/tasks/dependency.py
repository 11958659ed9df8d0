"""Dependency relation: what joins a word to its head, read from both (edge probing, Tenney et al. 2019)."""

from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.treebank import sentences


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """One item a word but the root: dependent and head; the label is the relation without its subtype."""
    for sentence in sentences(source, limit, seed):
        items = []
        for word in sentence.words:
            head = sentence.words[word.head - 1]
            if word.head and word.start >= 0 and head.start >= 0:
                relation = word.deprel.partition(":")[0]
                spans = ((word.start, word.end), (head.start, head.end))
                items.append(Item(spans, relation, word.form.lower()))
        yield Document(sentence.text, sentence.name, tuple(items))


TASK = Task(
    name="dependency",
    description="dependency relation of a word to its head (UD, without subtypes)",
    kind="classes",
    corpus="ud",
    documents=documents,
    unit="sentence",
    reads="two words: each word and its head",
    n_spans=2,
)

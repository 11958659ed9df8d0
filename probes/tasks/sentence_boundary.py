"""Does the sentence end after this word? What the model must foresee to write a full stop."""

from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.texts import WORD, sentence_ends, texts


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """One item a word (no marks): `ends` before the mark that ends its sentence, else `goes on`."""
    for name, text in texts(source, limit, seed):
        ends = {start for start, _ in sentence_ends(text)}
        items = []
        for match in WORD.finditer(text):
            if match[0][0].isalnum():
                label = "ends" if match.end() in ends else "goes on"
                items.append(Item((match.span(),), label, match[0].lower()))
        yield Document(text, name, tuple(items))


TASK = Task(
    name="sentence_boundary",
    description="whether the sentence ends after a word",
    kind="classes",
    corpus="stories",
    documents=documents,
    unit="story",
)

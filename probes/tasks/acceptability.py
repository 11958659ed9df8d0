"""Acceptability: which of a minimal pair's sentences is the grammatical one (Warstadt et al. 2020, BLiMP)."""

from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.pair_sentences import bare, pairs


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """Two documents a pair, one item each: the whole sentence, so that its last token or the mean of all is
    read. A pair is one group. The word type is the sentence's last word."""
    for pair in pairs(source, limit, seed, lambda _: True, "any kind"):
        for text, label in ((pair.sentence_good, "acceptable"), (pair.sentence_bad, "unacceptable")):
            item = Item(((0, len(text)),), label, bare(text.split()[-1]).lower())
            yield Document(text, f"{pair.uid}:{pair.pair_id}", (item,))


TASK = Task(
    name="acceptability",
    description="which sentences of minimal pairs are acceptable",
    kind="classes",
    corpus="blimp",
    documents=documents,
    unit="pair",
    reads="each sentence",
)

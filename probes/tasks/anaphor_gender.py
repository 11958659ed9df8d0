"""Gender of the antecedent, read at the reflexive of minimal pairs, right and wrong in equal shares.

The label is what the grammatical sentence's reflexive says; the ungrammatical one's has the same label, so
that the reflexive itself gives nothing away.
"""

from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.pair_sentences import contrast, pairs, word_span

GENDERS = {"himself": "masculine", "herself": "feminine", "itself": "neuter"}


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """Two documents a pair, one item each: the reflexive, labelled with the antecedent's gender."""
    for pair in pairs(
        source, limit, seed, lambda pair: "anaphor_gender_agreement" in pair.uid, "gender at an anaphor"
    ):
        found = contrast(pair)
        label = GENDERS.get(found.good) if found else None
        if found is None or label is None:
            continue
        for text in (pair.sentence_good, pair.sentence_bad):
            start, end = word_span(text, found.place)
            item = Item(((start, end),), label, text[start:end].lower())
            yield Document(text, f"{pair.uid}:{pair.pair_id}", (item,))


TASK = Task(
    name="anaphor_gender",
    description="gender of the antecedent, read at the right and the wrong reflexive of minimal pairs",
    kind="classes",
    corpus="blimp",
    documents=documents,
    unit="pair",
    reads="the reflexive",
)

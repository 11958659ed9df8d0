"""Number of the subject, read at the verb of minimal pairs, where the verb's own form gives nothing away.

Both sentences of a pair are read. Where they differ in the verb, the subject is the same and so is the label:
each verb form stands under both labels as often. Where they differ in the subject, the verb is the same and
the labels are opposite. A probe that reads the verb alone is at chance.
"""

from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.pair_sentences import bare, contrast, pairs, word_span
from probes.tasks.texts import words_of
from workbench.data.pairs import Pair

SINGULAR = words_of("is isn't was wasn't has hasn't does doesn't")
PLURAL = words_of("are aren't were weren't have haven't do don't")
_OPPOSITE = {"singular": "plural", "plural": "singular"}


def _agreement(pair: Pair) -> bool:
    return pair.phenomenon == "subject-verb agreement" or "subject_verb_agreement" in pair.uid


def number_of_verbs(verb: str, other: str) -> str:
    """The number of `verb`, whose form of the other number is `other`."""
    if verb in SINGULAR or other in PLURAL:
        return "singular"
    if verb in PLURAL or other in SINGULAR:
        return "plural"
    if verb.endswith("s") != other.endswith("s"):
        return "singular" if verb.endswith("s") else "plural"
    return "singular" if len(verb) > len(other) else "plural"


def number_of_verb(verb: str) -> str:
    """The number of a verb in the present tense, by its form alone."""
    if verb in SINGULAR or verb in PLURAL:
        return "singular" if verb in SINGULAR else "plural"
    return "singular" if verb.endswith("s") and not verb.endswith("ss") else "plural"


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """Two documents a pair, one item each: the verb, labelled with the number of the sentence's subject. In
    BLiMP's paradigms whose name ends in `_2` the pair differs in the subject and the verb follows it."""
    for pair in pairs(source, limit, seed, _agreement, "subject-verb agreement"):
        found = contrast(pair)
        if found is None:
            continue
        place = found.place
        if pair.uid.endswith("agreement_2"):
            place += 1
            words = pair.sentence_good.split()
            if place >= len(words):
                continue
            good = number_of_verb(bare(words[place]))
            bad = _OPPOSITE[good]
        else:
            good = bad = number_of_verbs(found.good, found.bad)
        for text, label in ((pair.sentence_good, good), (pair.sentence_bad, bad)):
            start, end = word_span(text, place)
            item = Item(((start, end),), label, text[start:end].lower())
            yield Document(text, f"{pair.uid}:{pair.pair_id}", (item,))


TASK = Task(
    name="verb_number",
    description="number of the subject, read at the right and the wrong verb of minimal pairs",
    kind="classes",
    corpus="blimp",
    documents=documents,
    unit="pair",
    reads="the verb",
)

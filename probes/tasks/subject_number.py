"""Number of the subject, read at the verb that agrees with it (cf. Linzen et al. 2016).

Past tenses and infinitives do not show the number, other verbs do: the baseline of each word's most frequent
label says how much the verb's own form gives away. `verb_number` has pairs where it gives nothing.
"""

from collections.abc import Iterator
from pathlib import Path

from probes.conllu import Sentence, Word
from probes.examples import Document, Item, Task
from probes.tasks.treebank import sentences

NAMES = {"Sing": "singular", "Plur": "plural"}
_SUBJECT = ("nsubj", "nsubj:pass")


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """One item a subject of the third person that stands before its verb: the finite verb (the first
    auxiliary or copula after the subject, else the predicate), labelled singular or plural."""
    for sentence in sentences(source, limit, seed):
        items = []
        for word in sentence.words:
            number = NAMES.get(word.feature("Number"))
            if word.deprel not in _SUBJECT or not number or not word.head:
                continue
            if word.feature("Person") in ("1", "2"):
                continue  # "I have" and "you are" say nothing of number
            if any(other.head == word.index and other.deprel == "conj" for other in sentence.words):
                continue  # "a cat and a dog are": the first word's number is not the subject's
            verb = _finite(sentence, word)
            if verb is not None and verb.start >= 0:
                items.append(Item(((verb.start, verb.end),), number, verb.form.lower()))
        yield Document(sentence.text, sentence.name, tuple(items))


def _finite(sentence: Sentence, subject: Word) -> Word | None:
    helpers = [
        word
        for word in sentence.words[subject.index :]
        if word.head == subject.head and word.deprel in ("aux", "aux:pass", "cop")
    ]
    verb = helpers[0] if helpers else sentence.words[subject.head - 1]
    return verb if verb.index > subject.index and verb.upos in ("VERB", "AUX") else None


TASK = Task(
    name="subject_number",
    description="number of the subject, read at its finite verb",
    kind="classes",
    corpus="ud",
    documents=documents,
    unit="sentence",
    reads="the finite verb",
)

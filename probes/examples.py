"""What a probe predicts: items in documents, and the tasks that give them.

An item is one label with one or two spans of characters; a document is a text with its items. A task is a
name and a function from a corpus to documents; everything after it (alignment, extraction, fitting, controls)
is the same for all tasks.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["classes", "number", "distance"]
Corpus = Literal["ud", "stories", "blimp", "embedded", "own"]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to predict.

    Attributes:
        spans: one span (a word), or two (dependent and head; the two words of a distance); characters
            `[start, end)` of the document's text.
        label: text for a class, a number for a regression or a distance.
        word: the word type, for the control task and for the baseline of each word's most frequent label; of
            an item that is read at a mark, the word before it.
    """

    spans: tuple[tuple[int, int], ...]
    label: str | float
    word: str


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its items.

    Attributes:
        text: what the model reads.
        group: the sentence, story or minimal pair it comes from; no split parts a group.
        items: in any order.
    """

    text: str
    group: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Task:
    """A question asked of a model's activations.

    Attributes:
        name: as on the command line.
        description: one line for `--help` and reports.
        kind: `classes` (logistic), `number` (ridge) or `distance` (structural; two spans an item).
        corpus: what `documents` reads when it is given a source; every task of the package also runs on the
            embedded stories, sentences or pairs, with no source at all.
        documents: `documents(source=None, *, limit=None, seed=0)` gives documents lazily. `source` is None or
            "embedded" for what comes with the package; else for `ud` a .conllu or .conllu.gz file or a folder
            of them, for `stories` whatever `--data` of training takes, for `blimp` whatever `--pairs` takes.
            `limit` is the most documents; `seed` is of the embedded ones.
        unit: what a group is: "sentence", "story" or "pair".
        reads: where the label is read, for reports: "each word", "each name".
        n_spans: spans an item: 1, or 2 for relations and distances.
    """

    name: str
    description: str
    kind: Kind
    corpus: Corpus
    documents: Callable[..., Iterable[Document]]
    unit: str
    reads: str = "each word"
    n_spans: int = 1

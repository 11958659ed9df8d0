"""Distance in the dependency tree between two words, for the structural probe (Hewitt & Manning 2019)."""

import random
from collections.abc import Iterator
from pathlib import Path

from probes.conllu import Sentence
from probes.examples import Document, Item, Task
from probes.tasks.treebank import sentences
from workbench.stats import derive

PAIRS_A_WORD = 3
"""A sentence of n words has n (n - 1) / 2 pairs; of a long one so many for each word are drawn."""


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """One item a pair of words, no punctuation; the label is the number of arcs on the way between them."""
    for number, sentence in enumerate(sentences(source, limit, seed)):
        words = [word for word in sentence.words if word.start >= 0 and word.upos != "PUNCT"]
        pairs = [(one, other) for at, one in enumerate(words) for other in words[at + 1 :]]
        if len(pairs) > PAIRS_A_WORD * len(words):
            draw = random.Random(derive(seed, "tree distance pairs", number))
            pairs = sorted(draw.sample(pairs, PAIRS_A_WORD * len(words)))
        ways = _ways(sentence)
        items = tuple(
            Item(
                ((one.start, one.end), (other.start, other.end)),
                float(_distance(ways[one.index - 1], ways[other.index - 1])),
                one.form.lower(),
            )
            for one, other in pairs
        )
        yield Document(sentence.text, sentence.name, items)


def _ways(sentence: Sentence) -> list[list[int]]:
    """The words from the root down to each word, itself last."""
    sentence.depths()  # refuses circles
    ways = []
    for word in sentence.words:
        way, at = [], word.index
        while at:
            way.append(at)
            at = sentence.words[at - 1].head
        ways.append(way[::-1])
    return ways


def _distance(one: list[int], other: list[int]) -> int:
    """Arcs up to the last common word and down again. Words of two trees meet above both roots."""
    common = 0
    for here, there in zip(one, other, strict=False):
        if here != there:
            break
        common += 1
    return len(one) + len(other) - 2 * common


TASK = Task(
    name="tree_distance",
    description="arcs between two words of a sentence in its dependency tree",
    kind="distance",
    corpus="ud",
    documents=documents,
    unit="sentence",
    reads="two words of a sentence",
    n_spans=2,
)

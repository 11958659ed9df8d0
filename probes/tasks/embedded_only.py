"""Tasks whose labels only the writer of the embedded stories knows: a name's role, and the plot."""

from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.characters import Story, embedded_stories
from probes.tasks.texts import sentence_ends, word_before
from workbench.errors import DataError, shown


def _stories(source: str | Path | None, limit: int | None, seed: int, task: str) -> Iterator[Story]:
    if source is not None and str(source) != "embedded":
        raise DataError(
            f"{task} runs on the embedded stories alone, as only their writer knows the labels; "
            f"leave out {shown(str(source))}."
        )
    return embedded_stories(limit, seed)


def roles(source: str | Path | None = None, *, limit: int | None = None, seed: int = 0) -> Iterator[Document]:
    """One item a name: `hero`, `friend`, or `other` for somebody in passing."""
    for story in _stories(source, limit, seed, "mention_role"):
        who = dict(story.roles)
        items = tuple(
            Item(((start, end),), who.get(name, "other"), name) for start, end, name in story.mentions
        )
        yield Document(story.text, story.name, items)


def plots(source: str | Path | None = None, *, limit: int | None = None, seed: int = 0) -> Iterator[Document]:
    """One item an end of a sentence: which plot the story follows."""
    for story in _stories(source, limit, seed, "plot"):
        items = tuple(
            Item((place,), story.plot, word_before(story.text, place[0]))
            for place in sentence_ends(story.text)
        )
        yield Document(story.text, story.name, items)


ROLE = Task(
    name="mention_role",
    description="who a name is in the story: hero, friend or other",
    kind="classes",
    corpus="embedded",
    documents=roles,
    unit="story",
    reads="each name",
)
PLOT = Task(
    name="plot",
    description="which plot an embedded story follows, read where sentences end",
    kind="classes",
    corpus="embedded",
    documents=plots,
    unit="story",
    reads="the mark that ends each sentence",
)

"""Is this name new in the story? (cf. Eldan & Li 2023, section 5.2: a neuron for the first mention.)"""

from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.characters import stories_with_characters


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """One item a name: `first` where it stands for the first time in its story, else `later`."""
    for story in stories_with_characters(source, limit, seed):
        seen: set[str] = set()
        items = []
        for start, end, name in story.mentions:
            items.append(Item(((start, end),), "later" if name in seen else "first", name))
            seen.add(name)
        yield Document(story.text, story.name, tuple(items))


TASK = Task(
    name="first_mention",
    description="whether a name is mentioned for the first time in its story",
    kind="classes",
    corpus="stories",
    documents=documents,
    unit="story",
    reads="each name",
)

"""Is the protagonist a he or a she? Read at the marks that end sentences, where no word gives it away."""

from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.characters import stories_with_characters
from probes.tasks.texts import sentence_ends, word_before


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """One item an end of a sentence, from the protagonist's first mention on; stories whose protagonist or
    gender is not clear have none."""
    for story in stories_with_characters(source, limit, seed):
        first = next((start for start, _, name in story.mentions if name == story.hero), len(story.text))
        items = tuple(
            Item(((start, end),), story.gender, word_before(story.text, start))
            for start, end in sentence_ends(story.text)
            if story.gender and start >= first
        )
        yield Document(story.text, story.name, items)


TASK = Task(
    name="protagonist_gender",
    description="gender of a story's protagonist, read where sentences end",
    kind="classes",
    corpus="stories",
    documents=documents,
    unit="story",
    reads="the mark that ends each sentence",
)

"""How will the story end? The sentiment of its last sentence by a list of words, read before it.

The label says what the ending's words are, not what a reader feels: a count of words of two lists, those
after a negation left out.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from probes.examples import Document, Item, Task
from probes.tasks.texts import sentence_ends, sentence_starts, texts, word_before, words_of

POSITIVE = words_of(
    "amazing beautiful best better brave calm careful celebrate celebrated cheer cheered comfort "
    "comfortable cozy delicious delighted enjoy enjoyed excited forgave forgive friendly fun gentle "
    "giggled glad good grateful great happily happier happy healthy help helped helpful hug hugged hugs "
    "joy joyful kind kindness kiss kissed laugh laughed laughing laughter love loved lovely loves lucky "
    "nice peace peaceful perfect pleased praised proud relieved safe safely saved share shared sharing "
    "smile smiled smiles smiling special strong sweet thank thanked thanks treasure welcome well wise won "
    "wonderful yay yummy"
)
NEGATIVE = words_of(
    "afraid alone angry ashamed awful bad blamed bored broke broken cried cries cross cruel cry crying "
    "danger dangerous dead die died disappointed empty evil fail failed fight fought frightened grumpy "
    "guilty hate hated hungry hurt ill jealous lonely lost mad mean mess miserable missed mistake nasty "
    "nervous pain poor punished regret regretted ruined sad sadly scared scary scream screamed selfish "
    "sick sorry stole terrible tired trouble ugly unhappy upset warned weak wept wicked worried worse "
    "worst wrong yelled"
)
"""Words of the two kinds, for children's stories."""

_NEGATION = frozenset(("not", "never", "no", "nobody", "without"))
_WORD = re.compile(r"[a-z]+(?:['’][a-z]+)?")


def sentiment(text: str) -> str:
    """`positive` if more words of that list than of the other are in the text, `negative`, or `neutral`."""
    score, denied = 0, False
    for word in _WORD.findall(text.lower()):
        if not denied:
            score += (word in POSITIVE) - (word in NEGATIVE)
        denied = word in _NEGATION or word.endswith(("n't", "n’t"))
    return "positive" if score > 0 else "negative" if score < 0 else "neutral"


def ending_start(text: str) -> int:
    """Where the last sentence begins, "The end." aside."""
    starts = sentence_starts(text)
    while len(starts) > 1 and text[starts[-1] :].strip().lower().startswith("the end"):
        starts.pop()
    return starts[-1]


def documents(
    source: str | Path | None = None, *, limit: int | None = None, seed: int = 0
) -> Iterator[Document]:
    """One item an end of a sentence before the last sentence, labelled with the sentiment of that."""
    for name, text in texts(source, limit, seed):
        start = ending_start(text)
        label = sentiment(text[start:])
        items = tuple(
            Item((place,), label, word_before(text, place[0]))
            for place in sentence_ends(text)
            if place[1] <= start
        )
        yield Document(text, name, items)


TASK = Task(
    name="ending_sentiment",
    description="sentiment of a story's last sentence by word list, read where earlier ones end",
    kind="classes",
    corpus="stories",
    documents=documents,
    unit="story",
    reads="the mark that ends each sentence before the ending",
)

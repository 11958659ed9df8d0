"""Who is in a story: names where they are written, the protagonist, and whether it is a he or a she.

Embedded stories know it by construction. In others names are capitalised words inside sentences that the same
story never writes small; the protagonist is the name it has most often, the first of equals; its gender is
that of "a girl named", of a list of names, else of the pronouns when the story has those of one gender only.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from probes.sources import need_limit
from probes.tasks.texts import N_STORIES, texts, words_of

SHE = words_of(
    "Abby Alice Amelia Amy Anna Annie Ava Bella Beth Betty Daisy Dora Ella Ellie Emily Emma Eva Fiona "
    "Grace Hannah Jane Jenny Jill Julia Kate Katie Kim Lila Lily Lina Lisa Lizzy Lola Lucy Maggie Mandy "
    "Maria Mary Maya Mia Millie Molly Nancy Nora Olivia Penny Polly Rosie Ruby Sally Sandy Sara Sarah "
    "Sophia Sophie Sue Susie Tina Zoe Zoey Mom Mommy Mama Mum Mummy Grandma Granny Auntie"
)
HE = words_of(
    "Adam Alex Andy Ben Benny Bill Billy Bob Bobby Charlie Dan Danny David Ed Eddie Finn Frank Fred Freddy "
    "George Harry Henry Jack Jacob Jake James Jim Jimmy Joe Joey John Johnny Jon Leo Luke Mark Mason Matt "
    "Max Michael Mike Nick Noah Oliver Oscar Paul Peter Pete Rob Roy Sam Spencer Steve Ted Teddy Tim Timmy "
    "Toby Tom Tommy Tony Will Dad Daddy Papa Grandpa Uncle"
)
"""Names in children's stories, by the pronoun that mostly goes with them."""

GENDERS = {"he": "masculine", "she": "feminine"}
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+\b")
_CAPITALS = re.compile(r"\b[A-Z][a-z]+\b")
_SMALL = re.compile(r"\b[a-z]+\b")
_NAMED = {
    "she": ["girl", "princess", "queen", "woman", "lady", "witch", "fairy", "hen", "cow"],
    "he": ["boy", "prince", "king", "man", "wizard", "knight"],
}
_PRONOUNS = re.compile(r"\b(he|him|his|himself|she|her|hers|herself)\b", re.IGNORECASE)
_NO_NAMES = words_of(
    "I Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July "
    "August September October November December Christmas Halloween Easter English God Mr Mrs Miss"
)


@dataclass(frozen=True, slots=True)
class Story:
    """A story and its characters.

    Attributes:
        name: for the group.
        text: the story.
        mentions: `(start, end, name)` where a name is written, in order.
        hero: the protagonist's name, or "" if nobody is named.
        gender: `masculine`, `feminine`, or "" where it is not clear.
        plot: of an embedded story, else "".
        roles: name -> role in an embedded story, else empty.
    """

    name: str
    text: str
    mentions: tuple[tuple[int, int, str], ...]
    hero: str
    gender: str
    plot: str = ""
    roles: tuple[tuple[str, str], ...] = ()


def embedded_stories(limit: int | None, seed: int) -> Iterator[Story]:
    """Embedded validation stories, their characters known by construction."""
    from workbench.data.embedded.annotated import annotated_story

    need_limit(limit)
    for index in range(N_STORIES if limit is None else limit):
        one = annotated_story(index, seed, "validation")
        mentions = tuple((slot.start, slot.end, slot.word) for slot in one.mentions())
        roles = {slot.word: slot.role for slot in one.mentions() if slot.role}
        name = f"embedded {seed}:{index}"
        yield Story(name, one.text, mentions, one.hero, GENDERS[one.gender], one.plot, tuple(roles.items()))


def stories_with_characters(source: str | Path | None, limit: int | None, seed: int) -> Iterator[Story]:
    """Stories of any source; see `texts`."""
    if source is None or str(source) == "embedded":
        yield from embedded_stories(limit, seed)
        return
    for name, text in texts(source, limit, seed):
        mentions = find_mentions(text)
        hero = _most_frequent(mentions)
        yield Story(name, text, mentions, hero, _gender(hero, text) if hero else "")


def find_mentions(text: str) -> tuple[tuple[int, int, str], ...]:
    """Names in a text: see the head of this file. At the start of a sentence a word is a name only if it is
    one elsewhere in the text, or in a list of names."""
    small = set(_SMALL.findall(text))
    sure = {name for name in _NAME.findall(text) if name.lower() not in small}
    names = sure | {name for name in set(_CAPITALS.findall(text)) & (SHE | HE) if name.lower() not in small}
    names -= _NO_NAMES
    return tuple((*match.span(), match[0]) for match in _CAPITALS.finditer(text) if match[0] in names)


def _most_frequent(mentions: tuple[tuple[int, int, str], ...]) -> str:
    counts = Counter(name for *_, name in mentions)
    return counts.most_common(1)[0][0] if counts else ""


def _gender(hero: str, text: str) -> str:
    named = re.search(rf"\b(\w+) (?:named|called) {hero}\b", text)
    for pronoun, words in _NAMED.items():
        if named and named[1] in words:
            return GENDERS[pronoun]
    if (hero in SHE) != (hero in HE):
        return GENDERS["she" if hero in SHE else "he"]
    found = {match.lower()[0] == "s" or match.lower().startswith("her") for match in _PRONOUNS.findall(text)}
    return GENDERS["she" if True in found else "he"] if len(found) == 1 else ""

"""Parts of speech by word list: what most children's stories are made of.

A word list knows no context: a word stands in the class it mostly has in such stories, and in one only.
Nouns, verbs, adjectives and adverbs of the embedded stories come with all their forms.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from workbench.data.embedded import grammar as lexicon
from workbench.data.embedded.grammar import Grammar, Lexeme, added_letters, build_classes, finish, read_rules
from workbench.data.embedded.stories import PLOT_RULES, ROLES, SCENE_RULES, compose

# The embedded stories with what their writer knew: who is the protagonist, where each drawn word stands.
#
# The story is written by the same grammar, whose words carry a mark behind them that says which lexeme and
# form they are; the marks are then taken out. The text is `stories.story`'s, letter for letter.


_MARK = re.compile("\ue000(\\d+)\\.(\\w*)\ue001")


class Slot(NamedTuple):
    """A word that the grammar drew."""

    start: int
    """First character in the story."""
    end: int
    word: str
    """The lexeme's plain form: `cat` also where the story has `Cats`."""
    form: str
    """Which form of the lexeme: "", `s`, `p`, `past`, `him`, ..."""
    role: str
    """The role of `ROLES` that this lexeme plays in the story (`hero`), or ""."""
    kinds: frozenset[str]
    """Classes of the lexicon that the lexeme is in."""


@dataclass(frozen=True)
class AnnotatedStory:
    """A story and what is known of it by construction."""

    text: str
    plot: str
    hero: str
    """The protagonist's name."""
    gender: str
    """The protagonist's: `he` or `she`."""
    slots: tuple[Slot, ...]
    """In the order of the text."""

    def mentions(self) -> list[Slot]:
        """Names of people where they are written, pronouns left out."""
        return [slot for slot in self.slots if "name" in slot.kinds and slot.form == ""]


@cache
def _marking() -> tuple[Grammar, tuple[Lexeme, ...], tuple[frozenset[str], ...]]:
    """A grammar whose words carry marks; the lexemes without marks, and their classes, by number."""
    classes = build_classes()
    numbers: dict[int, int] = {}
    plain: list[Lexeme] = []
    marked: list[Lexeme] = []
    kinds: list[set[str]] = []
    for name, lexemes in classes.items():
        for lexeme in lexemes:
            if id(lexeme) not in numbers:
                number = numbers[id(lexeme)] = len(plain)
                plain.append(lexeme)
                marked.append({form: f"{word}\ue000{number}.{form}\ue001" for form, word in lexeme.items()})
                kinds.append(set())
            kinds[numbers[id(lexeme)]].add(name)
    same = {name: tuple(marked[numbers[id(one)]] for one in lexemes) for name, lexemes in classes.items()}
    tell = Grammar(same, read_rules(PLOT_RULES + SCENE_RULES), ROLES)
    return tell, tuple(plain), tuple(map(frozenset, kinds))


def annotated_story(index: int, seed: int = 0, split: str = "train") -> AnnotatedStory:
    """Story `index` of (seed, split), with its words' origins: `stories.story` with the same arguments."""
    tell, lexemes, kinds = _marking()
    composed = compose(tell, index, seed, split)
    numbers = {role: _number(lexeme) for role, lexeme in composed.cast.items()}
    roles = {number: role for role, number in numbers.items()}
    pieces, found, end, length = [], [], 0, 0
    for match in _MARK.finditer(composed.text):
        pieces.append(composed.text[end : match.start()])
        length += match.start() - end
        end = match.end()
        number, form = int(match[1]), match[2]
        found.append((length - len(lexemes[number][form]), length, number, form))
    text = "".join((*pieces, composed.text[end:]))
    added = added_letters(text)
    slots = []
    for start, stop, number, form in found:
        start += sum(place <= start for place in added)
        stop += sum(place <= stop for place in added)
        slots.append(Slot(start, stop, lexemes[number][""], form, roles.get(number, ""), kinds[number]))
    hero = lexemes[numbers["hero"]]
    return AnnotatedStory(finish(text), composed.plot, hero[""], hero["he"], tuple(slots))


def _number(lexeme: Lexeme) -> int:
    mark = _MARK.search(lexeme[""])
    assert mark is not None
    return int(mark[1])


_CLOSED = {
    "determiner": "a an the this that these those my your his her its our their every each some any no "
    "another",
    "pronoun": "i you he she it we they me him us them himself herself itself themselves myself yourself "
    "someone something everyone everything nothing anyone anything who",
    "preposition": "of in on at with from into by for near under behind inside through across towards around "
    "over above below between without until after before",
    "conjunction": "and but or so because if when while although than as",
    "auxiliary": "is are was were am be been being has have had do does did can could will would may might "
    "must should shall don't didn't can't couldn't won't wouldn't isn't wasn't it's i'm i'll "
    "let's",
    "number": "one two three four five six seven eight nine ten",
}

_OPEN = {
    "noun": "time day days sky sun bug toy toys food mommy daddy buddy thing things people story hand "
    "hands town truck ice ground family magic animals store lady eyes fruit world friend "
    "friends lesson candy gift dress blocks grass shapes beach sand puddle butter colors "
    "mouth sea notebook clouds set star stars nose popcorn drawer festival glue treasure feet "
    "stories side body teaspoon raft wings factory bike plant shirt oven worm yogurt milk "
    "birthday rainbow name tools plants avocado pizza crocodile backyard sunshine finger shop "
    "attic oil fire moon juice rug window hair job mess adventure game park house parents mud "
    "bunny whiskers life clothes storm plane pieces sack scissors soup couch floor noise door "
    "kitty kids monster face music event beak study cabin lunch dirt arms ink crayons crayon "
    "grapes shark octopus jet pasta envelope cloth cushion yacht ghost oysters menu creature "
    "glass television year years bugs land voice idea sound promise lots",
    "verb": "said went told got came put felt asked began saw looked started heard thought let lived "
    "gave grew picked opened listened kept tried stopped ate named called wished shared "
    "shouted cried moved used found took made climbed reached explored nodded agreed waved "
    "replied continued blew pushed noticed stayed wagged clapped splash finished barked "
    "cheered hopped grabbed fell caught dropped joined woke rolled enjoyed wore pointed "
    "slipped passed mailed chased pretended drank grab hear listen give tell eat go get come "
    "say keep think believe learn learned decided happened became turned returned screamed "
    "pulled knocked smelled tasted smiled ran walked jumped played liked loved wanted needed "
    "says goes looks going looking eating trying having making coming flying getting sharing "
    "exploring reading",
    "adjective": "good great bad sorry better best safe loud okay ready dark surprised higher dirty hot "
    "wonderful wise alone cool deep scary delicious tasty colorful amazing dangerous perfect "
    "smelly furry able cute difficult brilliant nervous impatient comfortable large creative "
    "smooth secret grateful noisy ugly honest magical bitter longer forever upset ashamed "
    "whole mighty uncomfortable smaller incredible bored famous favorite different important "
    "yummy unexpected fluffy naughty real easy sharp",
    "adverb": "very too then there again away together always never soon suddenly just even now anymore "
    "still finally maybe here ever once sometimes also almost tomorrow today everywhere later "
    "already really",
}


@cache
def word_classes() -> dict[str, frozenset[str]]:
    """Words in small letters by class: the closed classes first, then noun, verb, adjective and adverb."""
    forms = lexicon.build_classes()

    def of(names: object) -> set[str]:
        found = {form for name in names for lexeme in forms[name] for form in lexeme.values()}  # type: ignore[attr-defined]
        return {form for form in found if " " not in form}

    adjectives = ("color", "size", "quality", "trait", "mood", "calm", "upset", "easy", "sunny")
    found = {name: set(words.split()) for name, words in _CLOSED.items()}
    closed = set().union(*found.values())
    for name, more in (
        ("noun", of(lexicon.NOUNS)),
        ("verb", of(lexicon.VERBS)),
        ("adjective", of(adjectives)),
        ("adverb", of(("softly",))),
    ):
        found[name] = (more | set(_OPEN[name].split())) - closed
    times = Counter(word for words in found.values() for word in words)
    return {name: frozenset(word for word in words if times[word] == 1) for name, words in found.items()}

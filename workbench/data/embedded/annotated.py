"""The embedded stories with what their writer knew: who is the protagonist, where each drawn word stands.

The story is written by the same grammar, whose words carry a mark behind them that says which lexeme and form
they are; the marks are then taken out. The text is `stories.story`'s, letter for letter.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from workbench.data.embedded.grammar import Grammar, Lexeme, added_letters, finish, read_rules
from workbench.data.embedded.lexicon import build_classes
from workbench.data.embedded.plots import PLOT_RULES, ROLES
from workbench.data.embedded.scenes import SCENE_RULES
from workbench.data.embedded.stories import compose

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

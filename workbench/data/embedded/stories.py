"""The seeded story writer: short tales with a cast, a plot, scenes on the way and an ending.

Story i is a pure function of (seed, split, i): any story can be had alone, and a longer list begins with the
shorter. The text is the workbench's own, needs no network, and stands in for TinyStories (Eldan & Li 2023).
"""

import random
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from workbench.data.embedded.grammar import Grammar, Lexeme, finish, read_rules
from workbench.data.embedded.lexicon import build_classes
from workbench.data.embedded.plots import PLOT_RULES, PLOTS, ROLES
from workbench.data.embedded.scenes import SCENE_RULES, SCENES
from workbench.errors import DataError
from workbench.seeds import derive

SPLITS = ("train", "validation")
_SCENES = tuple(name for name, weight in SCENES.items() for _ in range(weight))


@cache
def grammar() -> Grammar:
    """The compiled grammar that stories and minimal pairs share."""
    return Grammar(build_classes(), read_rules(PLOT_RULES + SCENE_RULES), ROLES)


def stories(n: int, seed: int = 0, split: str = "train") -> list[str]:
    """The first `n` stories of a seed; `stories(10)[:5] == stories(5)`.

    Args:
        n: how many.
        seed: another seed, other stories.
        split: "train" or "validation"; each draws from a seed stream of its own.

    Raises:
        DataError: `n` is negative or `split` has another name.
    """
    if n < 0 or split not in SPLITS:
        raise DataError(
            f"stories(n={n}, split={split!r}): n must be 0 or more and split one of {', '.join(SPLITS)}."
        )
    return [story(index, seed, split) for index in range(n)]


def split_stories(n_train: int, n_validation: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Training and validation stories, none in both: a validation story seen in training is passed over."""
    train = stories(n_train, seed)
    seen = set(train)
    validation: list[str] = []
    index = 0
    while len(validation) < n_validation:
        text = story(index, seed, "validation")
        index += 1
        if text not in seen:
            validation.append(text)
    return train, validation


def story(index: int, seed: int = 0, split: str = "train") -> str:
    """Story number `index` of (seed, split): mostly 80 to 160 words, its paragraphs parted by a newline."""
    return finish(compose(grammar(), index, seed, split).text)


class Composed(NamedTuple):
    """A story before `finish`, and what its writer knew."""

    text: str
    plot: str
    """One of `PLOTS`."""
    cast: dict[str, Lexeme]
    """Who plays the roles of `ROLES`."""


def compose(tell: Grammar, index: int, seed: int = 0, split: str = "train") -> Composed:
    """Write a story with a grammar: `grammar()`, or one with the same classes in the same order."""
    draw = random.Random(derive(seed, f"embedded stories {split}", index)).random
    cast: dict[str, Lexeme] = {}
    for role, kind in ROLES.items():
        cast[role] = tell.pick(kind, draw, tuple(cast.values()))

    def choose(names: Sequence[str]) -> str:
        return names[int(draw() * len(names))]

    def write(rule: str) -> str:
        return tell.write_rule(rule, draw, cast)

    plot = choose(PLOTS)
    paragraphs = [write(choose(_SCENES))] if draw() < 0.4 else []
    paragraphs += [write("opening") + " " + write("habit"), write(f"{plot}_trouble")]
    for _ in range(1 + int(draw() * 4)):
        walk = write("walk") + " " if draw() < 0.4 else ""
        paragraphs.append(walk + write(choose(_SCENES)))
    paragraphs += [write(f"{plot}_turn"), write("ending")]
    return Composed("\n".join(paragraphs), plot, cast)

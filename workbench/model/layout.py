"""The order of attention and MLP modules: a string of `a` and `m`, with parentheses for parallel.

`"am" * n` is the usual transformer, `"aaaammmm"` all attention first, `"aamamm"` a sandwich (Press et al.
2020, arXiv:1911.03864), `"(am)(am)"` attention and MLP side by side on the same input (Wang & Komatsuzaki
2021, GPT-J), `"aaaa"` attention only (Elhage et al. 2021), `"mm"` MLP only.

A block is what an attention module and the MLP right behind it make together; a module that has no such
partner is a block of its own. So `"aaaammmm"` has seven blocks: a a a am m m m.
"""

import re
from collections import Counter

from workbench.errors import ConfigError

LONGEST = 20_000
"""Letters of a layout."""

_BLOCK = re.compile(r"\(am\)|\(ma\)|am|a|m")


def blocks_of(layout: str) -> tuple[str, ...]:
    """The blocks of a layout, each one of `am`, `a`, `m` and `(am)`.

    Raises:
        ConfigError: the layout does not parse; the message says where and why.
    """
    if not layout:
        raise ConfigError("model.layout is empty; it needs at least one a (attention) or m (MLP).")
    if len(layout) > LONGEST:
        raise ConfigError(f"model.layout has {len(layout):,} letters; at most {LONGEST:,} are allowed.")
    found, place = [], 0
    while place < len(layout):
        match = _BLOCK.match(layout, place)
        if match is None:
            raise ConfigError(f"model.layout = {_short(layout)}: {_trouble(layout, place)}")
        found.append("(am)" if match[0].startswith("(") else match[0])
        place = match.end()
    return tuple(found)


def _short(layout: str) -> str:
    return repr(layout if len(layout) <= 40 else layout[:37] + "...")


def _trouble(layout: str, place: int) -> str:
    letter = layout[place]
    if letter == "(":
        inside = layout[place + 1 :].partition(")")
        if not inside[1]:
            return f"the parallel group opened at letter {place + 1} is not closed."
        return f"a parallel group holds one a and one m; found ({inside[0][:20]})."
    if letter == ")":
        return f"the parenthesis at letter {place + 1} closes nothing."
    return f"{letter!r} at letter {place + 1} is none of a (attention), m (MLP), ( and )."


def modules(layout: str | None, n_layers: int) -> Counter[str]:
    """How many blocks there are of each kind, without writing them out."""
    return Counter({"am": n_layers}) if layout is None else Counter(blocks_of(layout))

"""Passages of a text with what a neuron does at each token, as HTML; all text is escaped here."""

from collections.abc import Sequence
from typing import NamedTuple

from apps.look.markup import number
from apps.look.palette import Palette
from apps.look.tokens import running, visible
from workbench.html_page import html


class Shown(NamedTuple):
    """One line."""

    label: str
    """In front of it: the activation, or a name."""
    tokens: Sequence[str]
    values: Sequence[float]
    """Of each token."""
    place: int | None = None
    """The token that it is about."""


def passages(lines: Sequence[Shown], largest: float, palette: Palette) -> str:
    """A paragraph for each line; a token is the darker the more active the neuron is there.

    Args:
        lines: what to show.
        largest: the activation of the darkest colour.
        palette: colours.
    """
    return f'<div class="wb-passages">{"".join(_line(one, largest, palette) for one in lines)}</div>'


def _line(one: Shown, largest: float, palette: Palette) -> str:
    tokens = "".join(
        _token(token if at else token.lstrip(" ") or token, float(value), at == one.place, largest, palette)
        for at, (token, value) in enumerate(zip(one.tokens, one.values, strict=True))
    )
    return f'<p><span class="v">{html(one.label)}</span>{tokens}</p>'


def _token(token: str, value: float, here: bool, largest: float, palette: Palette) -> str:
    share = min(1.0, max(0.0, value / largest)) if largest > 0 else 0.0
    colour = palette.amount(share)
    style = f' style="background:{colour};color:{palette.on(colour)}"' if share > 0.03 else ""
    kind = "t here" if here else "t"
    return f'<span class="{kind}"{style} title="{number(value, 3)}">{html(running(token))}</span>'


def words(scored: Sequence[tuple[str, float]]) -> str:
    """Tokens with their scores in one line."""
    parts = "".join(
        f"<span>{html(visible(text))} <small>{number(score)}</small></span> " for text, score in scored
    )
    return f'<p class="wb-words">{parts}</p>'

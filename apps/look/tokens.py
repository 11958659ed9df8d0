"""Tokens as a reader sees them, and two sentences laid side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

_VISIBLE = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
_INVISIBLE = dict.fromkeys(
    "\u200b\u200c\u200d\u200e\u200f\u2060\u202a\u202b\u202d\u202e\u2066\u2067\ufeff", ""
)
Scored = tuple[int, str, float]
"""A token: id, text, log-probability."""


@dataclass(frozen=True)
class Column:
    """The tokens of two sentences that stand for each other; None where one sentence has none."""

    good: str | None
    good_nats: float | None
    bad: str | None
    bad_nats: float | None
    shown: bool = False
    """Where the sentences first differ."""

    @property
    def difference(self) -> float:
        """Nats by which this column speaks for the good sentence; over all columns they sum to the whole."""
        return (self.good_nats or 0.0) - (self.bad_nats or 0.0)


def visible(token: str) -> str:
    """A token for display: `<bos>` as ‹bos›, a leading space as ·, line breaks as ⏎, nothing invisible.

    >>> visible(" cat"), visible("<bos>"), visible("")
    ('·cat', '‹bos›', '∅')
    """
    shown = _VISIBLE | _INVISIBLE
    text = "".join(shown.get(letter, letter) for letter in token)
    text = text.replace("<", "‹").replace(">", "›")
    spaces = len(text) - len(text.lstrip(" "))
    text = "·" * spaces + text[spaces:]
    return "".join(letter if letter.isprintable() else "�" for letter in text) or "∅"


def running(token: str) -> str:
    """A token inside a text that is shown whole: its spaces stay spaces."""
    spaces = len(token) - len(token.lstrip(" "))
    return " " * spaces + visible(token[spaces:]) if spaces < len(token) else token


def bare(token: str) -> str:
    """A token inside a sentence of ours: without the space in front."""
    return visible(token).lstrip("·") or visible(token)


def distinct(tokens: Sequence[str]) -> list[str]:
    """Display names that differ from each other: the nth repetition gets n zero-width marks behind it."""
    seen: dict[str, int] = {}
    names = []
    for token in tokens:
        name = visible(token)
        names.append(name + "\u2060" * seen.get(name, 0))
        seen[name] = seen.get(name, 0) + 1
    return names


def side_by_side(good: Sequence[Scored], bad: Sequence[Scored], place: int) -> list[Column]:
    """Columns of two tokenized sentences: (id, text, log-probability) each.

    The common beginning and the common end are laid on each other; between them token stands by token
    from the left, and what one sentence has more stands alone.
    """
    shared = min(len(good), len(bad)) - place
    end = 0
    while end < shared and good[-1 - end][0] == bad[-1 - end][0]:
        end += 1
    columns = []
    for index in range(max(len(good), len(bad)) - end):
        left = good[index] if index < len(good) - end else None
        right = bad[index] if index < len(bad) - end else None
        columns.append(_together(left, right, index == place))
    tails = zip(good[len(good) - end :], bad[len(bad) - end :], strict=True)
    return columns + [_together(left, right, False) for left, right in tails]


def _together(left: Scored | None, right: Scored | None, shown: bool) -> Column:
    return Column(
        None if left is None else visible(left[1]),
        None if left is None else left[2],
        None if right is None else visible(right[1]),
        None if right is None else right[2],
        shown,
    )

"""Heavy work on a paradigm: a button that says how long it takes, progress, Cancel, and what is there so far.

A piece at a time is done at the end of a run of the fragment, which then runs again: a click on Cancel comes
between two pieces, and what was done stays.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from apps.frame.again import again

PIECE = 0.5
"""Seconds that a piece of the work should take."""
KEPT = 12
"""Works of a session whose pieces are remembered."""
_WORKS = "works on paradigms"


@dataclass
class Work:
    """What was done of one."""

    total: int
    pieces: list[Any] = field(default_factory=list)
    done: int = 0
    seconds: float = 0.0
    running: bool = False
    slot: str = ""
    """The part of the page that does it: it does one work at a time."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left."""
        return self.done >= self.total

    def left(self, rate: float) -> float:
        """Seconds that the rest takes: at the rate so far, or the estimate where nothing is done."""
        return (self.total - self.done) * (self.seconds / self.done if self.done else rate)


def work(key: str, total: int, slot: str) -> Work:
    """The work of this name in this session; a new one where there is none. Another one of the same slot that
    was running stops."""
    works: dict[str, Work] = st.session_state.setdefault(_WORKS, {})
    found = works.pop(key, None) or Work(total, slot=slot)
    works[key] = found  # the last one used is the last to be forgotten
    for other in list(works.values())[:-1]:
        other.running = other.running and other.slot != slot
    while len(works) > KEPT:
        works.pop(next(iter(works)))
    return found


def controls(mine: Work, name: str, rate: float, what: str, key: str) -> None:
    """The button, or the progress with Cancel.

    Args:
        mine: the work.
        name: what the button starts, such as `Run on the paradigm`.
        rate: estimated seconds for a pair.
        what: the units in words, such as `pairs`.
        key: of the widgets.
    """

    place = st.empty().container()  # replaced as a whole: while work goes on, nothing old is cleared away

    def start() -> None:
        mine.running = True

    def stop() -> None:
        mine.running = False

    if mine.running:
        bar, cancel = place.columns([4, 1], vertical_alignment="bottom")
        bar.progress(
            mine.done / mine.total,
            f"{mine.done:,} of {mine.total:,} {what} · {clock(mine.left(rate))} left",
        )
        cancel.button("Cancel", key=f"{key}-cancel", on_click=stop, width="stretch",
                      help="What is done stays, and can be gone on with.")  # fmt: skip
    elif not mine.finished:
        left = mine.total - mine.done
        label = name if not mine.done else "Go on"
        place.button(
            f"{label} ({left:,} {what}, about {clock(mine.left(rate))})",
            key=f"{key}-start",
            on_click=start,
            type="primary",
            help="The time is the measured rate of this machine times the amount. It can be cancelled, and "
            "what is done stays.",
        )


def go_on(mine: Work, rate: float, step: Callable[[int, int], Any], fewest: int = 1) -> None:
    """Do a piece, if the work is running, and run the part again.

    Args:
        mine: the work.
        rate: estimated seconds for a pair.
        step: does pairs `first` to `last`, the last not included, and returns what is kept of them.
        fewest: pairs of a piece, where each has a cost of its own.
    """
    if not mine.running:
        return
    each = mine.seconds / mine.done if mine.done else rate
    last = min(mine.total, mine.done + max(fewest, int(PIECE / max(each, 1e-6))))
    began = time.perf_counter()
    try:
        piece = step(mine.done, last)
    except Exception:
        mine.running = False
        raise
    mine.seconds += time.perf_counter() - began
    mine.pieces.append(piece)
    mine.done = last
    if mine.finished:
        mine.running = False
    again()


def clock(seconds: float) -> str:
    """A time in words: `2 s`, `3 min 5 s`."""
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60} s"

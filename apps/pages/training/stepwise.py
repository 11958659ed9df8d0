"""Work that goes checkpoint by checkpoint: a button that says how long it takes, progress, and a way out.

Each finished checkpoint is remembered for all sessions, so cancelling, choosing something else in the middle
or reloading the page loses only the one that was under way. Streamlit stops a run of the page as soon as the
reader touches something outside fragments, at the next word that it sends: here, the next step of the bar. A
click inside a fragment only waits for the end. So `each` must stand outside, or Cancel would do nothing.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import streamlit as st

from apps.answers.remembered import memory
from apps.look import markup
from workbench.errors import WorkbenchError

LONG = 2.0
"""Seconds over which work waits for a click."""


def each(
    name: str,
    keys: dict[int, Hashable],
    make: Callable[[int], Any],
    what: str,
    seconds: float,
    known: dict[int, Any] | None = None,
    live: bool = False,
) -> dict[int, Any]:
    """The answers about each checkpoint that are there, after drawing what is needed to get the others.

    Args:
        name: of the work, unique on the page.
        keys: checkpoint -> what its answer is remembered under.
        make: checkpoint -> its answer; one that raises a WorkbenchError is passed over with a word.
        what: the work in words, as in "Scoring the embedded pairs".
        seconds: that one checkpoint takes, about.
        known: answers that are there anyway.
        live: do not wait for a click.
    """
    store, found = memory(), dict(known or {})
    failed: dict[Hashable, WorkbenchError] = st.session_state.setdefault(f"failed {name}", {})
    missing = []
    for step, key in keys.items():
        if step not in found:
            answer = store.get((name, key))
            if answer is not None:
                found[step] = answer
            elif key not in failed:
                missing.append(step)
    if missing and (live or st.session_state.get(_flag(name)) == [*keys.values()]):
        found |= _work(name, keys, make, what, missing, seconds, not live, failed)
    elif missing:
        _offer(name, what, missing, [*keys.values()], seconds)
    for step, key in keys.items():
        if key in failed:
            st.warning(markup.plain(f"Checkpoint {step:,} is left out: {failed[key]} Reload to try again."))
    return dict(sorted(found.items()))


def _offer(name: str, what: str, missing: Sequence[int], keys: list[Hashable], seconds: float) -> None:
    count = len(keys)
    part = (
        f"{len(missing)} of {count} checkpoints are missing"
        if len(missing) < count
        else f"{count} checkpoints"
    )
    st.button(
        f"{what}: {part}, about {duration(seconds * len(missing))}",
        key=f"start-{name}", on_click=_set, args=(name, keys), icon=":material/play_arrow:",
        help="Goes checkpoint by checkpoint; it can be cancelled, and what is done is kept.",
    )  # fmt: skip


def _work(
    name: str, keys: dict[int, Hashable], make: Callable[[int], Any], what: str, missing: Sequence[int],
    seconds: float, cancel: bool, failed: dict[Hashable, WorkbenchError],
) -> dict[int, Any]:  # fmt: skip
    store, found = memory(), {}
    place, button = st.empty(), st.empty()
    bar = place.progress(0.0, text=what) if seconds * len(missing) > LONG or cancel else None
    if cancel:
        button.button("Cancel", key=f"cancel-{name}", on_click=_set, args=(name, None))
    began, done = time.perf_counter(), len(keys) - len(missing)
    for index, step in enumerate(missing):
        spent = time.perf_counter() - began
        rest = (spent / index if index else seconds) * (len(missing) - index)
        if bar is not None:
            words = f"{what}: checkpoint {step:,}, {done + index + 1} of {len(keys)}, {duration(rest)} left"
            bar.progress((done + index) / len(keys), text=markup.plain(words))
        try:
            found[step] = make(step)
            store.put((name, keys[step]), found[step])
        except WorkbenchError as error:
            failed[keys[step]] = error
    _set(name, None)
    place.empty()
    button.empty()
    return found


def _flag(name: str) -> str:
    return f"work {name}"


def _set(name: str, value: list[Hashable] | None) -> None:
    """Begin the work on these keys (those of another model or pair do not go on by themselves), or end it."""
    st.session_state[_flag(name)] = value


def duration(seconds: float) -> str:
    """
    >>> duration(0.3), duration(8.2), duration(200)
    ('1 s', '9 s', '4 min')
    """
    whole = max(1, int(-(-seconds // 1)))
    return f"{whole} s" if whole < 100 else f"{-(-whole // 60)} min"

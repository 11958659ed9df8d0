"""Long work on the page: how far it is, how long it takes still, and a way to end it."""

import time
from collections.abc import Callable

import streamlit as st

from apps.answers.background import CancelledError, Work
from apps.look import markup

PATIENCE = 0.7
"""Seconds after which progress is shown."""
EVERY = 0.7
"""Seconds between two looks."""


def patient(work: Work) -> bool:
    """Give work that has just begun a moment; whether it is done."""
    return work.wait(max(0.0, PATIENCE - (time.monotonic() - work.began)))


def waited(work: Work, what: str, cancel: Callable[[], None], key: str) -> bool:
    """Whether the work is done. Until then progress stands on the page, which looks again by itself.

    Args:
        work: what is waited for.
        what: is being done, in words.
        cancel: what the button does.
        key: of the button.

    Raises:
        WorkbenchError: what the work ended with.
    """
    if patient(work):
        if isinstance(work.error, CancelledError):
            cancel()
            return False
        if work.error is not None:
            cancel()
            raise work.error
        return True
    _watch(work, what, cancel, key)
    return False


@st.fragment(run_every=EVERY)
def _watch(work: Work, what: str, cancel: Callable[[], None], key: str) -> None:
    if work.done:
        st.rerun(scope="app")
    share = min(0.99, work.share)  # it is not done
    left = "" if work.left is None else f", about {max(1, round(work.left))} s left"
    if work.share > 0.99:
        left = ", finishing"
    bar, button = st.columns([5, 1], vertical_alignment="center")
    bar.progress(share, text=markup.plain(f"{what}: {share:.0%}{left}"))
    help = "Ends it for everybody who waits for the same on this server."
    if button.button("Cancel", key=key, on_click=cancel, help=help):
        st.rerun(scope="app")

"""From one page to another with a click: `on_click=journey.go, args=("explain",), kwargs={"pair": 7}`."""

import streamlit as st

from apps.frame import address

_UNDERWAY = "journey underway"


def go(page: str, **choices: object) -> None:
    """In a widget's callback: open `page` with these choices (keys of widgets); None forgets one.

    What hangs on a changed choice is forgotten with it: another model's head, another paradigm's pair.
    """
    st.session_state["page"] = page
    for key, value in choices.items():
        address.forget(key)
        if value is not None:
            st.session_state[key] = value
    st.session_state[_UNDERWAY] = True


def follow() -> None:
    """At the start of a part that reruns alone: run the whole page if a journey has begun."""
    if st.session_state.get(_UNDERWAY):
        st.session_state[_UNDERWAY] = False
        st.rerun(scope="app")


def arrived() -> None:
    """The whole page is running anyway."""
    st.session_state[_UNDERWAY] = False

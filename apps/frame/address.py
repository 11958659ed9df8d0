"""The view's state in the URL: a copied link opens the same view.

Streamlit's own `bind="query-params"` writes a widget's label into the URL; labels here hold sentences
and margins, so short values are written instead.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import streamlit as st

T = TypeVar("T")
LONGEST = 2000
"""Characters of one parameter that are read; more is a mistake."""


def choice(key: str, options: Sequence[T], default: T) -> None:
    """Set the widget state `key` before its widget is made: what was chosen, else the URL's value, else
    `default`; anything that is no option (any more) is passed over."""
    if key in st.session_state and st.session_state[key] in options:
        return
    named = {str(option): option for option in options}
    st.session_state[key] = named.get(st.query_params.get(key, ""), default)


def one_of(
    key: str,
    label: str,
    options: Mapping[str, str],
    default: str | None = None,
    *,
    shown: bool = False,
    help: str | None = None,
    width: Literal["content", "stretch"] = "content",
) -> str:
    """Buttons in a row, of which one is pressed. The choice stands in the URL unless it is the default.

    Args:
        key: of the widget and the parameter.
        label: what is chosen.
        options: each choice with its words.
        default: the first one, if not given.
        shown: whether the label stands above the buttons.
        help: what the choices mean.
        width: as wide as the words, or as the place.
    """
    usual = next(iter(options)) if default is None else default
    choice(key, list(options), usual)
    pressed = st.segmented_control(
        label,
        list(options),
        key=key,
        format_func=lambda one: options[one],
        required=True,
        help=help,
        label_visibility="visible" if shown else "collapsed",
        width=width,
    )
    chosen = pressed or usual
    write(**{key: None if chosen == usual else chosen})
    return chosen


def words(key: str, default: str) -> None:
    """The same for a text field."""
    if key not in st.session_state:
        st.session_state[key] = st.query_params.get(key, default)[:LONGEST]


def whole(key: str, default: int, low: int, high: int) -> None:
    """The same for a whole number between two limits."""
    if isinstance(known := st.session_state.get(key), int) and low <= known <= high:
        return
    text = st.query_params.get(key, "")[:12]
    found = int(text) if text.isascii() and text.removeprefix("-").isdecimal() else default
    st.session_state[key] = found if low <= found <= high else default


def switch(key: str, default: bool = False) -> None:
    """The same for a toggle."""
    if key not in st.session_state:
        st.session_state[key] = st.query_params.get(key, "1" if default else "0") == "1"


def forget(*keys: str) -> None:
    """Take these choices out of the state and the URL, so that their defaults come back."""
    for key in keys:
        st.session_state.pop(key, None)
        st.query_params.pop(key, None)


def write(**values: object) -> None:
    """Put these values into the URL, and take out the keys whose value is None. Other keys stay."""
    for key, value in values.items():
        text = None if value is None else str(value)
        if text is None:
            st.query_params.pop(key, None)
        elif st.query_params.get(key) != text:
            st.query_params[key] = text

"""The view's state in the URL: a copied link opens the same view.

Streamlit's own `bind="query-params"` writes a widget's label into the URL; labels here hold sentences
and margins, so short values are written instead.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar
from urllib.parse import parse_qsl

import streamlit as st
from streamlit.components import v2

T = TypeVar("T")
LONGEST = 2000
"""Characters of one parameter that are read; more is a mistake."""


_KEYS = "keys of the address"
_UNKNOWN = "values of the address that are no option"
_LABELS = "labels of"


def choice(key: str, options: Sequence[T], default: T, labels: Callable[[T], str] | None = None) -> None:
    """Set the widget state `key` before its widget is made: the user's choice, else the URL's value, else
    `default`; anything that is no option (any more) is replaced.

    Args:
        key: of the widget and the parameter.
        options: what can be chosen.
        default: one of them.
        labels: the widget's `format_func`, if labels depend on the model. The browser knows a choice by its
            label only: when labels change, the choice is sent to it again, with its new label.
    """
    state = st.session_state
    _known(key)
    if key in state and state[key] in options:
        chosen = state[key]
    else:
        named = {str(option): option for option in options}
        value = st.query_params.get(key)
        chosen = named.get(value or "", default)
        if key not in state and value and value not in named:
            state.setdefault(_UNKNOWN, {})[key] = (value[:60], str(default))
        state[key] = chosen
    if labels is not None:
        digest = hash(tuple(map(labels, options)))
        if state.get(f"{_LABELS} {key}") != digest:
            state[f"{_LABELS} {key}"] = digest
            state[key] = chosen


def unknown(names: Mapping[str, str]) -> list[str]:
    """Return a sentence for each value of the URL that was no option, once.

    Args:
        names: key -> what it is called; keys without a name are not reported.
    """
    found = st.session_state.pop(_UNKNOWN, {})
    return [
        f"There is no {names[key]} {value!r} here; {default} is shown."
        for key, (value, default) in found.items()
        if key in names
    ]


def _known(key: str) -> None:
    st.session_state.setdefault(_KEYS, set()).add(key)


_HISTORY_JS = """
export default function ({ setTriggerValue }) {
  // Streamlit pushes one entry for each parameter, whenever a part of the page is ready. Here a click or a
  // key makes one entry, and what the page adds by itself belongs to it.
  if (!window.wbPush) {
    window.wbPush = history.pushState.bind(history);
    const acted = () => { window.wbActed = true; };
    document.addEventListener("pointerdown", acted, true);
    document.addEventListener("keydown", acted, true);
    history.pushState = (state, title, url) => {
      (window.wbActed ? window.wbPush : history.replaceState.bind(history))(state, title, url);
      window.wbActed = false;
    };
  }
  const moved = () => {
    window.wbActed = false;
    setTriggerValue("moved", location.search.slice(0, 8000));
  };
  window.addEventListener("popstate", moved);
  return () => window.removeEventListener("popstate", moved);
}
"""
_history = v2.component("wb_history", js=_HISTORY_JS)


def follow_history() -> None:
    """Let the browser's Back and Forward change the page: the choices are read from the address again."""

    def moved() -> None:
        query = st.session_state["wb-history"].get("moved")
        if not isinstance(query, str):
            return
        forget(*st.session_state.get(_KEYS, ()))
        st.query_params.from_dict(dict(parse_qsl(query.removeprefix("?"))))

    _history(key="wb-history", on_moved_change=moved)


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
    _known(key)
    if key not in st.session_state:
        st.session_state[key] = st.query_params.get(key, default)[:LONGEST]


def whole(key: str, default: int, low: int, high: int) -> None:
    """The same for a whole number between two limits."""
    _known(key)
    if isinstance(known := st.session_state.get(key), int) and low <= known <= high:
        return
    text = st.query_params.get(key, "")[:12]
    found = int(text) if text.isascii() and text.removeprefix("-").isdecimal() else default
    st.session_state[key] = found if low <= found <= high else default


def switch(key: str, default: bool = False) -> None:
    """The same for a toggle."""
    _known(key)
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

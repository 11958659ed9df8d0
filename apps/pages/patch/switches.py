"""The switches: a map of all heads and MLPs, and a list that takes neurons too. All of it in the URL."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, cast

import pandas as pd
import streamlit as st

from apps.answers import ablate, explain
from apps.answers.catalogue import Opened
from apps.answers.explain import Subject
from apps.charts.switches import switch_map
from apps.frame import address
from apps.frame.drawn import drawn
from apps.look import markup
from apps.look.palette import Palette

OFF = "off"
"""Key of the list of parts that are off, also in the URL, joined by commas."""
_MAP = "switch map"
MOST = 60
"""Parts that the URL and the list have room for."""


def choose(opened: Opened, subject: Subject, palette: Palette) -> tuple[tuple[str, ...], Any, pd.DataFrame]:
    """Draw the switches.

    Returns:
        The labels of the parts that are off, in order; the map and its table, to be downloaded.
    """
    config = opened.model.config
    off, wrong = ablate.known(config, _asked())
    st.session_state[OFF] = list(off[:MOST])
    off = off[:MOST]
    chart, table = _map(subject, ablate.switches(config), off, palette)
    units = f"neurons L0N0 to L{config.n_layers - 1}N{config.mlp_width - 1}" if _has_mlps(config) else ""
    st.multiselect(
        "Ablated",
        list(dict.fromkeys([*ablate.switches(config), *off])),
        key=OFF,
        accept_new_options=True,
        max_selections=MOST,
        placeholder="Nothing is ablated. Click cells above, or type names"
        + (" and neurons" if units else ""),
        help="Heads are called L0H1, MLPs L0 MLP, neurons L0N17: type a name and press Enter."
        + (f" This model has {units}." if units else ""),
    )
    for sentence in wrong:
        st.warning(markup.plain(f"not ablated: {sentence}"))
    address.write(off=",".join(off) or None)
    return off, chart, table.assign(off=table.component.isin(set(off)))


def everything_on() -> None:
    """In a callback: switch all parts on."""
    st.session_state[OFF] = []


def toggled(base: Iterable[str], clicked: Iterable[str]) -> set[str]:
    """What is off after the clicks: each component that was clicked an odd number of times has turned."""
    return set(base) ^ set(clicked)


def _asked() -> Sequence[str]:
    asked: Any = st.session_state.get(OFF)
    if asked is None:
        asked = st.query_params.get(OFF, "")[: address.LONGEST]
    if isinstance(asked, str):
        asked = asked.split(",")
    return [label for label in asked if label.strip()]


def _has_mlps(config: Any) -> bool:
    return any("m" in kind for kind in config.blocks)


def _map(
    subject: Subject, names: Sequence[str], off: Sequence[str], palette: Palette
) -> tuple[Any, pd.DataFrame]:
    """The map that is clicked on; returns it and its table."""
    view = subject.views[-1]  # whole sentences: what the figures below are about
    rows = explain.cells(subject, view.values)
    here = [label for label in off if label in names]
    about = hashlib.sha256(f"{subject.key}|{palette.name}".encode()).hexdigest()[:12]
    about, base, key = _same_map(about, here)

    def clicked() -> None:
        turned = toggled(base, _cells(key))
        others = [label for label in _asked() if label not in names]
        st.session_state[OFF] = [label for label in names if label in turned] + others

    chart = switch_map(rows, base, palette)
    drawn(chart, key, clicked, "switch", "Heads and MLPs by layer; a click ablates one or restores it")
    ends = [(palette.good, f"favours {subject.helps}"), (palette.bad, f"favours {subject.hurts}")]
    note = "Direct contributions of the whole model, nats, whole sentences. A click ablates or restores."
    st.html(markup.key(ends, note))
    return chart, cast("pd.DataFrame", pd.DataFrame(rows)[["component", "what", "nats"]])


def _same_map(about: str, here: Sequence[str]) -> tuple[str, tuple[str, ...], str]:
    """The map that the reader clicks on, as long as what is off came from clicks on it; else a new one, that
    begins with what is off now."""
    state = st.session_state.get(_MAP)
    if state is not None:
        was, base, count = state
        if was == about and toggled(base, _cells(f"switch-{about}-{count}")) == set(here):
            return was, base, f"switch-{about}-{count}"
    count = 0 if state is None else state[2] + 1
    st.session_state[_MAP] = (about, tuple(here), count)
    return about, tuple(here), f"switch-{about}-{count}"


def _cells(key: str) -> list[str]:
    state = st.session_state.get(key)
    cells = [] if state is None else state["selection"].get("switch", [])
    return [str(cell["component"]) for cell in cells if "component" in cell]

"""What the chosen head attends to, and all heads of its layer."""

import numpy as np
import streamlit as st

from apps.answers import explain
from apps.answers.catalogue import Opened
from apps.answers.explain import Reading, Subject
from apps.charts.attention_map import LARGEST, attention_map
from apps.frame import address
from apps.frame.drawn import still
from apps.look import markup
from apps.look.bundle import bundle, bundle_url
from apps.look.palette import Palette
from apps.pages.explain.side import Side
from workbench.interp.components import Component

MOST_HEADS, MOST_TOKENS = 16, 32
"""What CircuitsVis paints in a second or two."""
NARROW = 32
"""Tokens that fit into half the page."""


def none() -> None:
    """Say that there is nothing to draw."""
    st.markdown(
        "This model has no attention: each of its MLPs reads only its own position, so that no token learns "
        "anything of the others."
    )


def show(side: Side, component: Component, palette: Palette) -> None:
    """Draw the head's map on each sentence, and CircuitsVis' view of its layer if it is wanted."""
    opened, subject, suffix = side.opened, side.subject, side.state.removeprefix("head")
    assert component.layer is not None
    assert component.head is not None
    skip, layer, _ = st.columns([3, 4, 3], vertical_alignment="center")
    nobos, every = f"nobos{suffix}", f"allheads{suffix}"
    address.switch(nobos)
    hide = skip.toggle(
        "Leave out the first token",
        key=nobos,
        help="Many heads rest on the first token, such as ‹bos›; without it the rest of the pattern shows.",
    )
    address.switch(every)
    whole = layer.toggle(
        f"All heads of layer {component.layer}",
        key=every,
        help="The heads of the layer side by side, drawn by CircuitsVis, below.",
    )
    address.write(**{nobos: "1" if hide else None, every: "1" if whole else None})
    patterns = [explain.attention(opened, reading.ids, component.layer) for reading in subject.readings]
    of_head = [pattern[component.head] for pattern in patterns]
    skipped = [pattern[:, int(hide) :] for pattern in of_head]
    top = max((float(part.max()) for part in skipped if part.size), default=1.0)
    several = len(subject.readings) > 1
    beside = several and max(len(reading.ids) for reading in subject.readings) <= NARROW
    places = st.columns(len(patterns)) if beside else [st.container() for _ in patterns]
    for place, reading, pattern in zip(places, subject.readings, of_head, strict=True):
        with place:
            name = component.label
            st.markdown(f"**{name}** on the {reading.label} sentence" if several else f"**{name}**")
            _map(side, reading, pattern, palette, top, hide)
    if whole:
        _layer(opened, subject, component.layer, palette)


def _map(side: Side, reading: Reading, pattern: np.ndarray, palette: Palette, top: float, hide: bool) -> None:
    opened = side.opened
    start = _window(side, reading)
    part = slice(start, start + LARGEST)
    shown = explain.read_tokens(opened, reading.ids[part])
    chart = attention_map(shown, pattern[part, part], palette, reading.place - start, top, hide and not start)
    still(chart, f"Attention on the {reading.label}")


def _window(side: Side, reading: Reading) -> int:
    """Where the shown window begins; a slider where the row does not fit. The framed row stays in it."""
    last = len(reading.ids) - LARGEST
    if last <= 0:
        return 0
    first = min(last, max(0, reading.place - LARGEST + 8))
    key = f"window-{side.state}-{reading.label}-{last}"
    start = st.slider(f"First token shown ({reading.label})", 0, last, first, key=key)
    return min(max(start, reading.place - LARGEST + 1, 0), reading.place)


def _layer(opened: Opened, subject: Subject, layer: int, palette: Palette) -> None:
    count = opened.model.config.n_heads
    longest = max(len(reading.ids) for reading in subject.readings)
    if count > MOST_HEADS or longest > MOST_TOKENS:
        st.info(
            f"CircuitsVis is shown up to {MOST_HEADS} heads and {MOST_TOKENS} tokens; here are {count} heads "
            f"and {longest} tokens. The map above shows one head at a time."
        )
        return
    address_of = bundle_url()
    for column, reading in zip(st.columns(2), subject.readings, strict=False):
        page = markup.attention_page(
            explain.read_tokens(opened, reading.ids),
            explain.attention(opened, reading.ids, layer),
            [f"L{layer}H{head}" for head in range(count)],
            palette,
            None if address_of is None else f"{_base()}/{address_of}",
            b"" if address_of else bundle(),
            opened.model.config.attention == "causal",
        )
        with column:
            if len(subject.readings) > 1:
                st.caption(f"On the {reading.label} sentence")
            st.iframe(
                page,
                height=markup.attention_page_height(count),
                alt=f"CircuitsVis: attention of all heads of layer {layer} on the {reading.label}",
            )


def _base() -> str:
    path = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{path}" if path else ""

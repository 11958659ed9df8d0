"""The chosen component: what it adds directly, what is left without it, what it does elsewhere."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from apps.answers import ablate, paradigm_effects, switched_off
from apps.answers.explain import View
from apps.answers.wanted import Wanted
from apps.frame.told import told
from apps.look import markup
from apps.pages.explain.side import Side

CARD: Any = {"border": True, "delta_color": "off", "delta_arrow": "off"}
CARD_WIDTH = 176


def show(side: Side, view: View, parts: list[str], wanted: Wanted | None) -> list[Callable[[], None]]:
    """Draw the choice and the figures; returns what fills those that may take a second."""
    state, later = st.session_state, []

    def pick() -> None:
        state[side.picked] = True

    with st.container(horizontal=True, vertical_alignment="center"):
        label = st.selectbox(
            "Head or MLP" if side.state == "head" else f"… of {markup.plain(side.opened.name)}",
            parts,
            key=side.state,
            on_change=pick,
            width=120,
            help="The strongest head is chosen first; a click on the map chooses another, or an MLP.",
        )
        _contribution(side, view, label)
        for how in switched_off.HOWS:
            place = st.container(width=CARD_WIDTH)
            fill = _filler(place, side, view, label, how)
            if how == "mean" and not switched_off.means_at_hand(side.opened):
                later.append(fill)
            else:
                fill()
        if wanted is not None and wanted.source is not None and wanted.uid is not None:
            place = st.container(width=CARD_WIDTH)
            fill = _aggregate(place, side, wanted, label)
            if paradigm_effects.at_hand(side.opened, wanted.source, wanted.uid):
                fill()
            else:
                later.append(fill)
    return later


def _contribution(side: Side, view: View, label: str) -> None:
    value = float(view.values[[each.label for each in side.subject.components].index(label)])
    helps = side.subject.helps if value > 0 else side.subject.hurts
    helps = helps.removesuffix(" one").removeprefix("the ")
    st.metric(
        f"{label}, direct",
        f"{markup.number(value)} nats",
        help=f"Direct contribution to {view.label[:1].lower()}{view.label[1:]}: what it adds to the output "
        "itself, with the scales of the norms frozen. Effects through later components are not included.",
        delta=f"for {helps}",
        width=CARD_WIDTH,
        **CARD,
    )


def _filler(place: Any, side: Side, view: View, label: str, how: str) -> Callable[[], None]:
    what = "zeros" if how == "zero" else f"its mean over the tokens of {ablate.reference(side.opened).label}"

    def fill() -> None:
        with place, told():
            found = switched_off.switched_off(side.opened, side.subject, view, label, how)
            st.metric(
                "Mean ablation" if how == "mean" else "Zero ablation",
                f"{markup.number(found.effect)} nats",
                help=f"Effect on the {view.total_name}: {markup.number(view.total)} nats of the whole model "
                f"minus {markup.number(found.without)} when the output of {label} at every position is "
                f"replaced by {what}, and all later components react to that. Above 0 it helps, as a "
                "positive contribution does.",
                delta=f"{markup.number(found.without)} without it",
                **CARD,
            )

    return fill


def _aggregate(place: Any, side: Side, wanted: Wanted, label: str) -> Callable[[], None]:
    source, uid = wanted.source, wanted.uid
    assert source is not None
    assert uid is not None

    def fill() -> None:
        with place, told():
            found = paradigm_effects.aggregate(side.opened, source, uid, label)
            if found is None:
                return
            st.metric(
                f"Direct, whole, n = {found.n:,}",
                f"{markup.number(found.effect)} nats",
                help=f"{label}: its mean direct contribution to log p(good) − log p(bad) of whole sentences "
                f"over {found.n:,} pairs of {markup.plain(uid)}, with the 95 % interval (Student's) "
                "about drawing other pairs. One pair is an anecdote; this is the aggregate beside it.",
                delta=f"{markup.number(found.low)} to {markup.number(found.high)}",
                **CARD,
            )

    return fill

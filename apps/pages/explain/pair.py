"""Explain a pair: which sentence the model prefers, by how much, at which token, and through what."""

import math
from typing import Any

import streamlit as st

from apps.answers import beside, explain
from apps.answers.catalogue import Opened
from apps.answers.explain import Subject
from apps.answers.wanted import Wanted
from apps.frame.frame import Frame
from apps.frame.told import told
from apps.look import markup
from apps.look.palette import Palette
from apps.pages.explain import components, side
from workbench.interp.attribution import PairAttribution

CARD: Any = {"border": True, "delta_color": "off", "delta_arrow": "off"}
"""A figure in a box, `delta` as a small grey remark under it."""

EXPLANATION = (
    "Direct contributions: what each component writes for the readout, with the norms on its way there "
    "frozen at their values in this run; only so are they linear, and sum exactly. They leave out what a "
    "component does through later ones."
)


def show(frame: Frame, wanted: Wanted) -> None:
    """Draw the verdict, the sentences, the components and the figures, of one model or two."""
    opened, palette = frame.opened, frame.palette
    names = explain.OWN if wanted.paradigm is None else explain.MINIMAL
    asked = (wanted.good, wanted.bad, wanted.protocol, wanted.pll)
    found = explain.explain_pair(opened, *asked)
    other = None
    if frame.beside is not None:
        with told():
            other = explain.explain_pair(frame.beside, *asked)
    _verdict(opened, found, wanted, names)
    if frame.beside is not None and other is not None:
        _verdict(frame.beside, other, wanted, names)
    st.html(markup.where([*wanted.origin, f"checkpoint {opened.run.step:,}"]))
    _tokens(found, palette, names, opened.name if other is not None else "")
    if frame.beside is not None and other is not None:
        _tokens(other, palette, names, frame.beside.name)
    colours = [
        (palette.good, f"favours the {names[0]} sentence"),
        (palette.bad, f"favours the {names[1]} one"),
    ]
    note = "Small: log-probability of the token in nats. Framed: where the sentences first differ."
    st.html(markup.key(colours, note))
    sides = [side.first(opened, _subject(opened, found, wanted, names))]
    if frame.beside is not None and other is not None:
        sides.append(side.second(frame.beside, _subject(frame.beside, other, wanted, names)))
    components.show(tuple(sides), palette, EXPLANATION, wanted)
    _figures(opened, found, wanted, names, False, other is not None)
    if frame.beside is not None and other is not None:
        _figures(frame.beside, other, wanted, names, True, True)


def _verdict(opened: Opened, found: PairAttribution, wanted: Wanted, names: tuple[str, str]) -> None:
    wrong = "wrong" if wanted.paradigm is not None else names[1]
    kinds = f"the {wrong} sentence", f"the {names[0]} sentence"
    st.html(markup.verdict(opened.name, found.difference, *kinds))


def _tokens(found: PairAttribution, palette: Palette, names: tuple[str, str], who: str) -> None:
    if who:
        st.html(markup.where([who]))
    st.html(markup.pair(explain.columns(found), palette, *names))


def _subject(opened: Opened, found: PairAttribution, wanted: Wanted, names: tuple[str, str]) -> Subject:
    key = f"{opened.key}|{wanted.protocol}|{wanted.pll}|{wanted.good}|{wanted.bad}"
    return explain.pair_subject(found, key, names, wanted.protocol, wanted.pll)


def _figures(
    opened: Opened, found: PairAttribution, wanted: Wanted, names: tuple[str, str], second: bool, title: bool
) -> None:
    """The pair in figures, beside its paradigm."""
    if title:
        st.caption(f"**{markup.plain(opened.name)}**")
    with st.container(horizontal=True):
        _whole(found, *names)
        _position(found)
        if wanted.paradigm is None:
            _lengths(found)
        else:
            _paradigm(opened, wanted, second)


def _whole(found: PairAttribution, first: str, second: str) -> None:
    ratio = math.exp(min(abs(found.difference), 700))
    st.metric(
        "Whole sentences",
        f"{markup.number(found.difference)} nats",
        help=f"log p({first}) − log p({second}), summed over all tokens: BLiMP's own criterion. "
        "Under it, how many times as probable the preferred sentence is.",
        delta=f"× {ratio:,.3g} in probability" if ratio < 1e6 else f"× {ratio:.0e} in probability",
        **CARD,
    )


def _position(found: PairAttribution) -> None:
    if found.same_context:
        why = (
            "Both tokens are predicted from the same context: the normaliser cancels, and this is exactly "
            "the difference of their logits."
        )
    else:
        why = "The two are predicted from different contexts: a difference of log-probabilities."
    st.metric(
        markup.plain(explain.contrast(found)),
        f"{markup.number(found.difference_at_place)} nats",
        help=f"The difference at the position where the sentences first differ. {why}",
        delta="same context" if found.same_context else "different contexts",
        **CARD,
    )
    share = "–" if found.share is None else f"{100 * found.share:,.0f} %".replace("-", "−")
    st.metric(
        "Carried by that position",
        share,
        help="Share of the whole difference. Over 100 % or below 0 %: the later tokens pull the other way.",
        delta="of the whole difference",
        **CARD,
    )


def _paradigm(opened: Opened, wanted: Wanted, second: bool) -> None:
    """How the model fares on all pairs of the paradigm; of model B from its saved result, if there is one."""
    mean = beside.of_paradigm(opened, wanted, second)
    if mean is None:
        return
    st.metric(
        "Whole paradigm",
        f"{mean.accuracy:.1%} right",
        help=f"{mean.n:,} pairs of this paradigm, {mean.ties} ties, with the 95 % interval about drawing "
        "other pairs. One pair is an anecdote; this is the aggregate beside it.",
        delta=f"{mean.low:.1%} – {mean.high:.1%}, n = {mean.n:,}",
        **CARD,
    )


def _lengths(found: PairAttribution) -> None:
    st.metric(
        "Tokens",
        f"{len(found.good.ids)} and {len(found.bad.ids)}",
        help="Scored tokens of the two sentences. The longer one is less probable for its length alone.",
        delta="scored tokens",
        **CARD,
    )

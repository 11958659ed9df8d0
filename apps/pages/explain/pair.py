"""Explain a pair: which sentence the model prefers, by how much, at which token, and through what."""

import math
from typing import Any

import streamlit as st

from apps.answers import explain
from apps.answers.catalogue import Opened
from apps.frame.frame import Wanted
from apps.look import markup
from apps.look.palette import Palette
from apps.pages.explain import components
from workbench.interp.direct.pair import PairAttribution

CARD: Any = {"border": True, "delta_color": "off", "delta_arrow": "off"}
"""A figure in a box, `delta` as a small grey remark under it."""

EXPLANATION = (
    "Direct contributions: what each component writes for the readout, with the norms on its way there "
    "frozen at their values in this run; only so are they linear, and sum exactly. They leave out what a "
    "component does through later ones."
)


def show(opened: Opened, wanted: Wanted, palette: Palette) -> None:
    """Draw the verdict, the sentences, the figures and the components."""
    found = explain.explain_pair(opened, wanted.good, wanted.bad, wanted.protocol, wanted.pll)
    first, second = explain.OWN if wanted.paradigm is None else explain.MINIMAL
    wrong = "wrong" if wanted.paradigm is not None else second
    st.html(markup.verdict(opened.name, found.difference, f"the {wrong} sentence", f"the {first} sentence"))
    st.html(markup.where([*wanted.origin, f"checkpoint {opened.run.step:,}"]))
    st.html(markup.pair(explain.columns(found), palette, first, second))
    colours = [(palette.good, f"speaks for the {first} sentence"), (palette.bad, f"for the {second} one")]
    note = "Small: log-probability of the token in nats. Framed: where the sentences first differ."
    st.html(markup.key(colours, note))
    with st.container(horizontal=True):
        _whole(found, first, second)
        _position(found)
        if wanted.paradigm is not None:
            _paradigm(wanted)
        else:
            _lengths(found)
    key = f"{opened.key}|{wanted.protocol}|{wanted.good}|{wanted.bad}"
    subject = explain.pair_subject(found, key, (first, second))
    components.show(opened, subject, palette, EXPLANATION)


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


def _paradigm(wanted: Wanted) -> None:
    assert wanted.paradigm is not None
    mean = wanted.paradigm.overall.micro
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

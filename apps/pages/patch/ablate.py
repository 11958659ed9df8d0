"""Ablate: switches, and what the model says of the pair without what is off."""

from typing import TYPE_CHECKING

import streamlit as st

from apps.answers import ablate, explain
from apps.answers.ablate import Said
from apps.answers.beside import of_paradigm
from apps.answers.catalogue import Opened
from apps.answers.explain import MINIMAL, OWN
from apps.answers.wanted import Wanted
from apps.frame import address
from apps.frame.downloads import downloads
from apps.frame.frame import Frame
from apps.frame.told import told
from apps.look import markup
from apps.look.changes import Changed, changes
from apps.look.palette import Palette
from apps.look.tokens import visible
from apps.pages.explain.pair import CARD
from apps.pages.patch import paradigm, switches
from workbench.stats import Accuracy

if TYPE_CHECKING:
    import pandas as pd


def show(frame: Frame) -> None:
    """Draw the switches, the figures, the tokens, and the run on the paradigm."""
    assert frame.wanted is not None
    wanted, opened = frame.wanted, frame.opened
    names = OWN if wanted.paradigm is None else MINIMAL
    verdict = st.container()
    found = explain.explain_pair(opened, wanted.good, wanted.bad, wanted.protocol, wanted.pll)
    key = f"{opened.key}|{wanted.protocol}|{wanted.good}|{wanted.bad}"
    subject = explain.pair_subject(found, key, names)
    off, chart, table = switches.choose(opened, subject, frame.palette)
    left, middle, right = st.columns([5, 2, 2], vertical_alignment="bottom")
    with left:
        how = choose_how()
    middle.button("Restore all", on_click=switches.everything_on, disabled=not off, width="stretch")
    with right:
        downloads(f"{opened.name}-switches", table, chart)
    st.caption(markup.plain(ablate.meaning(how, opened)))
    with verdict, told():
        _verdict(opened, wanted, _say(opened, wanted, off, how), off, names)
    with told():
        _change(opened, wanted, off, how, names, frame.palette)
    if frame.beside is not None:
        with told():
            _beside(frame.beside, wanted, off, how, names, frame.palette)
    with told():
        paradigm.show(frame, off, how)


def without(off: tuple[str, ...], most: int = 6) -> str:
    """The parts in words."""
    more = f" and {len(off) - most} more" if len(off) > most else ""
    return ", ".join(off[:most]) + more


def choose_how() -> str:
    """Choose what replaces the output of ablated components."""
    return address.one_of(
        "how",
        "Replaced by",
        ablate.HOWS,
        shown=True,
        help="Zeros; the mean over embedded stories; or what was written in another of these stories.",
    )


def _say(opened: Opened, wanted: Wanted, off: tuple[str, ...], how: str) -> Said:
    return ablate.say(opened, wanted.good, wanted.bad, wanted.protocol, wanted.pll, off, how)


def _verdict(opened: Opened, wanted: Wanted, now: Said, off: tuple[str, ...], names: tuple[str, str]) -> None:
    wrong = "wrong" if wanted.paradigm is not None else names[1]
    name = f"{opened.name} without {without(off)}" if off else opened.name
    st.html(markup.verdict(name, now.difference, f"the {wrong} sentence", f"the {names[0]} sentence"))
    st.html(markup.where([*wanted.origin, f"checkpoint {opened.run.step:,}"]))


def _change(
    opened: Opened,
    wanted: Wanted,
    off: tuple[str, ...],
    how: str,
    names: tuple[str, str],
    palette: Palette,
    other: bool = False,
) -> None:
    """One model with and without the parts: figures, and tokens."""
    before, now = _say(opened, wanted, (), how), _say(opened, wanted, off, how)
    _figures(of_paradigm(opened, wanted, other), before, now)
    first, second = names
    if not off:
        st.info("Nothing is ablated. Click cells of the map: figures and tokens follow at once.")
    else:
        good, bad = (
            Changed(was.ids, was.tokens, was.log_probs.tolist(), new.log_probs.tolist())
            for was, new in ((before.good, now.good), (before.bad, now.bad))
        )
        st.html(changes(good, bad, now.place, palette, first, second))
        ends = [(palette.good, f"favours the {first} sentence"), (palette.bad, f"favours the {second} one")]
        note = "Small: effect on the token's log-probability, nats. Framed: where the sentences first differ."
        st.html(markup.key(ends, note))
    downloads(f"{opened.name}-tokens", _table(before, now, names).assign(off=", ".join(off), how=how))


def _figures(mean: Accuracy | None, before: Said, now: Said) -> None:
    """`mean`: how the model fares on all pairs of the paradigm."""
    with st.container(horizontal=True):
        st.metric(
            "Whole model",
            f"{markup.number(before.difference)} nats",
            help="log p of the first sentence minus log p of the second, summed over tokens.",
            delta="whole sentences",
            **CARD,
        )
        st.metric(
            "Ablated",
            f"{markup.number(now.difference)} nats",
            help="The same with the chosen components ablated.",
            delta=_turn(before.difference, now.difference),
            **CARD,
        )
        st.metric(
            "Effect",
            f"{markup.number(before.difference - now.difference)} nats",
            help="Whole model minus ablated: positive if the components favour the first sentence, as a "
            "positive contribution does.",
            delta=f"at the first difference {markup.number(before.at_place - now.at_place)}",
            **CARD,
        )
        if mean is not None:
            st.metric(
                "Whole paradigm, whole model",
                f"{mean.accuracy:.1%} right",
                help=f"{mean.n:,} pairs, 95 % interval about drawing other pairs. One pair is an anecdote: "
                "run the ablation on the paradigm below.",
                delta=f"{mean.low:.1%} – {mean.high:.1%}, n = {mean.n:,}",
                **CARD,
            )


def _turn(before: float, now: float) -> str:
    if before * now < 0:
        return "the decision flips"
    return "the decision stays"


def _table(before: Said, now: Said, names: tuple[str, str]) -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for name, was, new in ((names[0], before.good, now.good), (names[1], before.bad, now.bad)):
        for place, (token, one, other) in enumerate(
            zip(was.tokens, was.log_probs, new.log_probs, strict=True)
        ):
            rows.append((name, place, visible(token), float(one), float(other), float(other - one)))
    return pd.DataFrame(rows, columns=["sentence", "position", "token", "before", "now", "change"])


def _beside(
    beside: Opened, wanted: Wanted, off: tuple[str, ...], how: str, names: tuple[str, str], palette: Palette
) -> None:
    """The same for model B, as far as it has the parts."""
    mine, lacking = ablate.known(beside.model.config, off)
    st.subheader(f"{markup.plain(beside.name)} without the same", anchor=False)
    if lacking:
        gone = [label for label in off if label not in mine]
        st.caption(markup.plain(f"{beside.name} has no {without(tuple(gone))}; that stays as it is."))
    _change(beside, wanted, mine, how, names, palette, other=True)

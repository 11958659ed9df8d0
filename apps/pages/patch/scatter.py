"""Direct contribution against ablation effect, of every head and MLP."""

import hashlib

import pandas as pd
import streamlit as st

from apps.answers import ablate, effects
from apps.answers import paradigm_ablation as paradigms
from apps.answers.catalogue import Opened
from apps.answers.effects import Effects
from apps.answers.wanted import Wanted
from apps.charts.effects import effects as effects_chart
from apps.frame import address
from apps.frame.downloads import downloads
from apps.frame.drawn import drawn
from apps.frame.frame import Frame
from apps.frame.told import fragment, told
from apps.look import markup
from apps.look.palette import Palette
from apps.pages.explain.side import pick
from apps.pages.patch.ablate import choose_how
from apps.pages.patch.patching import explain_heads, link_to_head
from apps.pages.patch.work import controls, go_on, work

OVERHEAD = 0.35
"""Of a pass, what one ablated component takes: common work is done once, and earlier layers are not run."""
PIECES = 12
"""At most so many of a paradigm: each begins with reading stories."""


def show(frame: Frame) -> None:
    """Draw the pair's scatter, and the paradigm's beside it."""
    wanted, opened = frame.wanted, frame.opened
    assert wanted is not None
    how = choose_how()
    st.caption(markup.plain(ablate.meaning(how, opened)))
    st.caption(
        "Across: what a component writes for the readout itself. Up: the difference that is lost when it "
        "alone is taken out, through later layers too. On the dashed line a component does all it does "
        "directly; far from it, it works through others, or others make up for it."
    )
    _pair(opened, wanted, how, frame.palette)
    if wanted.paradigm is not None:
        with told():
            _paradigm(opened, wanted, how, frame.palette)


@fragment
def _pair(opened: Opened, wanted: Wanted, how: str, palette: Palette) -> None:
    st.subheader("On this pair", anchor=False)
    found = effects.pair_effects(opened, wanted.good, wanted.bad, wanted.protocol, wanted.pll, how)
    about = f"{opened.key}|{wanted.protocol}|{wanted.good}|{wanted.bad}|{how}"
    _draw(opened, found, about, palette, "pair", 1)


@fragment
def _paradigm(opened: Opened, wanted: Wanted, how: str, palette: Palette) -> None:
    st.subheader("On the whole paradigm", anchor=False)
    pairs = paradigms.pairs_of(wanted)
    parts = len(ablate.switches(opened.model.config))
    once = paradigms.seconds_a_pair(opened, pairs, "zero", wanted.protocol, wanted.pll) / 2
    draws = 4 if how == "resample" else 1
    rate = once * (2 + OVERHEAD * parts * draws)
    place = wanted.source.key if wanted.source is not None else ""
    about = "|".join(["scatter", opened.key, how, place, str(wanted.uid), wanted.protocol, wanted.pll])
    mine = work(about, len(pairs), "scatter")
    controls(mine, "Run on the paradigm", rate, "pairs", "scatter")
    if mine.pieces:
        if not mine.finished:
            st.caption(f"So far {mine.done:,} of {mine.total:,} pairs, in the order of their numbers.")
        _draw(opened, effects.together(mine.pieces), about, palette, "paradigm", mine.done)

    def step(first: int, last: int) -> Effects:
        return effects.measure(opened, pairs[first:last], wanted.protocol, wanted.pll, how)

    go_on(mine, rate, step, fewest=max(1, len(pairs) // PIECES))


def _draw(opened: Opened, found: Effects, about: str, palette: Palette, name: str, pairs: int) -> None:
    rows = found.rows()
    agree = effects.agreement(found)
    heads = explain_heads(opened)
    picked = st.session_state.get("head")
    key = f"scatter-{name}-" + hashlib.sha256(f"{about}|{palette.name}".encode()).hexdigest()[:12]

    def clicked() -> None:
        points = st.session_state[key]["selection"].get("point", [])
        label = points[0].get("component") if points else None
        if label in heads:
            st.session_state["head"] = label
            pick()
            address.write(head=label)
        elif label is not None:
            st.toast(f"{label}: an MLP has no attention to look at. Choose a head.")

    st.markdown(
        f"Pearson {_two(agree.pearson)}, Spearman {_two(agree.spearman)} over n = {agree.n} components, "
        f"{'one pair' if pairs == 1 else f'means over {pairs:,} pairs'}."
    )
    count = "" if pairs == 1 else f", mean over {pairs:,} pairs"
    chart = effects_chart(
        rows, palette, picked, f"direct contribution, nats{count}", f"lost when ablated, nats{count}"
    )
    drawn(chart, key, clicked, "point", "Direct contribution against ablation effect of heads and MLPs")
    downloads(f"{opened.name}-contribution-ablation-{name}", pd.DataFrame(rows), chart)
    if name == "pair" and heads:
        link_to_head(picked if picked in heads else None)


def _two(value: float) -> str:
    return "not defined" if value != value else markup.number(value)

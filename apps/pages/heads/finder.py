"""All heads at a glance, coloured by a score; a click opens one below and reruns only this part."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st

from apps.answers import heads, paradigm_effects
from apps.answers.catalogue import Opened
from apps.answers.wanted import Wanted
from apps.charts.head_map import head_map
from apps.frame import address, waiting
from apps.frame.downloads import downloads
from apps.frame.drawn import drawn
from apps.frame.frame import Frame
from apps.frame.told import fragment, told
from apps.look import markup
from apps.pages.explain import attention
from apps.pages.explain.side import PICKED, pick
from apps.pages.heads import head

if TYPE_CHECKING:
    from apps.look.palette import Palette

NOT_OF_STORIES = (*heads.OF_PAIR, *heads.OF_PHENOMENON)
LEAST = 0.25
"""Attention of the darkest colour, at least: a map of nothing must look like nothing."""
STOPPED = "head scores stopped"


def show(frame: Frame) -> None:
    """Draw the finder and the head's page, or say why there is none."""
    if not heads.head_labels(frame.opened.model.config):
        attention.none()
        return
    _finder(frame)


@fragment
def _finder(frame: Frame) -> None:
    opened, palette = frame.opened, frame.palette
    labels = heads.head_labels(opened.model.config)
    stories = _stories()
    known = _scores(opened, stories)
    if known is not None and (found := heads.finding(known)):
        st.markdown(markup.plain(found))
    options = _options(known, frame.wanted, opened)
    title, choose = st.columns([3, 2], vertical_alignment="center")
    title.subheader("Head finder", anchor=False)
    address.choice("score", options, options[0])
    score = choose.selectbox(
        "Score",
        options,
        key="score",
        format_func=lambda name: heads.SCORES[name].title,
        help="What the heads are coloured by. The first ones are of the chosen pair, the others those of "
        "`workbench heads`.",
    )
    address.write(score=None if score == options[0] else score)
    values = _values(frame, known, score)
    _preselect(labels, values)
    called = heads.classes(known) if known is not None else {}
    left, right = st.columns([3, 2], gap="large")
    with left:
        _map(opened, score, values, called, palette)
        st.caption(_meaning(known, score, frame.wanted, opened))
    with right:
        _ranking(score, values, called, known)
    if known is None:
        with told():
            _wait(opened, stories)
    else:
        _table(opened, known, values, score, stories)
    chosen = st.selectbox(
        "Head",
        labels,
        key="head",
        on_change=pick,
        help="The strongest of the chosen score is chosen first; a click on the map chooses another.",
        width=150,
    )
    address.write(head=chosen if st.session_state.get(PICKED) else None)
    head.show(frame, chosen, known, heads.whole_scores(opened, stories))


def _stories() -> int:
    address.choice("scored", list(heads.STORIES), heads.STORIES[0])
    chosen = int(st.session_state["scored"])
    address.write(scored=None if chosen == heads.STORIES[0] else chosen)
    return chosen


def _scores(opened: Opened, stories: int) -> "pd.DataFrame | None":
    """The scores if they are there; else they are begun, unless the reader ended that."""
    known = heads.known_scores(opened, stories)
    if known is None and st.session_state.get(STOPPED) != (opened.key, stories):
        heads.begin_scores(opened, stories)
    return known


def _wait(opened: Opened, stories: int) -> None:
    if st.session_state.get(STOPPED) == (opened.key, stories):
        st.button("Score the heads", on_click=lambda: st.session_state.pop(STOPPED, None))
        return

    def cancel() -> None:
        heads.cancel_scores(opened, stories)
        st.session_state[STOPPED] = (opened.key, stories)

    what = f"Scoring the heads on {stories} stories, repeated random tokens and an untrained copy"
    if waiting.waited(heads.begin_scores(opened, stories), what, cancel, "cancel-scores"):
        st.rerun(scope="app")
    st.caption("It is done once for this checkpoint while the explorer runs.")


def _options(known: "pd.DataFrame | None", wanted: Wanted | None, opened: Opened) -> list[str]:
    """The pair's, as far as there is one, then the scores that are there."""
    there = [] if wanted is None else ["pair", "off"]
    if wanted is not None and wanted.source is not None and wanted.uid is not None:
        there.append("paradigm")
    there += [name for name in heads.OF_PHENOMENON if heads.phenomenon_rows(opened, wanted, name) is not None]
    found = [] if known is None else list(dict.fromkeys(known.score))
    asked = st.query_params.get("score")
    if known is None and asked in heads.SCORES and asked not in NOT_OF_STORIES:
        found = [asked]  # it is being measured; the address keeps it
    return [name for name in [*there, *found] if name in heads.SCORES] or ["copying"]


def _values(frame: Frame, known: "pd.DataFrame | None", score: str) -> dict[str, float]:
    if score in NOT_OF_STORIES:
        assert frame.wanted is not None
        with st.spinner(f"{heads.SCORES[score].title} …", show_time=True):
            return heads.effects(frame.opened, frame.wanted, score)
    if known is None:
        return heads.copying(frame.opened) if score == "copying" else {}
    return heads.score_values(known, score)


def _preselect(labels: list[str], values: dict[str, float]) -> None:
    """The strongest head, until the reader picks one (or the address or another page names one)."""
    state = st.session_state
    if "head" not in state and st.query_params.get("head") in labels:
        state["head"] = st.query_params["head"]
        state[PICKED] = True
    if not state.get(PICKED) or state.get("head") not in labels:
        strong = {name: abs(value) for name, value in values.items() if value == value}
        state["head"] = max(strong, key=lambda name: strong[name]) if strong else labels[0]
        state[PICKED] = False


def _map(
    opened: Opened, score: str, values: dict[str, float], called: dict[str, str], palette: "Palette"
) -> None:
    config = opened.model.config
    rows = [
        {
            "layer": f"L{part.layer}", "head": part.unit, "component": label,
            "value": values.get(label, float("nan")), "kind": called.get(label, "–"),
        }
        for label in heads.head_labels(config)
        for part in [heads.part_of(config, label)]
    ]  # fmt: skip
    signed = heads.SCORES[score].signed
    present = [abs(row["value"]) for row in rows if row["value"] == row["value"]]
    largest = max(present, default=1.0)
    limit = 1.0 if score == "copying" else largest if signed else max(largest, LEAST)
    digest = hashlib.sha256(f"{opened.key}|{score}|{bool(present)}|{palette.name}".encode()).hexdigest()[:12]
    key = f"heads-{digest}"

    def picked() -> None:
        cells = st.session_state[key]["selection"].get("cell", [])
        label = cells[0].get("component") if cells else None
        if label is not None:
            st.session_state["head"] = label
            pick()

    chart = head_map(rows, palette, st.session_state["head"], limit, signed)
    drawn(chart, key, picked, "cell", f"{heads.SCORES[score].title} of each head, layer by head")
    unit = heads.SCORES[score].unit
    if signed:
        ends = [
            (palette.diverging[-1], f"+{limit:.2f} {unit}"),
            (palette.diverging[0], f"−{limit:.2f} {unit}"),
        ]
    else:
        ends = [(palette.amount(0.0), "0"), (palette.amount(1.0), f"{limit:.2f}")]
    st.html(markup.key(ends, "Click a head."))
    downloads(f"{opened.name}-heads-{score}", pd.DataFrame(rows), chart)


def _meaning(known: "pd.DataFrame | None", score: str, wanted: Wanted | None, opened: Opened) -> str:
    """The score in words, with what uniform attention and an untrained copy give."""
    words = heads.SCORES[score].meaning
    if score == "paradigm" and wanted is not None and wanted.source is not None and wanted.uid is not None:
        frame = paradigm_effects.paradigm_frame(opened, wanted.source, wanted.uid)
        return markup.plain(f"{words} {wanted.uid}, n = {int(frame.n.max()):,} pairs.")
    if score in heads.OF_PHENOMENON:
        rows = heads.phenomenon_rows(opened, wanted, score)
        assert rows is not None
        count = rows.paradigm.nunique()
        return markup.plain(
            f"{words} {rows.phenomenon.iloc[0]}: {count} paradigms, {int(rows.n.max())} pairs of each."
        )
    if known is None or score in heads.OF_PAIR:
        return markup.plain(words)
    mine = known[known.score == score]
    told = []
    if mine.uniform.notna().any():
        low, high = mine.uniform.min(), mine.uniform.max()
        span = f"{low:.3f}" if np.isclose(low, high, atol=5e-4) else f"{low:.3f} to {high:.3f} by layer"
        told.append(f"Uniform attention would give {span}.")
    if score == "copying":
        told.append(f"An untrained copy's heads reach {mine.untrained.max():+.2f}.")
    elif mine.untrained_high.notna().any():
        told.append(f"An untrained copy's heads reach {mine.untrained_high.max():.3f}.")
    if mine.queries.notna().any():
        told.append(f"n = {int(mine.queries.max()):,} queries.")
    return markup.plain(" ".join([words, *told]))


def _ranking(
    score: str, values: dict[str, float], called: dict[str, str], known: "pd.DataFrame | None"
) -> None:
    """The strongest heads in words."""
    order = sorted(
        (name for name in values if values[name] == values[name]), key=lambda name: -abs(values[name])
    )
    rows = []
    for name in order[:6]:
        kind = called.get(name)
        rows.append(
            (name, values[name], f"{kind} head" if kind and kind != "other" else "no class" if kind else "")
        )
    if rows:
        signed = heads.SCORES[score].signed
        st.html(markup.ranking(rows) if signed else markup.amounts(rows))
    if called:
        counts = pd.Series([kind for kinds in called.values() for kind in kinds.split(", ")]).value_counts()
        st.caption(
            "Classes: " + ", ".join(f"{count} {markup.plain(kind)}" for kind, count in counts.items()) + ".",
            help="A head has the class of every score that exceeds both uniform attention and the upper end "
            "of an untrained copy's interval by at least 0.1 of the possible excess; the clearest comes "
            "first. Without any it is other.",
        )


def _table(opened: Opened, known: "pd.DataFrame", values: dict[str, float], score: str, stories: int) -> None:
    with st.expander(f"All scores of all {len(known.drop_duplicates(['layer', 'head']))} heads as a table"):
        wide = known.assign(head=[f"L{a}H{b}" for a, b in zip(known.layer, known["head"], strict=True)])
        names = list(dict.fromkeys(known.score))
        shown = wide.pivot(index=["head", "class"], columns="score", values="value").reset_index()[
            ["head", "class", *names]
        ]
        columns = {
            name: st.column_config.NumberColumn(
                heads.SCORES[name].title, format="%.3f", help=heads.SCORES[name].meaning
            )
            for name in names
            if name in heads.SCORES
        }
        st.dataframe(
            shown, hide_index=True, column_config=columns, height=min(35 * (len(shown) + 1) + 3, 420)
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            downloads(f"{opened.name}-head-scores", known)
            _more(opened, stories)


def _more(opened: Opened, stories: int) -> None:
    """A button for tighter intervals, with how long it takes by the rate so far."""
    more = heads.STORIES[-1]
    if stories == more or heads.summary(opened) is not None:
        return
    seconds = heads.seconds_of(opened, stories)
    told = "" if seconds is None else f" (about {max(1, round(seconds * more / stories))} s)"

    def ask() -> None:
        st.session_state["scored"] = more

    st.button(f"Read {more} stories{told}", on_click=ask, help=f"Scores so far are of {stories}.")

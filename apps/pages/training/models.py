"""Model A beside model B: facts, component maps by relative depth, ranked shares, matched heads."""

from typing import Any

import pandas as pd
import streamlit as st

from apps.answers import catalogue, comparison
from apps.answers.catalogue import Opened
from apps.answers.comparison import Parts
from apps.answers.wanted import Wanted
from apps.charts.cumulative import cumulative
from apps.charts.depth_map import depth_map
from apps.frame import journey
from apps.frame.downloads import downloads
from apps.frame.frame import Frame
from apps.frame.told import fragment, told
from apps.look import markup
from apps.look.palette import Palette
from apps.pages.training import matched, over


def show(frame: Frame) -> None:
    """Draw both models, or say how to choose the second one."""
    if frame.beside is None:
        _choose(frame)
        return
    names = comparison.names(frame.opened, frame.beside)
    st.html(markup.headline(f"{names[0]} beside {names[1]}"))
    with told():
        _facts(frame.opened, frame.beside, names)
    with told():
        components(frame.opened, frame.beside, names, frame.wanted, frame.palette)
    with told():
        matched.show(frame.opened, frame.beside, names, frame.wanted, frame.text, frame.palette)


def _choose(frame: Frame) -> None:
    st.html(markup.headline("Choose a second model"))
    runs = catalogue.find_runs(frame.asked.root, frame.asked.family)
    others = [name for name, path in runs.items() if path != frame.opened.run.path]
    if not others:
        st.markdown(
            "There is no second model here. Train one of another shape, and reload this page; without "
            "`--runs` the explorer also shows the family that ships:"
        )
        st.code("workbench train --preset tiny --set model.n_heads=8 --out runs/tiny-8h", language="bash")
        return
    st.markdown(
        "*Compare with* in the sidebar takes any other model, of any shape. Shapes, contributions and heads "
        "then stand side by side. For example:"
    )
    with st.container(horizontal=True):
        for name in _near(frame, others)[:4]:
            st.button(name, key=f"beside-{name}", on_click=journey.go, args=("training",),
                      kwargs={"beside": name, "tview": "models"})  # fmt: skip


def _near(frame: Frame, names: list[str]) -> list[str]:
    """Models to offer: of the same objective first, another size first."""
    known = catalogue.summaries(str(frame.asked.root), tuple(names), frame.asked.family)
    own = frame.opened.model.config

    def rank(name: str) -> tuple[bool, bool]:
        one = known.get(name)
        if one is None or one.parameters is None:
            return True, True
        return one.objective != own.objective, one.parameters == own.n_params

    usable = [name for name in names if (one := known.get(name)) is not None and one.parameters is not None]
    return sorted(usable or names, key=rank)


def _facts(opened: Opened, beside: Opened, names: tuple[str, str]) -> None:
    frame = comparison.fact_rows(opened, beside)
    st.dataframe(
        frame, hide_index=True, column_order=["what", "A", "B", "differs"], height=35 * (len(frame) + 1) + 3,
        column_config={
            "what": st.column_config.TextColumn("", help="Shape, and figures of this checkpoint."),
            "A": st.column_config.TextColumn(
                names[0], help="Loss and bits a byte: validation text. BLiMP: mean over paradigms, with the "
                "95 % interval about drawing other pairs.",
            ),
            "B": st.column_config.TextColumn(names[1], help="Model B at its last checkpoint."),
            "differs": st.column_config.TextColumn("", width=40, help="≠ where the two differ."),
        },
    )  # fmt: skip
    downloads(f"{names[0]}-{names[1]}-facts", frame.rename(columns={"A": names[0], "B": names[1]}))


@fragment
def components(
    opened: Opened, beside: Opened, names: tuple[str, str], wanted: Wanted | None, palette: Palette
) -> None:
    """Both models' contributions to the same pair, or to the mean of its paradigm."""
    st.subheader("Contributions to the difference, by depth", anchor=False)
    if wanted is None:
        st.markdown("Choose *Pair* or *Sentences* in the sidebar: contributions are of two sentences.")
        return
    if over.choose(wanted) == "paradigm":
        assert wanted.source is not None
        assert wanted.uid is not None
        with st.spinner("Attributing the paradigm's pairs …"):
            both = [
                comparison.paradigm_parts(model, name, wanted.source, wanted.uid)
                for model, name in ((opened, names[0]), (beside, names[1]))
            ]
    else:
        asked = (wanted.good, wanted.bad, wanted.protocol, wanted.pll)
        both = [
            comparison.pair_parts(model, name, *asked)
            for model, name in ((opened, names[0]), (beside, names[1]))
        ]
    _subject(wanted, both, beside)
    _maps(both, palette, f"{opened.key}-{beside.key}")
    _ranked(both, palette)


def _subject(wanted: Wanted, both: list[Parts], beside: Opened) -> None:
    """Say what the contributions are of; `other` is model B's share of the paradigm."""
    other = None
    if wanted.source is not None and wanted.uid is not None:
        other = comparison.paradigm_share(beside, wanted.source.key, wanted.uid)
    if both[0].pairs > 1:
        assert wanted.uid is not None
        what = f"{wanted.uid}: mean over {both[0].pairs} pairs"
    else:
        what = f"{wanted.good} / {wanted.bad}"
        if wanted.paradigm is not None:
            mean = wanted.paradigm.overall.micro
            share = f"{mean.accuracy:.1%} ({mean.low:.1%} to {mean.high:.1%}, n = {mean.n:,})"
            what += f" One pair is an anecdote; right in its whole paradigm: {both[0].name} {share}"
            what += f", {both[1].name} {other}." if other else "."
    st.caption(markup.plain(what))


def _maps(both: list[Parts], palette: Palette, key: str) -> None:
    rows = [comparison.depth_rows(parts) for parts in both]
    limit = max((abs(row["nats"]) for each in rows for row in each), default=1.0)
    for place, parts, part, role in zip(st.columns(2, gap="medium"), both, rows, "AB", strict=True):
        with place:
            st.markdown(f"**{markup.plain(parts.name)}**: {markup.number(parts.total)} nats in all")
            if not part:
                st.markdown("This model has neither heads nor MLPs.")
                continue
            chart = depth_map(part, palette, limit)
            _clickable(chart, f"depth-{role}-{key}-{palette.name}-{abs(hash(str(part)))}", role, parts.name)
            downloads(f"{parts.name}-by-depth-{role}", pd.DataFrame(part), chart)
    ends = [(palette.good, "helps the first, grammatical sentence"), (palette.bad, "helps the other")]
    note = (
        f"Direct contributions in nats; both maps to ±{limit:.2f}. Depth 0 is the input, 1 the output: each "
        "block takes up an equal share of its model."
    )
    st.html(markup.key(ends, note))


def _clickable(chart: Any, key: str, role: str, name: str) -> None:
    def picked() -> None:
        cells = st.session_state[key]["selection"].get("cell", [])
        label = cells[0].get("component") if cells else None
        if label and "H" in label and role == "A":
            journey.go("explain", head=label)
        elif label:
            more = (
                "an MLP has no attention." if "H" not in label else "choose it as the model to look into it."
            )
            st.toast(markup.plain(f"{name} {label}: {more}"))

    st.altair_chart(chart, key=key, on_select=picked, selection_mode="cell", alt=f"Contributions of {name}")


def _ranked(both: list[Parts], palette: Palette) -> None:
    st.subheader("How few components carry it", anchor=False)
    frames = [comparison.ranked(parts) for parts in both]
    rows = []
    for parts, frame in zip(both, frames, strict=True):
        half, most = comparison.carriers(frame)
        rows.append({"model": parts.name, "components": len(frame) - 1, "for 50 %": half, "for 90 %": most})
    counts, frame = pd.DataFrame(rows), pd.concat(frames, ignore_index=True)
    left, right = st.columns([3, 2], gap="large", vertical_alignment="center")
    chart = cumulative(frame, palette)
    with left:
        st.altair_chart(chart, alt="Ranked cumulative share of the contributions")
    with right:
        st.dataframe(counts, hide_index=True, column_config={
            "components": st.column_config.NumberColumn(help="Heads and MLPs."),
            "for 50 %": st.column_config.NumberColumn(help="The fewest whose |contributions| make up half."),
            "for 90 %": st.column_config.NumberColumn(help="The fewest that make up nine tenths."),
        })  # fmt: skip
        st.caption(
            "Heads and MLPs by the size of their contribution, whichever sentence they help. A curve that "
            "rises fast: few components carry it."
        )
        downloads(f"{both[0].name}-{both[1].name}-ranked", frame, chart)

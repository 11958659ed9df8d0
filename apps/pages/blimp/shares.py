"""The run's saved results on minimal pairs, by phenomenon."""

import shlex
from typing import TYPE_CHECKING

import streamlit as st

from apps.answers import sources
from apps.answers.catalogue import Opened
from apps.charts.shares import shares
from apps.frame import address
from apps.frame.downloads import downloads
from apps.frame.told import fragment
from apps.look import markup
from apps.look.palette import Palette
from workbench.runs.shipped import shown_name

if TYPE_CHECKING:
    import pandas as pd

LEVELS = {"phenomenon": "Phenomena", "paradigm": "Paradigms"}


@fragment
def show(opened: Opened, palette: Palette) -> None:
    """Draw the table of shares with intervals and the chance line, or say how to get one."""
    st.subheader(
        f"Minimal pairs: how often {markup.plain(opened.name)} prefers the grammatical sentence", anchor=False
    )
    results = sources.saved_results(opened.run.path)
    if not results:
        _empty(opened)
        return
    saved = {each.path.stem: each for each in results}
    here = [name for name, each in saved.items() if each.step == opened.run.step]
    address.choice("result", list(saved), here[0] if here else next(iter(saved)))
    choose, level, _ = st.columns([3, 2, 1], vertical_alignment="bottom")
    name = choose.selectbox(
        "Result", list(saved), key="result", format_func=lambda name: saved[name].label,
        help="Every result in the run's folder, newest first.",
    )  # fmt: skip
    address.choice("level", list(LEVELS), "phenomenon")
    by = level.segmented_control(
        "Rows",
        list(LEVELS),
        key="level",
        format_func=lambda key: LEVELS[key],
        required=True,
        label_visibility="collapsed",
    )
    address.write(level=None if by == "phenomenon" else by)
    if saved[name].step != opened.run.step:
        st.info(
            f"This result is of step {saved[name].step}; the opened checkpoint is step {opened.run.step}."
        )
    result = sources.read_result(saved[name])
    frame = (result.paradigms if by == "paradigm" else result.phenomena).reset_index()
    mean = result.overall.paradigms
    st.markdown(
        f"**{mean.accuracy:.1%}** of pairs decided rightly, mean over {len(result.paradigms)} paradigms "
        f"(95 % interval {mean.low:.1%} to {mean.high:.1%}; "
        f"{mean.n:,} pairs, {mean.ties:,} ties; chance 50 %)."
    )
    if result.source == "embedded":
        st.caption(
            "These pairs are the workbench's own, in the vocabulary of its stories. They are not BLiMP."
        )
    st.altair_chart(shares(frame, by or "phenomenon", palette), alt="Accuracy with 95 % intervals and chance")
    with st.expander("The same as a table"):
        _table(frame, by or "phenomenon", f"{saved[name].path.stem}-{by}")
    st.caption(
        "Intervals are Wilson's, 95 %, about drawing other pairs of the same kind; training again with "
        "another seed moves a small model's overall figure by about a point."
    )


def _table(frame: "pd.DataFrame", by: str, file_name: str) -> None:
    ordered = frame.sort_values("accuracy", ascending=False)
    titles = {"accuracy": "right %", "low": "from", "high": "to"}
    shown = ordered.assign(**{name: 100 * ordered[name] for name in titles})
    columns = {name: st.column_config.NumberColumn(title, format="%.1f") for name, title in titles.items()}
    columns["n"] = st.column_config.NumberColumn("pairs", format="localized")
    st.dataframe(
        shown,
        hide_index=True,
        column_order=[by, *titles, "n", "ties"],
        column_config=columns,
        height=min(35 * (len(frame) + 1) + 3, 460),
    )
    downloads(file_name, ordered)


def _empty(opened: Opened) -> None:
    st.markdown(
        "This run has not been scored yet. The embedded pairs take seconds, and all of BLiMP some minutes:"
    )
    run = shlex.quote(shown_name(opened.run.path))
    st.code(f"workbench blimp {run}\nworkbench blimp {run} --data nyu-mll/blimp", language="bash")
    st.markdown("Then reload this page.")

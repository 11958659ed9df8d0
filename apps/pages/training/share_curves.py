"""Minimal pairs over training, by phenomenon."""

from collections.abc import Hashable

import pandas as pd
import streamlit as st

from apps.answers import checkpoints, history
from apps.answers.catalogue import Opened
from apps.charts.curves import curves
from apps.frame import address
from apps.frame.downloads import downloads
from apps.frame.told import fragment
from apps.look import markup
from apps.look.palette import Palette
from apps.pages.training.pick import curve
from apps.pages.training.stepwise import each
from workbench.runs.zoo import shown_name

COLOURED, MOST = 6, 7


def show(opened: Opened, steps: tuple[int, ...], palette: Palette) -> None:
    """Choose the pairs, score what is missing, if it is wanted, and draw accuracy over checkpoints."""
    st.subheader("Minimal pairs over training", anchor=False)
    path = opened.run.path
    sets = history.known_sets(path)
    saved = {key: history.saved_shares(path, key) for key in sets}
    best = max(sets, key=lambda key: len(saved[key]))
    address.choice("tpairs", list(sets), best)
    left, _ = st.columns([1, 2])
    chosen = left.selectbox(
        "Minimal pairs", list(sets), key="tpairs", format_func=lambda key: sets[key],
        help="Every set that a checkpoint of this run was scored on, and the embedded pairs.",
    )  # fmt: skip
    address.write(tpairs=None if chosen == best else chosen)
    known = saved[chosen]
    if chosen == "embedded":
        keys: dict[int, Hashable] = {step: checkpoints.key_of(opened, step) for step in steps}
        known = each(
            "shares", keys, lambda step: history.score_at(opened, step), "Score the embedded pairs",
            history.scoring_seconds(opened), known,
        )  # fmt: skip
    elif lacking := [step for step in steps if step not in known]:
        run = shown_name(path)
        listed = ", ".join(f"{step:,}" for step in lacking[:6]) + (" …" if len(lacking) > 6 else "")
        st.caption(markup.plain(f"Not scored on {sets[chosen]} yet: {listed}."))
        st.code(f"workbench blimp {run}@{lacking[0]} --data FOLDER", language="bash")
    if not known:
        return
    phenomena(opened, pd.concat(known.values(), ignore_index=True), steps, palette, chosen, sets[chosen])


@fragment
def phenomena(
    opened: Opened, frame: pd.DataFrame, steps: tuple[int, ...], palette: Palette, chosen: str, of: str
) -> None:
    """Choose phenomena and draw them."""
    last = frame[frame.step == frame.step.max()].set_index("phenomenon").accuracy
    names = [name for name in frame.phenomenon.unique() if name != history.ALL]
    start = frame[frame.step == frame.step.min()].set_index("phenomenon").accuracy
    gained = sorted(names, key=lambda name: -abs(float(last.get(name, 0) - start.get(name, 0))))
    first = gained[: COLOURED - 1]
    asked = st.session_state.get("tphen", st.query_params.get("tphen", "").split("|"))
    st.session_state["tphen"] = [name for name in asked if name in names][:MOST] or first
    picked = st.multiselect(
        "In colour", names, key="tphen",
        max_selections=MOST, help="At first those that changed most over training; the others are grey.",
    )  # fmt: skip
    address.write(tphen=None if picked == first else "|".join(picked))
    _draw(opened, frame, [history.ALL, *picked], steps, palette, of)


def _draw(
    opened: Opened, frame: pd.DataFrame, names: list[str], steps: tuple[int, ...], palette: Palette, of: str
) -> None:
    shown = frame.copy()
    shown.loc[~shown.phenomenon.isin(names[:1]), ["low", "high"]] = float("nan")
    chart = curves(
        shown, palette, y="accuracy", title="right", step=opened.run.step, by="phenomenon", names=names,
        form=".1%", level=0.5,
    )  # fmt: skip
    curve(chart, f"shares-{opened.key}-{palette.name}", steps, "Minimal pairs right over training")
    here = frame[(frame.step == opened.run.step) & (frame.phenomenon == history.ALL)]
    words = ""
    if len(here):
        row = here.iloc[0]
        n = f", n = {int(row.n):,}" if pd.notna(row.get("n")) else ""
        words = f"{row.accuracy:.1%} right at step {opened.run.step:,} ({row.low:.1%} to {row.high:.1%}{n}). "
    st.caption(markup.plain(
        f"{words}{of}; the band is the 95 % interval of the mean over drawing other pairs; chance is 50 %."
    ))  # fmt: skip
    downloads(f"{opened.name}-pairs-over-training", frame, chart)

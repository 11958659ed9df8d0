"""What heads look at, over training."""

from collections.abc import Hashable
from typing import cast

import pandas as pd
import streamlit as st

from apps.answers import checkpoints, history
from apps.answers.catalogue import Opened
from apps.answers.matching import heads_of
from apps.charts.curves import curves
from apps.frame import address
from apps.frame.downloads import downloads
from apps.frame.told import fragment
from apps.look import markup
from apps.look.palette import Palette
from apps.pages.training.pick import curve
from apps.pages.training.stepwise import each

COLOURED = 6
WORDS = {
    "previous": "previous token", "next": "next token", "self": "itself", "sink": "the first token",
    "same_word": "the same word", "duplicate": "the same token in a repeated row",
    "induction": "induction: what followed the token last time", "copying": "copying (OV circuit)",
}  # fmt: skip


def show(opened: Opened, steps: tuple[int, ...], palette: Palette) -> None:
    """Measure the heads at each checkpoint, if it is wanted, and draw a score over training."""
    st.subheader("Heads over training", anchor=False)
    if not heads_of(opened):
        st.markdown("This model has no attention, so it has no heads to follow.")
        return
    keys: dict[int, Hashable] = {step: checkpoints.key_of(opened, step) for step in steps}
    found = each(
        "heads", keys, lambda step: history.heads_at(opened, step), "Score all heads",
        history.heads_seconds(opened),
    )  # fmt: skip
    if not found:
        st.caption(
            "Induction, previous token and other scores of each head, on embedded stories and repeated "
            "random tokens."
        )
        return
    chosen_score(opened, pd.concat(found.values(), ignore_index=True), steps, palette)


@fragment
def chosen_score(opened: Opened, frame: pd.DataFrame, steps: tuple[int, ...], palette: Palette) -> None:
    """Choose a score and draw it."""
    scores = [name for name in frame.score.unique() if name in WORDS]
    first = "induction" if "induction" in scores else "previous" if "previous" in scores else scores[0]
    address.choice("tscore", scores, first)
    chosen = st.selectbox(
        "Score", scores, key="tscore", format_func=lambda name: WORDS[name],
        help="Mean attention to what the name says, over the queries for which there is such a token.",
    )  # fmt: skip
    address.write(tscore=None if chosen == first else chosen)
    part = cast("pd.DataFrame", frame[frame.score == chosen])
    _draw(opened, part, str(chosen), steps, palette)


def _draw(opened: Opened, part: pd.DataFrame, score: str, steps: tuple[int, ...], palette: Palette) -> None:
    peak = part.groupby("component").value.max().sort_values(ascending=False)
    names = list(peak.index[:COLOURED])
    uniform = part.uniform.mean() if part.uniform.notna().any() else None
    shown = part.assign(
        low=part.low.where(part.component == names[0]), high=part.high.where(part.component == names[0])
    )
    chart = curves(
        shown, palette, y="value", title="score" if score == "copying" else "mean attention",
        step=opened.run.step, by="component", names=names, form=".3f",
        level=None if uniform is None or pd.isna(uniform) else float(uniform), zero=True,
    )  # fmt: skip
    curve(chart, f"heads-{opened.key}-{score}-{palette.name}", steps, f"{WORDS[score]}: heads over training")
    st.caption(markup.plain(
        f"{WORDS[score]}: the {len(names)} heads that reach most, the others grey; the band is the first's "
        f"95 % interval over {history.STORIES} stories or {history.REPEATS} repeated rows; dashed: equal "
        "attention to all tokens."
    ))  # fmt: skip
    downloads(f"{opened.name}-heads-over-training", part, chart)

"""The likeliest tokens at one place as bars."""

from typing import TYPE_CHECKING, Any

import altair as alt

from apps.charts.axes import BARE, NONE
from apps.look.palette import Palette
from apps.look.tokens import distinct

if TYPE_CHECKING:
    import pandas as pd

ROW = 24
"""Pixels of a bar and the room around it."""


def alternatives(frame: "pd.DataFrame", palette: Palette) -> Any:
    """A bar for each token, the likeliest on top; the written one in another colour.

    Args:
        frame: rank, token, probability, drawn, written; see `apps.answers.generate.Written.alternatives`.
        palette: colours.
    """
    frame = frame.assign(
        name=distinct(list(frame.token)), share=[f"{100 * value:.1f} %" for value in frame.probability]
    )
    y = alt.Y("name:N", sort=list(frame.name), title=None).axis(labelPadding=6, labelLimit=110, **BARE)
    high = max(0.05, float(frame.probability.max())) * 1.22
    x = alt.X("probability:Q", scale=alt.Scale(domain=[0, high], nice=False), axis=None)
    colour = alt.condition(alt.datum.written, alt.value(palette.good), alt.value(palette.sequential[2]))
    tooltip = [
        alt.Tooltip("name:N", title="token"),
        alt.Tooltip("rank:Q", title="rank"),
        alt.Tooltip("probability:Q", title="probability", format=".4f"),
        alt.Tooltip("drawn:Q", title="drawn with", format=".4f"),
    ]
    base = alt.Chart(frame).encode(y=y, x=x, tooltip=tooltip)
    bars = base.mark_bar(cornerRadiusEnd=3, height=ROW - 8).encode(color=colour)
    text = base.mark_text(align="left", dx=5, color=palette.ink, fontSize=12).encode(text="share:N")
    chart = alt.layer(bars, text).properties(height=ROW * len(frame), padding=NONE)
    return chart.configure_view(strokeWidth=0)

"""How few components carry most of an effect: ranked cumulative shares, a curve a model."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import NONE
from apps.charts.series import series
from apps.look.palette import Palette


def cumulative(frame: pd.DataFrame, palette: Palette, levels: Sequence[float] = (0.5, 0.9)) -> Any:
    """Rank against cumulative share of |contribution|.

    Args:
        frame: model, rank (0 at the origin), component, nats, share, cumulative.
        palette: colours.
        levels: shares that get a line.
    """
    names = list(dict.fromkeys(frame.model))
    x = alt.X("rank:Q", title="components, the largest first").axis(tickMinStep=1, grid=False)
    y = alt.Y("cumulative:Q", title="share of all |contributions|", scale=alt.Scale(domain=[0, 1])).axis(
        format=".0%", values=[0, *levels, 1], labelOverlap=False
    )
    colour = alt.Color(
        "model:N", scale=alt.Scale(domain=names, range=series(palette, len(names))),
        legend=alt.Legend(title=None, orient="top", labelLimit=260),
    )  # fmt: skip
    tooltip = [
        alt.Tooltip("model:N"), alt.Tooltip("rank:Q"), alt.Tooltip("component:N"),
        alt.Tooltip("nats:Q", format="+.4f"), alt.Tooltip("share:Q", format=".1%"),
        alt.Tooltip("cumulative:Q", format=".1%"),
    ]  # fmt: skip
    base = alt.Chart(frame).encode(x=x, y=y, color=colour)
    rules = alt.Chart(pd.DataFrame({"cumulative": list(levels)})).mark_rule(
        strokeDash=[4, 3], color=palette.muted
    )
    dots = base.transform_filter("datum.rank > 0").mark_circle(size=40, opacity=1).encode(tooltip=tooltip)
    chart = alt.layer(rules.encode(y=y), base.mark_line(strokeWidth=2), dots)
    return chart.properties(height=300, padding=NONE).configure_view(strokeWidth=0)

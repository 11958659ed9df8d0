"""One head's scores with their intervals, beside uniform attention and an untrained copy."""

from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import BARE, NONE
from apps.look.palette import Palette


def score_intervals(frame: pd.DataFrame, palette: Palette) -> Any:
    """A line for each score.

    Args:
        frame: title, value, low, high, uniform, baseline, excess; shares of attention.
        palette: colours.
    """
    frame = frame.dropna(subset="value").assign(above=lambda rows: rows.excess > 0)
    order = list(frame.title)
    axis = alt.Axis(format=".0%", grid=True, tickCount=5, **BARE)
    scale = alt.Scale(domain=[0, max(0.05, float(frame[["high", "value"]].max().max()))])
    y = alt.Y("title:N", sort=order, title=None).axis(labelLimit=200, labelPadding=8, **BARE)

    def x(field: str) -> Any:
        return alt.X(f"{field}:Q", scale=scale, axis=axis, title="mean attention, with 95 % interval")

    colour = alt.when(alt.datum.above).then(alt.value(palette.good)).otherwise(alt.value(palette.muted))
    tooltip = [
        alt.Tooltip("title:N", title="score"),
        *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "low", "high", "uniform", "baseline")),
    ]
    base = alt.Chart(frame).encode(y=y, tooltip=tooltip)
    tick: dict[str, Any] = {"thickness": 2.5, "size": 16}
    layers = [
        base.mark_tick(color=palette.bad, **tick).encode(x=x("baseline")),
        base.mark_tick(color=palette.line, **tick).encode(x=x("uniform")),
        base.mark_rule(strokeWidth=3, opacity=0.45).encode(x=x("low"), x2="high:Q", color=colour),
        base.mark_circle(size=80, opacity=1).encode(x=x("value"), color=colour),
    ]
    chart = alt.layer(*layers).properties(height=26 * len(frame) + 40, padding=NONE)
    return chart.configure_view(strokeWidth=0)

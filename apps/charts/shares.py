"""Accuracies with their intervals and the line of chance."""

from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import BARE, NONE
from apps.look.palette import Palette


def shares(frame: pd.DataFrame, name: str, palette: Palette, chance: float = 0.5) -> Any:
    """Accuracy with its interval, and the line of chance.

    Args:
        frame: columns `name`, accuracy, low, high, n, ties; shares in [0, 1].
        name: phenomenon or paradigm.
        palette: colours.
        chance: what guessing gives.
    """
    order = list(frame.sort_values("accuracy", ascending=False)[name])
    frame = frame.assign(text=[f"{accuracy:.1%}" for accuracy in frame.accuracy])
    base = alt.Chart(frame).encode(
        y=alt.Y(f"{name}:N", sort=order, title=None).axis(labelLimit=330, labelPadding=8, **BARE),
        tooltip=[
            alt.Tooltip(f"{name}:N"),
            alt.Tooltip("accuracy:Q", title="right", format=".1%"),
            alt.Tooltip("low:Q", title="95 % from", format=".1%"),
            alt.Tooltip("high:Q", title="to", format=".1%"),
            alt.Tooltip("n:Q", title="pairs", format=","),
            alt.Tooltip("ties:Q", title="ties", format=","),
        ],
    )
    axis = alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1], grid=True, **BARE)
    scale = alt.Scale(domain=[0, 1.28], nice=False)
    title = "right, with 95 % interval"

    def x(field: str) -> Any:
        return alt.X(f"{field}:Q", title=title, scale=scale, axis=axis)

    colour = alt.when(alt.datum.accuracy >= chance)
    colour = colour.then(alt.value(palette.good)).otherwise(alt.value(palette.bad))
    edge: Any = alt.value("width")
    guess = alt.Chart(pd.DataFrame({"accuracy": [chance]}))
    layers = [
        guess.mark_rule(strokeDash=[4, 3], color=palette.muted).encode(x=x("accuracy")),
        base.mark_rule(strokeWidth=3, opacity=0.45).encode(x=x("low"), x2="high:Q", color=colour),
        base.mark_circle(size=80, opacity=1).encode(x=x("accuracy"), color=colour),
        base.mark_text(align="right", fontSize=12, color=palette.ink).encode(x=edge, text="text:N"),
    ]
    chart = alt.layer(*layers).properties(height=24 * len(frame) + 40, padding=NONE)
    return chart.configure_view(strokeWidth=0)

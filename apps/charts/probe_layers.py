"""What probes read in each layer: a line a model with its interval, its controls, and plain levels."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import NONE
from apps.charts.series import series
from apps.look.palette import Palette

HEIGHT = 340
DASHES = {"untrained copy": [6, 3], "control task": [2, 2], "shuffled labels": [1, 3]}
"""Controls, and how their lines are dashed."""


def probe_layers(
    frame: pd.DataFrame, levels: pd.DataFrame, palette: Palette, layers: Sequence[str], measure: str
) -> Any:
    """Score against layer.

    Args:
        frame: line, layer (a name), score, low, high, hook, what (a line's kind: `model`, `heads` or one of
            `DASHES`). Heads are points without a line.
        levels: name, score: baselines, drawn as horizontal rules.
        palette: colours.
        layers: names of the layers in their order.
        measure: what a score is.
    """
    form = ".1%" if measure == "accuracy" else ".3f"
    x = alt.X("layer:N", sort=list(layers), title="layer").axis(labelAngle=0, grid=False)
    y = alt.Y("score:Q", title=f"{measure}, test rows", scale=alt.Scale(zero=False)).axis(
        grid=True, format=".0%" if measure == "accuracy" else "~r"
    )
    strong = frame[frame.what.isin(("model", "heads"))]
    names = list(dict.fromkeys(strong.line))
    controls = [name for name in dict.fromkeys(frame.line) if name not in names]
    scale = alt.Scale(
        domain=[*names, *controls], range=[*series(palette, len(names)), *([palette.muted] * len(controls))]
    )
    legend = alt.Legend(title=None, orient="top", columns=3, labelLimit=220)
    colour = alt.Color("line:N", scale=scale, legend=legend)
    tooltip = [
        alt.Tooltip("line:N", title=" "), alt.Tooltip("hook:N"),
        alt.Tooltip("score:Q", title=measure, format=form),
        alt.Tooltip("low:Q", title="95 % from", format=form), alt.Tooltip("high:Q", title="to", format=form),
    ]  # fmt: skip
    parts: list[Any] = []
    if len(levels):
        rule = alt.Chart(levels).mark_rule(color=palette.muted, strokeDash=[4, 4], strokeWidth=1)
        parts.append(rule.encode(y=y, tooltip=[alt.Tooltip("name:N", title=" "), tooltip[2]]))
        words = alt.Chart(levels).mark_text(
            align="right", baseline="bottom", dy=-2, color=palette.muted, fontSize=11
        )
        parts.append(words.encode(y=y, x=alt.value("width"), text="name:N"))
    base = alt.Chart(frame[frame.what == "model"]).encode(x=x)
    parts.append(
        base.mark_area(opacity=0.15).encode(
            y=alt.Y("low:Q"), y2="high:Q", color=alt.Color("line:N", scale=scale)
        )
    )
    for name, dash in DASHES.items():
        one = alt.Chart(frame[frame.what == name]).encode(x=x, y=y, color=colour, tooltip=tooltip)
        parts += [one.mark_line(strokeDash=dash, strokeWidth=1.5), one.mark_circle(size=24, opacity=1)]
    parts.append(base.mark_line(strokeWidth=2.5).encode(y=y, color=colour))
    dots = alt.Chart(strong).encode(x=x, y=y, color=colour, tooltip=tooltip)
    parts.append(dots.mark_circle(size=50, opacity=0.9))
    return alt.layer(*parts).properties(height=HEIGHT, padding=NONE).configure_view(strokeWidth=0)

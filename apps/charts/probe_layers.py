"""What probes read in each layer: a line a model with its interval, its controls, and plain levels."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from apps.charts.axes import NONE
from apps.charts.series import series
from apps.look.palette import Palette

HEIGHT = 340
CLOSE = 0.06
"""Share of the axis within which the names of two levels would stand on each other."""
DASHES = {"untrained copy": [6, 3], "control task": [2, 2], "shuffled labels": [1, 3]}
"""Controls, and how their lines are dashed."""


def named(levels: pd.DataFrame, close: float) -> pd.DataFrame:
    """name, score: levels for their words alone, those that lie close together as one, at the highest."""
    found: list[list[Any]] = []
    rows = levels.sort_values("score", ascending=False)
    for name, score in zip(rows["name"], rows["score"], strict=True):
        if found and found[-1][2] - score < close:
            found[-1][0] += f" · {name}"
            found[-1][2] = score
        else:
            found.append([name, score, score])
    return pd.DataFrame([one[:2] for one in found], columns=["name", "score"])


def probe_layers(
    frame: pd.DataFrame,
    levels: pd.DataFrame,
    palette: Palette,
    layers: Sequence[str],
    measure: str,
    where: str = "",
) -> Any:
    """Score against layer.

    Args:
        frame: line, layer (a name), score, low, high, hook, what (a line's kind: `model`, `heads` or one of
            `DASHES`). Heads are points without a line.
        levels: name, score: baselines, drawn as horizontal rules.
        palette: colours.
        layers: names of the layers in their order.
        measure: what a score is.
        where: what is read in each layer, for the axis.
    """
    form = ".1%" if measure == "accuracy" else ".3f"
    x = alt.X("layer:N", sort=list(layers), title=f"layer ({where})" if where else "layer").axis(
        labelAngle=0, grid=False
    )
    y = alt.Y("score:Q", title=f"{measure}, test rows", scale=alt.Scale(zero=False)).axis(
        grid=True, format=".0%" if measure == "accuracy" else "~r"
    )
    strong = frame[frame.what.isin(("model", "heads"))]
    names = list(dict.fromkeys(strong.line))
    controls = [name for name in dict.fromkeys(frame.line) if name not in names]
    shown = [*names, *controls]
    scale = alt.Scale(domain=shown, range=series(palette, len(shown)))
    legend = alt.Legend(
        title=None, orient="top", columns=2, labelLimit=150, symbolType="circle", symbolOpacity=1
    )
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
        values = pd.concat([frame.score, frame.low, frame.high, levels.score])
        span = float(np.ptp(values.to_numpy(float)))
        words = alt.Chart(named(levels, CLOSE * span)).mark_text(
            align="right", baseline="bottom", dy=-2, color=palette.muted, fontSize=11
        )
        parts.append(words.encode(y=y, x=alt.value("width"), text="name:N"))
    base = alt.Chart(frame[frame.what == "model"]).encode(x=x)
    parts.append(base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q"), y2="high:Q", color=colour))
    for name, dash in DASHES.items():
        one = alt.Chart(frame[frame.what == name]).encode(x=x, y=y, color=colour, tooltip=tooltip)
        parts += [one.mark_line(strokeDash=dash, strokeWidth=1.5), one.mark_circle(size=24, opacity=1)]
    parts.append(base.mark_line(strokeWidth=2.5).encode(y=y, color=colour))
    dots = alt.Chart(strong).encode(x=x, y=y, color=colour, tooltip=tooltip)
    parts.append(dots.mark_circle(size=50, opacity=0.9))
    return alt.layer(*parts).properties(height=HEIGHT, padding=NONE).configure_view(strokeWidth=0)

"""Runs as points over size, compute or tokens; seeds as intervals; the law where there is one."""

from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import NONE
from apps.charts.series import series
from apps.look.palette import Palette


def scaling(
    points: pd.DataFrame, palette: Palette, x: tuple[str, str], y: tuple[str, str],
    seeds: pd.DataFrame | None = None, law: pd.DataFrame | None = None, chance: float | None = None,
) -> Any:  # fmt: skip
    """A labelled point a run, log scale across.

    Args:
        points: run, status, and the columns of `x` and `y`; low and high where `y` has intervals.
        palette: colours.
        x: column and title.
        y: column and title.
        seeds: mean, low, high and the column of `x`.
        law: x, y, low, high.
        chance: a dashed line there.
    """
    blue, orange = series(palette, 2)
    spread = points[x[0]].max() / max(points[x[0]].min(), 1e-300)
    room = [points[x[0]].min() / 1.25, points[x[0]].max() * (1.6 if spread < 50 else 2.5)]
    across = alt.X(f"{x[0]}:Q", title=x[1], scale=alt.Scale(type="log", domain=room, nice=False))
    across = across.axis(format="~s", tickCount=6, grid=False, labelOverlap=True)
    share = y[0] == "blimp"
    down = alt.Y(f"{y[0]}:Q", title=y[1], scale=alt.Scale(zero=False)).axis(format=".0%" if share else "~g")
    form = ".1%" if share else ".4f"
    tooltip = [
        alt.Tooltip("run:N"), alt.Tooltip("status:N"), alt.Tooltip(f"{x[0]}:Q", title=x[1], format=".4~s"),
        alt.Tooltip(f"{y[0]}:Q", title=y[1], format=form),
    ]  # fmt: skip
    layers: list[Any] = []
    if chance is not None:
        rule = alt.Chart(pd.DataFrame({y[0]: [chance]})).mark_rule(strokeDash=[4, 3], color=palette.muted)
        layers.append(rule.encode(y=down))
    if law is not None:
        inside = law[(law.x >= room[0]) & (law.x <= room[1])].rename(columns={"x": x[0], "y": y[0]})
        line = alt.Chart(inside).encode(x=across)
        if inside.low.notna().any():
            band = line.mark_area(opacity=0.12, color=palette.muted, tooltip=False)
            layers.append(band.encode(y=alt.Y("low:Q", title=y[1]), y2="high:Q"))
        layers.append(line.mark_line(color=palette.muted, strokeWidth=2, tooltip=False).encode(y=down))
    if seeds is not None and len(seeds):
        own = alt.Chart(seeds.rename(columns={"mean": y[0]})).encode(x=across)
        over = [
            alt.Tooltip("runs:N"), alt.Tooltip("seeds:Q"), alt.Tooltip(f"{y[0]}:Q", title="mean", format=form),
            alt.Tooltip("low:Q", title="95 % from", format=form), alt.Tooltip("high:Q", title="to", format=form),
        ]  # fmt: skip
        layers.append(
            own.mark_rule(strokeWidth=6, opacity=0.35, color=orange)
            .encode(y=alt.Y("low:Q", title=y[1]), y2="high:Q", tooltip=over)
        )  # fmt: skip
    base = alt.Chart(points).encode(x=across, tooltip=tooltip)
    if share:
        layers.append(base.mark_rule(strokeWidth=1.5, opacity=0.5, color=blue).encode(y="low:Q", y2="high:Q"))
    layers.append(base.mark_circle(size=80, opacity=1, color=blue).encode(y=down))
    label = base.mark_text(
        align="left", dx=8, dy=-7, fontSize=11, color=palette.ink, tooltip=False, limit=160
    )
    layers.append(label.encode(y=down, text="label:N"))
    chart = alt.layer(*layers).properties(height=380, padding=NONE)
    return chart.configure_view(strokeWidth=0)

"""Runs as points over size, compute or tokens; seeds as intervals; the law where there is one."""

from typing import Any, cast

import altair as alt
import numpy as np
import pandas as pd

from apps.charts.axes import NONE
from apps.charts.series import series
from apps.look.palette import Palette

HEIGHT, LINE = 400, 13
"""Pixels: of the figure, and from one label to the next."""
NEAR = 0.14
"""Share of the width within which labels would cover each other."""


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
    places, heights = cast("pd.Series", points[x[0]]), cast("pd.Series", points[y[0]])
    first, last = float(places.min()), float(places.max())
    room = [first / 1.25, last * (1.6 if last / max(first, 1e-300) < 50 else 2.5)]
    across = alt.X(f"{x[0]}:Q", title=x[1], scale=alt.Scale(type="log", domain=room, nice=False))
    across = across.axis(format="~s", tickCount=6, grid=False, labelOverlap=True)
    share = y[0] == "blimp"
    ends = _ends(points, y[0], seeds, chance)
    scale = alt.Scale(domain=ends, nice=False, zero=False)
    down = alt.Y(f"{y[0]}:Q", title=y[1], scale=scale).axis(format=".1~%" if share else "~g")
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
        inside = law[law.x.between(*room) & law.y.between(*ends)]
        inside = inside.assign(low=inside.low.clip(*ends), high=inside.high.clip(*ends))
        inside = inside.rename(columns={"x": x[0], "y": y[0]})
        line = alt.Chart(inside).encode(x=across)
        if inside.low.notna().any():
            band = line.mark_area(opacity=0.12, color=palette.muted, tooltip=False)
            layers.append(band.encode(y=alt.Y("low:Q", title=y[1], scale=scale), y2="high:Q"))
        layers.append(line.mark_line(color=palette.muted, strokeWidth=2, tooltip=False).encode(y=down))
    if seeds is not None and len(seeds):
        own = alt.Chart(seeds.rename(columns={"mean": y[0]})).encode(x=across)
        over = [
            alt.Tooltip("runs:N"), alt.Tooltip("seeds:Q"),
            alt.Tooltip(f"{y[0]}:Q", title="mean", format=form),
            alt.Tooltip("low:Q", title="95 % from", format=form),
            alt.Tooltip("high:Q", title="to", format=form),
        ]  # fmt: skip
        layers.append(
            own.mark_rule(strokeWidth=6, opacity=0.55, color=orange, xOffset=-9)
            .encode(y=alt.Y("low:Q", title=y[1], scale=scale), y2="high:Q", tooltip=over)
        )  # fmt: skip
    base = alt.Chart(points).encode(x=across, tooltip=tooltip)
    if share:
        layers.append(
            base.mark_rule(strokeWidth=1.5, opacity=0.5, color=blue).encode(
                y=alt.Y("low:Q", scale=scale), y2="high:Q"
            )
        )
    layers.append(base.mark_circle(size=80, opacity=1, color=blue).encode(y=down))
    placed = points.assign(at=_spread(places, heights, room, ends))
    label = alt.Chart(placed).encode(x=across, y=alt.Y("at:Q", title=y[1], scale=scale))
    leader = label.mark_rule(color=palette.muted, opacity=0.5, xOffset=9, x2Offset=9, tooltip=False)
    layers.append(leader.encode(y2=f"{y[0]}:Q"))
    label = label.mark_text(align="left", dx=13, fontSize=11, color=palette.ink, tooltip=False, limit=160)
    layers.append(label.encode(text="label:N"))
    chart = alt.layer(*layers).properties(height=HEIGHT, padding=NONE)
    return chart.configure_view(strokeWidth=0)


def _ends(points: pd.DataFrame, y: str, seeds: pd.DataFrame | None, chance: float | None) -> list[float]:
    """Of the vertical axis: everything drawn but the law, with a little room."""
    values = [*points[y]]
    if y == "blimp":
        values += [*points.low, *points.high]
    if seeds is not None:
        values += [*seeds.low, *seeds.high]
    if chance is not None:
        values.append(chance)
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.1
    return [low - room, high + room]


def _spread(x: pd.Series, y: pd.Series, room: list[float], ends: list[float]) -> np.ndarray:
    """Heights of labels, in units of y: at their points, or pushed apart where points stand together."""
    across = np.log(x.to_numpy(float) / room[0]) / np.log(room[1] / room[0])
    unit = (ends[1] - ends[0]) / HEIGHT
    placed = y.to_numpy(float).copy()
    order = np.argsort(placed, kind="stable")
    for _ in range(60):
        moved = False
        for index, one in enumerate(order):
            for other in order[index + 1 :]:
                gap = placed[other] - placed[one]
                if abs(across[one] - across[other]) < NEAR and gap < LINE * unit - 1e-12:
                    placed[other] += (LINE * unit - gap) / 2
                    placed[one] -= (LINE * unit - gap) / 2
                    moved = True
        if not moved:
            break
    return placed.clip(ends[0], ends[1])

"""Something over training: lines with intervals, and a rule at the chosen checkpoint."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import NONE
from apps.charts.series import series
from apps.look.palette import Palette

HEIGHT = 320


def curves(
    frame: pd.DataFrame,
    palette: Palette,
    *,
    y: str,
    title: str,
    step: int,
    by: str = "series",
    names: Sequence[str] | None = None,
    form: str = ".3f",
    level: float | None = None,
    points: bool = True,
    zero: bool = False,
) -> Any:
    """Lines over training steps (log scale from step 1 on, 0 at the left); a click on a point selects its
    step (selection `at`, field `step`).

    Args:
        frame: columns step, `by`, `y`, and low and high if there are intervals.
        palette: colours.
        y: the column drawn.
        title: of the vertical axis, with its unit.
        step: where the rule stands.
        by: column that names the lines.
        names: lines that get a colour, in this order; others are thin and grey.
        form: of numbers in the tooltip.
        level: a dashed line there, such as chance.
        points: draw the points too.
        zero: the vertical axis has 0 on it.
    """
    shown = list(names) if names is not None else list(dict.fromkeys(frame[by]))
    x = alt.X("step:Q", title="update", scale=alt.Scale(type="symlog", constant=1, nice=False)).axis(
        values=_ticks(int(frame.step.max())), format=",d", labelOverlap=True, grid=False
    )
    value = alt.Y(f"{y}:Q", title=title, scale=alt.Scale(zero=zero)).axis(
        grid=True, format=".0%" if form.endswith("%") else "~r"
    )
    colour = alt.Color(
        f"{by}:N", scale=alt.Scale(domain=shown, range=series(palette, len(shown))), legend=_legend(shown)
    )
    tooltip = [
        alt.Tooltip(f"{by}:N", title=" "), alt.Tooltip("step:Q", title="update", format=","),
        alt.Tooltip(f"{y}:Q", title=title, format=form),
    ]  # fmt: skip
    ranged = "low" in frame and bool(frame.low.notna().any())
    if ranged:
        tooltip += [
            alt.Tooltip("low:Q", title="95 % from", format=form),
            alt.Tooltip("high:Q", title="to", format=form),
        ]  # fmt: skip
    named, rest = frame[frame[by].isin(shown)], frame[~frame[by].isin(shown)]
    layers: list[Any] = []
    if level is not None:
        rule = alt.Chart(pd.DataFrame({y: [level]})).mark_rule(strokeDash=[4, 3], color=palette.muted)
        layers.append(rule.encode(y=value))
    mark = alt.Chart(pd.DataFrame({"step": [step]})).mark_rule(
        color=palette.ink, strokeWidth=1.5, opacity=0.7
    )
    layers.append(mark.encode(x=x, tooltip=[alt.Tooltip("step:Q", title="chosen checkpoint", format=",")]))
    if len(rest):
        thin = alt.Chart(rest).mark_line(strokeWidth=1, opacity=0.35, color=palette.muted)
        layers.append(thin.encode(x=x, y=value, detail=f"{by}:N", tooltip=tooltip))
    base = alt.Chart(named).encode(x=x)
    if ranged:
        low = alt.Y("low:Q", title=title, scale=alt.Scale(zero=zero))
        layers.append(base.mark_area(opacity=0.15).encode(y=low, y2="high:Q", color=colour))
    layers.append(base.mark_line(strokeWidth=2).encode(y=value, color=colour, tooltip=tooltip))
    if points:
        dots = base.mark_circle(size=46, opacity=1, cursor="pointer").encode(
            y=value, color=colour, tooltip=tooltip
        )
        at = alt.selection_point(name="at", fields=["step"], on="click", clear=False)
        layers.append(dots.add_params(at))
    chart = alt.layer(*layers).properties(height=HEIGHT, padding=NONE)
    return chart.configure_view(strokeWidth=0)


def _legend(names: Sequence[str]) -> Any:
    if len(names) < 2:
        return None
    return alt.Legend(
        title=None, orient="top", columns=2, labelLimit=150, symbolType="circle", symbolOpacity=1
    )


def _ticks(last: int) -> list[int]:
    """0, 1, 10, 100, … up to the last step."""
    found = [0, 1]
    while found[-1] * 10 <= last:
        found.append(found[-1] * 10)
    return found if last > 1 else [0, 1][: last + 1]

"""Components x paradigms as a heat map; a click selects a cell."""

from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import BARE, layered
from apps.charts.shares import WORDS
from apps.look.palette import Palette

ROW = 24


def component_matrix(
    frame: pd.DataFrame, name: str, palette: Palette, selected: tuple[str, str] | None
) -> Any:
    """Mean effects in symmetric colours; pale where the interval contains 0. A click selects a cell
    (selection `cell`, fields `name` and component).

    Args:
        frame: columns `name`, component, layer, effect, low, high, n, in the order of both axes.
        name: paradigm or phenomenon.
        palette: colours.
        selected: row and component of the framed cell.
    """
    limit = float(frame.effect.abs().max()) or 1.0
    rows, columns = list(dict.fromkeys(frame[name])), list(dict.fromkeys(frame.component))
    frame = frame.assign(sure=(frame.low > 0) | (frame.high < 0))
    y = alt.Y(f"{name}:N", sort=rows, title=None)
    y = y.axis(labelLimit=230, labelPadding=8, labelExpr=WORDS, **BARE)
    x = alt.X("component:N", sort=columns, title=None)
    x = x.axis(orient="top", labelAngle=-50 if len(columns) > 12 else 0, labelOverlap="greedy", **BARE)
    colours = alt.Scale(domain=[-limit, limit], range=list(palette.diverging), interpolate="rgb")
    base = alt.Chart(frame).encode(x=x, y=y)
    cells = base.mark_rect(cornerRadius=3, cursor="pointer").encode(
        color=alt.Color("effect:Q", scale=colours, legend=None),
        opacity=alt.condition("datum.sure", alt.value(1.0), alt.value(0.45)),
        tooltip=[
            alt.Tooltip("component:N"),
            alt.Tooltip(f"{name}:N"),
            alt.Tooltip("effect:Q", title="mean effect, nats", format="+.3f"),
            alt.Tooltip("low:Q", title="95 % from", format="+.3f"),
            alt.Tooltip("high:Q", title="to", format="+.3f"),
            alt.Tooltip("n:Q", title="pairs", format=","),
        ],
    )
    pick = alt.selection_point(name="cell", fields=[name, "component"], on="click", clear=False)
    mine = frame
    if selected is not None:
        mine = frame[(frame[name] == selected[0]) & (frame.component == selected[1])]
    ring = alt.Chart(mine if selected is not None else frame.head(0)).mark_rect(
        cornerRadius=3, filled=False, stroke=palette.ink, strokeWidth=2
    )
    layers = [cells.add_params(pick)]
    if selected is not None and len(mine):
        layers.append(ring.encode(x=x, y=y))
    return layered(*layers, height=ROW * len(rows) + 44)

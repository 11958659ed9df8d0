"""Heads and MLPs as switches: layer by component, a click turns one off or on."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import BARE, NONE
from apps.charts.component_map import CELL, FEWEST
from apps.look.markup import number
from apps.look.palette import Palette

MOST_NAMED = 13
"""Columns that have room for numbers."""


def switch_map(rows: Sequence[dict[str, Any]], off: Sequence[str], palette: Palette) -> Any:
    """Layer x (heads, MLP). Every click on a cell adds it to the selection `switch` (field `component`) or
    takes it out again; a cell is off if it is either in `off` or in the selection. So the picture changes
    with the click, and the chart stays the same while the reader clicks.

    Args:
        rows: layer, column (`H0`, ..., `MLP`), component, what, nats: the colour.
        off: components that are off before any click.
        palette: colours; their limits are symmetric.
    """
    frame = pd.DataFrame(rows)
    limit = float(frame.nats.abs().max()) or 1.0
    columns = sorted(set(frame.column), key=lambda name: (name == "MLP", len(name), name))
    layers = list(dict.fromkeys(frame.layer))
    gap = 0.3 if len(columns) > 1 else 0.0
    left = {name: index + (gap if name == "MLP" else 0.0) for index, name in enumerate(columns)}
    frame["base"] = frame.component.isin(set(off)).astype(int)
    frame["left"] = frame.column.map(left)
    frame["right"] = frame.left + 0.95
    frame["middle"] = frame.left + 0.475
    frame["text"] = [number(value) for value in frame.nats]
    frame["ink"] = [palette.on(palette.between(value / limit)) for value in frame.nats]
    heads = pd.DataFrame({"text": columns, "middle": [left[name] + 0.475 for name in columns], "layer": ""})
    x = alt.Scale(domain=[0, max(len(columns), FEWEST) + 0.25], nice=False)
    bands = alt.Scale(domain=["", *layers], paddingInner=0.1)
    y = alt.Y("layer:N", sort=["", *layers], scale=bands, title=None).axis(labelPadding=6, **BARE)
    middle = alt.X("middle:Q", scale=x, axis=None)
    clicked = {"param": "switch", "empty": False}
    is_off = {
        "or": [
            {"and": [clicked, "datum.base === 0"]},
            {"and": [{"not": clicked}, "datum.base === 1"]},
        ]
    }

    def where_off(yes: float, no: float) -> Any:
        return alt.Opacity(**{"condition": {"test": is_off, "value": yes}, "value": no})  # type: ignore[arg-type]

    tooltip = [
        alt.Tooltip("component:N", title="component"),
        alt.Tooltip("what:N", title="which is"),
        alt.Tooltip("nats:Q", title="direct contribution, nats", format="+.4f"),
    ]
    colours = alt.Scale(domain=[-limit, limit], range=list(palette.diverging), interpolate="rgb")
    base = alt.Chart(frame).encode(y=y, x=alt.X("left:Q", scale=x, axis=None), x2="right:Q")
    cells = base.mark_rect(cornerRadius=4, cursor="pointer").encode(
        color=alt.Color("nats:Q", scale=colours, legend=None), opacity=where_off(0.12, 1.0), tooltip=tooltip
    )
    switch = alt.selection_point(
        name="switch", fields=["component"], on="click", toggle="true", clear=False, empty=False
    )
    frames = base.mark_rect(
        cornerRadius=4, filled=False, stroke=palette.ink, strokeWidth=1.5, strokeDash=[4, 3]
    ).encode(opacity=where_off(1.0, 0.0))
    marks = alt.Chart(frame).mark_text(fontSize=13, fontWeight="bold", color=palette.ink, tooltip=False)
    names = alt.Chart(heads).mark_text(color=palette.muted, fontSize=12, baseline="bottom", dy=12)
    layered = [
        cells.add_params(switch),
        frames,
        marks.encode(y=y, x=middle, text=alt.value("off"), opacity=where_off(1.0, 0.0)),
        names.encode(y=y, x=middle, text="text:N"),
    ]
    if len(columns) <= MOST_NAMED:
        text = alt.Chart(frame).mark_text(fontSize=12.5, tooltip=False)
        layered.append(
            text.encode(
                y=y,
                x=middle,
                text="text:N",
                color=alt.Color("ink:N", scale=None),
                opacity=where_off(0.0, 1.0),
            )
        )
    chart = alt.layer(*layered).properties(height=CELL * (len(layers) + 1), padding=NONE)
    return chart.resolve_scale(color="independent").configure_view(strokeWidth=0)

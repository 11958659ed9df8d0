"""Heads and MLPs as switches: layer by component, a click turns one off or on."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import layered
from apps.charts.cells import cells
from apps.charts.component_map import CELL
from apps.look.grid import by_kind
from apps.look.markup import number
from apps.look.palette import Palette


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
    frame["base"] = frame.component.isin(set(off)).astype(int)
    frame["text"] = [number(value) for value in frame.nats]
    frame["ink"] = [palette.on(palette.between(value / limit)) for value in frame.nats]
    grid = cells(frame, by_kind(frame.column), palette, 0.25)
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
    painted = grid.base.mark_rect(cornerRadius=4, cursor="pointer").encode(
        color=alt.Color("nats:Q", scale=colours, legend=None), opacity=where_off(0.12, 1.0), tooltip=tooltip
    )
    switch = alt.selection_point(
        name="switch", fields=["component"], on="click", toggle="true", clear=False, empty=False
    )
    frames = grid.base.mark_rect(
        cornerRadius=4, filled=False, stroke=palette.ink, strokeWidth=1.5, strokeDash=[4, 3]
    ).encode(opacity=where_off(1.0, 0.0))
    marks = alt.Chart(frame).mark_text(fontSize=13, fontWeight="bold", color=palette.ink, tooltip=False)
    layers = [
        painted.add_params(switch),
        frames,
        marks.encode(**grid.middle, text=alt.value("×"), opacity=where_off(1.0, 0.0)),
        grid.names,
    ]
    if grid.numbers is not None:
        layers.append(grid.numbers.encode(opacity=where_off(0.0, 1.0)))
    return layered(*layers, height=CELL * grid.rows, apart=True)

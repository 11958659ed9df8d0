"""Layer by component, in colours; a click selects one."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import layered
from apps.charts.cells import by_kind, cells
from apps.look.markup import number
from apps.look.palette import Palette

CELL = 36
"""Height of a row of the component map, pixels."""


def component_map(
    rows: Sequence[dict[str, Any]], palette: Palette, selected: str | None, limit: float | None = None
) -> Any:
    """Layer x (heads, MLP) with numbers; a click selects a cell (selection `cell`, field `component`).

    Args:
        rows: layer, column (`H0`, ..., `MLP`), component, what, nats; at most 12 heads have room for numbers.
            A layer without one of the columns has an empty place there.
        palette: colours; their limits are symmetric.
        selected: the component that is framed.
        limit: nats of the strongest colours; the largest number here unless maps are to be compared.
    """
    frame = pd.DataFrame(rows)
    limit = limit or float(frame.nats.abs().max()) or 1.0
    frame["text"] = [number(value) for value in frame.nats]
    frame["ink"] = [palette.on(palette.between(value / limit)) for value in frame.nats]
    grid = cells(frame, by_kind(frame.column), palette, 0.25)
    tooltip = [
        alt.Tooltip("component:N", title="component"),
        alt.Tooltip("what:N", title="which is"),
        alt.Tooltip("nats:Q", title="nats", format="+.4f"),
    ]
    colours = alt.Scale(domain=[-limit, limit], range=list(palette.diverging), interpolate="rgb")
    painted = grid.base.mark_rect(cornerRadius=4, cursor="pointer").encode(
        color=alt.Color("nats:Q", scale=colours, legend=None), tooltip=tooltip
    )
    layers = [
        painted.add_params(alt.selection_point(name="cell", fields=["component"], on="click", clear=False)),
        grid.framed(palette, selected),
        grid.names,
        *([] if grid.numbers is None else [grid.numbers]),
    ]
    return layered(*layers, height=CELL * grid.rows, apart=True)

"""Layer by component, in colours: the figure of the map on the page, to take away."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import layered
from apps.charts.cells import cells
from apps.look.grid import by_kind
from apps.look.markup import number
from apps.look.palette import LIGHT

CELL = 36
"""Height of a row of a component map, pixels."""


def component_map(rows: Sequence[dict[str, Any]], limit: float | None = None) -> Any:
    """Layer x (heads, MLP) with numbers.

    Args:
        rows: layer, column (`H0`, ..., `MLP`), component, what, nats; at most 12 heads have room for numbers.
            A layer without one of the columns has an empty place there.
        limit: nats of the strongest colours, either sign; the largest number here unless maps are to be
            compared.
    """
    frame = pd.DataFrame(rows)
    limit = limit or float(frame.nats.abs().max()) or 1.0
    frame["text"] = [number(value) for value in frame.nats]
    frame["ink"] = [LIGHT.on(LIGHT.between(value / limit)) for value in frame.nats]
    grid = cells(frame, by_kind(frame.column), LIGHT, 0.25)
    colours = alt.Scale(domain=[-limit, limit], range=list(LIGHT.diverging), interpolate="rgb")
    painted = grid.base.mark_rect(cornerRadius=4).encode(
        color=alt.Color("nats:Q", scale=colours, legend=None)
    )
    layers = [painted, grid.names, *([] if grid.numbers is None else [grid.numbers])]
    return layered(*layers, height=CELL * grid.rows, apart=True)

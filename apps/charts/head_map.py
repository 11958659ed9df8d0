"""Layer by head, coloured by any score; a click selects a head."""

from collections.abc import Sequence
from typing import Any, cast

import altair as alt
import pandas as pd

from apps.charts.axes import layered
from apps.charts.cells import cells
from apps.look.markup import number
from apps.look.palette import Palette


def head_map(
    rows: Sequence[dict[str, Any]], palette: Palette, selected: str | None, limit: float, signed: bool
) -> Any:
    """Heads as cells; a click selects one (selection `cell`, field `component`).

    Args:
        rows: layer (`L0`), head (a number), component, value, kind (what the head is called).
        palette: colours; of a signed score their limits are symmetric.
        selected: the head that is framed.
        limit: the value of the strongest colour.
        signed: whether values lie on both sides of 0.
    """
    frame = pd.DataFrame(rows)
    limit = limit or 1.0
    count = int(cast("pd.Series", frame["head"]).max()) + 1
    shares = frame.value / limit
    paint = palette.between if signed else palette.amount
    frame["ink"] = [palette.on(paint(share if share == share else 0.0)) for share in shares]
    frame["text"] = [_written(value, signed) for value in frame.value]
    frame["column"] = [f"H{head}" for head in frame["head"]]
    grid = cells(frame, [f"H{head}" for head in range(count)], palette, 0.0)
    span = list(palette.diverging if signed else palette.sequential)
    colours = alt.Scale(domain=[-limit if signed else 0, limit], range=span, clamp=True, interpolate="rgb")
    tooltip = [
        alt.Tooltip("component:N", title="head"),
        alt.Tooltip("text:N", title="score"),
        alt.Tooltip("kind:N", title="called"),
    ]
    painted = grid.base.mark_rect(cornerRadius=4, cursor="pointer").encode(
        color=alt.Color("value:Q", scale=colours, legend=None), tooltip=tooltip
    )
    layers = [
        painted.add_params(alt.selection_point(name="cell", fields=["component"], on="click", clear=False)),
        grid.framed(palette, selected),
        grid.names,
        *([] if grid.numbers is None else [grid.numbers]),
    ]
    row = 36 if grid.rows <= 9 else 24
    return layered(*layers, height=row * grid.rows, apart=True)


def _written(value: float, signed: bool) -> str:
    if value != value:
        return "–"
    return number(value) if signed else f"{value:.2f}"

"""Layer by component, in colours; a click selects one."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import BARE, layered
from apps.look.markup import number
from apps.look.palette import Palette

CELL = 36
"""Height of a row of the component map, pixels."""
FEWEST = 4
"""Columns that the component map has room for at least, so that one or two do not fill the page."""


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
    columns = sorted(set(frame.column), key=lambda name: (name == "MLP", len(name), name))
    bands = list(dict.fromkeys(frame.layer))
    gap = 0.3 if len(columns) > 1 else 0.0
    left = {name: index + (gap if name == "MLP" else 0.0) for index, name in enumerate(columns)}
    frame["left"] = frame.column.map(left)
    frame["right"] = frame.left + 0.95
    frame["middle"] = frame.left + 0.475
    frame["text"] = [number(value) for value in frame.nats]
    frame["ink"] = [palette.on(palette.between(value / limit)) for value in frame.nats]
    heads = pd.DataFrame({"text": columns, "middle": [left[name] + 0.475 for name in columns], "layer": ""})
    x = alt.Scale(domain=[0, max(len(columns), FEWEST) + 0.25], nice=False)
    rows_of = alt.Scale(domain=["", *bands], paddingInner=0.1)
    y = alt.Y("layer:N", sort=["", *bands], scale=rows_of, title=None).axis(labelPadding=6, **BARE)
    middle = alt.X("middle:Q", scale=x, axis=None)
    tooltip = [
        alt.Tooltip("component:N", title="component"),
        alt.Tooltip("what:N", title="which is"),
        alt.Tooltip("nats:Q", title="nats", format="+.4f"),
    ]
    colours = alt.Scale(domain=[-limit, limit], range=list(palette.diverging), interpolate="rgb")
    base = alt.Chart(frame).encode(y=y, x=alt.X("left:Q", scale=x, axis=None), x2="right:Q")
    cells = base.mark_rect(cornerRadius=4, cursor="pointer").encode(
        color=alt.Color("nats:Q", scale=colours, legend=None), tooltip=tooltip
    )
    ring = base.mark_rect(cornerRadius=4, filled=False, stroke=palette.ink, strokeWidth=2.5)
    names = alt.Chart(heads).mark_text(color=palette.muted, fontSize=12, baseline="bottom", dy=12)
    layers = [
        cells.add_params(alt.selection_point(name="cell", fields=["component"], on="click", clear=False)),
        ring.transform_filter(alt.FieldEqualPredicate(field="component", equal=selected or "")),
        names.encode(y=y, x=middle, text="text:N"),
    ]
    if len(columns) <= 13:
        text = alt.Chart(frame).mark_text(fontSize=12.5, tooltip=False)
        layers.append(text.encode(y=y, x=middle, text="text:N", color=alt.Color("ink:N", scale=None)))
    return layered(*layers, height=CELL * (len(bands) + 1), apart=True)

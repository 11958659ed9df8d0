"""Layer by head, coloured by any score; a click selects a head."""

from collections.abc import Sequence
from typing import Any, cast

import altair as alt
import pandas as pd

from apps.charts.axes import BARE, NONE
from apps.look.markup import number
from apps.look.palette import Palette

FEWEST = 4
"""Columns that there is room for at least."""
MOST_NUMBERS = 13
"""Columns up to which a cell has room for its number."""


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
    layers = list(dict.fromkeys(frame.layer))
    shares = frame.value / limit
    paint = palette.between if signed else palette.amount
    frame["ink"] = [palette.on(paint(share if share == share else 0.0)) for share in shares]
    frame["text"] = [_written(value, signed) for value in frame.value]
    frame["left"], frame["right"] = frame["head"].astype(float), frame["head"] + 0.95
    frame["middle"] = frame["head"] + 0.475
    names = pd.DataFrame(
        {
            "text": [f"H{head}" for head in range(count)],
            "middle": [head + 0.475 for head in range(count)],
            "layer": "",
        }
    )
    x = alt.Scale(domain=[0, max(count, FEWEST)], nice=False)
    bands = alt.Scale(domain=["", *layers], paddingInner=0.1)
    y = alt.Y("layer:N", sort=["", *layers], scale=bands, title=None).axis(labelPadding=6, **BARE)
    middle = alt.X("middle:Q", scale=x, axis=None)
    span = list(palette.diverging if signed else palette.sequential)
    colours = alt.Scale(domain=[-limit if signed else 0, limit], range=span, clamp=True, interpolate="rgb")
    base = alt.Chart(frame).encode(y=y, x=alt.X("left:Q", scale=x, axis=None), x2="right:Q")
    tooltip = [
        alt.Tooltip("component:N", title="head"),
        alt.Tooltip("text:N", title="score"),
        alt.Tooltip("kind:N", title="called"),
    ]
    cells = base.mark_rect(cornerRadius=4, cursor="pointer").encode(
        color=alt.Color("value:Q", scale=colours, legend=None), tooltip=tooltip
    )
    ring = base.mark_rect(cornerRadius=4, filled=False, stroke=palette.ink, strokeWidth=2.5)
    heading = alt.Chart(names).mark_text(color=palette.muted, fontSize=12, baseline="bottom", dy=12)
    layered = [
        cells.add_params(alt.selection_point(name="cell", fields=["component"], on="click", clear=False)),
        ring.transform_filter(alt.FieldEqualPredicate(field="component", equal=selected or "")),
        heading.encode(y=y, x=middle, text="text:N"),
    ]
    if count <= MOST_NUMBERS:
        text = alt.Chart(frame).mark_text(fontSize=12.5, tooltip=False)
        layered.append(text.encode(y=y, x=middle, text="text:N", color=alt.Color("ink:N", scale=None)))
    row = 36 if len(layers) <= 8 else 24
    chart = alt.layer(*layered).properties(height=row * (len(layers) + 1), padding=NONE)
    return chart.resolve_scale(color="independent").configure_view(strokeWidth=0)


def _written(value: float, signed: bool) -> str:
    if value != value:
        return "–"
    return number(value) if signed else f"{value:.2f}"

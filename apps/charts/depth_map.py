"""Components by relative depth: models of any shape in panels of one size, with the same colours."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import NONE
from apps.look.markup import number
from apps.look.palette import Palette

HEIGHT = 300
MOST = 60
"""Cells of a panel that have room for numbers."""


def depth_map(
    rows: Sequence[dict[str, Any]], palette: Palette, limit: float | None = None, selected: str | None = None
) -> Any:
    """One model: blocks from the top (0, the input) to the bottom (1, the output), heads on the left, the MLP
    on the right; a click selects a component (selection `cell`, field `component`).

    Args:
        rows: component, what, top, bottom, left, right, nats.
        palette: colours.
        limit: of the colours, symmetric about 0; pass the same one for maps that are compared.
        selected: the component that is framed.
    """
    frame = pd.DataFrame(rows)
    most = limit or float(frame.nats.abs().max()) or 1.0
    gap_x, gap_y = 0.004, 0.006
    frame = frame.assign(
        l=frame.left + gap_x, r=frame.right - gap_x, t=frame.top + gap_y, b=frame.bottom - gap_y,
        x=(frame.left + frame.right) / 2, y=(frame.top + frame.bottom) / 2,
        text=[number(value) for value in frame.nats],
        ink=[palette.on(palette.between(value / most)) for value in frame.nats],
    )  # fmt: skip
    across = alt.Scale(domain=[0, 1], nice=False)
    down = alt.Scale(domain=[1, 0], nice=False)
    depth = alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2~f", grid=False, title="relative depth")
    colours = alt.Scale(domain=[-most, most], range=list(palette.diverging), interpolate="rgb", clamp=True)
    base = alt.Chart(frame).encode(
        x=alt.X("l:Q", scale=across, axis=None), x2="r:Q", y=alt.Y("t:Q", scale=down, axis=depth), y2="b:Q"
    )
    cells = base.mark_rect(cornerRadius=3, cursor="pointer").encode(
        color=alt.Color("nats:Q", scale=colours, legend=None),
        tooltip=[
            alt.Tooltip("component:N"), alt.Tooltip("what:N", title="which is"),
            alt.Tooltip("nats:Q", title="nats", format="+.4f"),
        ],
    )  # fmt: skip
    cells = cells.add_params(alt.selection_point(name="cell", fields=["component"], on="click", clear=False))
    ring = base.mark_rect(cornerRadius=3, filled=False, stroke=palette.ink, strokeWidth=2.5)
    layers = [cells, ring.transform_filter(alt.FieldEqualPredicate(field="component", equal=selected or ""))]
    heads = ["heads"] if (frame.right <= 0.75).any() else []
    names = pd.DataFrame({"text": [*heads, "MLP"], "x": [0.37] * len(heads) + [0.89], "y": 0.0})
    layers.append(
        alt.Chart(names)
        .mark_text(color=palette.muted, fontSize=12, baseline="bottom", dy=-4)
        .encode(x=alt.X("x:Q", scale=across, axis=None), y=alt.Y("y:Q", scale=down), text="text:N")
    )
    if len(frame) <= MOST and frame.left.lt(0.75).groupby(frame.top).sum().max() <= 8:
        text = alt.Chart(frame).mark_text(fontSize=11.5, tooltip=False)
        layers.append(
            text.encode(
                x=alt.X("x:Q", scale=across, axis=None), y=alt.Y("y:Q", scale=down), text="text:N",
                color=alt.Color("ink:N", scale=None),
            )
        )  # fmt: skip
    chart = alt.layer(*layers).properties(height=HEIGHT, padding=NONE | {"top": 20})
    return chart.resolve_scale(color="independent").configure_view(strokeWidth=0)

"""Layer by position: what a patch there does; a click selects a cell."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import BARE, NONE
from apps.look.markup import number
from apps.look.palette import Palette
from apps.look.tokens import distinct

ROW = 34
"""Height of a layer, pixels."""
MOST_NAMED = 16
"""Positions that have room for numbers."""


def percent(share: float) -> str:
    """A share in whole percent, with a real minus sign; what rounds to nothing has no sign."""
    return number(100 * share, 0).lstrip("+")


def patch_map(
    rows: Sequence[dict[str, Any]],
    palette: Palette,
    selected: tuple[str, int] | None,
    share: bool,
    limit: float | None = None,
    columns: str = "token",
) -> Any:
    """A map with numbers; a click selects a cell (selection `cell`, fields `layer` and `position`).

    Args:
        rows: layer, position, token, value, effect, recovered, shown: what is coloured.
        palette: colours; their limits are symmetric.
        selected: the cell that is framed.
        share: whether what is shown is a share, written in percent, else nats.
        limit: the value of the darkest colour, for maps that are compared; by default the largest shown.
        columns: what the columns are; tokens are slanted.
    """
    frame = pd.DataFrame(rows)
    tokens = frame.drop_duplicates("position").sort_values("position").token.tolist()
    names = distinct(tokens)
    limit = limit or float(frame.shown.abs().max()) or 1.0
    frame["name"] = [names[place] for place in frame.position]
    frame["text"] = [percent(value) if share else number(value) for value in frame.shown]
    frame["ink"] = [palette.on(palette.between(value / limit)) for value in frame.shown]
    layers = list(dict.fromkeys(frame.layer))
    x = alt.X("name:N", sort=names, scale=alt.Scale(domain=names, paddingInner=0.06), title=None)
    y = alt.Y("layer:N", sort=layers, scale=alt.Scale(domain=layers, paddingInner=0.08), title=None)
    angle = -50 if columns == "token" else 0
    x = x.axis(labelAngle=angle, labelLimit=110, labelOverlap=False, **BARE)
    tooltip = [
        alt.Tooltip("layer:N"),
        alt.Tooltip("name:N", title=columns),
        alt.Tooltip("position:Q", title=f"{'position' if columns == 'token' else 'number'}"),
        alt.Tooltip("effect:Q", title="effect, nats", format="+.4f"),
        alt.Tooltip("recovered:Q", title="share recovered", format="+.1%"),
        alt.Tooltip("value:Q", title="metric with the patch", format="+.4f"),
    ]
    if not share:
        tooltip.pop(4)
    colours = alt.Scale(domain=[-limit, limit], range=list(palette.diverging), interpolate="rgb", clamp=True)
    base = alt.Chart(frame).encode(x=x, y=y.axis(labelPadding=6, **BARE))
    cells = base.mark_rect(cornerRadius=3, cursor="pointer").encode(
        color=alt.Color("shown:Q", scale=colours, legend=None), tooltip=tooltip
    )
    layer, position = selected if selected is not None else ("", -1)
    ring = base.mark_rect(cornerRadius=3, filled=False, stroke=palette.ink, strokeWidth=2.5)
    ring = ring.transform_filter(f"datum.layer === {layer!r} && datum.position === {int(position)}")
    point = alt.selection_point(name="cell", fields=["layer", "position"], on="click", clear=False)
    layered = [cells.add_params(point), ring]
    if len(names) <= MOST_NAMED:
        text = base.mark_text(fontSize=11.5, tooltip=False, cursor="pointer")
        layered.append(text.encode(text="text:N", color=alt.Color("ink:N", scale=None)))
    chart = alt.layer(*layered).properties(height=ROW * len(layers) + (70 if angle else 30), padding=NONE)
    return chart.resolve_scale(color="independent").configure_view(strokeWidth=0)

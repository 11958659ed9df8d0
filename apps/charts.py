"""The figures of the page, in Altair: functions from plain rows to a chart."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from apps.markup import number
from apps.palette import Palette
from apps.tokens import distinct

CELL = 36
"""Height of a row of the component map, pixels."""
FEWEST = 4
"""Columns that the component map has room for at least, so that one or two do not fill the page."""
LARGEST = 48
"""Tokens to a side of an attention map; beyond it a window is shown."""
BARE: Any = {"ticks": False, "domain": False, "labelFlush": False, "labelBound": False}
"""An axis that is labels only, each in its place."""

NONE: Any = {"left": 0, "right": 0, "top": 0, "bottom": 2}
"""No margin around a chart; the page has its own."""


def component_map(rows: Sequence[dict[str, Any]], palette: Palette, selected: str | None) -> Any:
    """Layer x (heads, MLP) with numbers; a click selects a cell (selection `cell`, field `component`).

    Args:
        rows: layer, column (`H0`, ..., `MLP`), component, what, nats; at most 12 heads have room for numbers.
            A layer without one of the columns has an empty place there.
        palette: colours; their limits are symmetric.
        selected: the component that is framed.
    """
    frame = pd.DataFrame(rows)
    limit = float(frame.nats.abs().max()) or 1.0
    columns = sorted(set(frame.column), key=lambda name: (name == "MLP", len(name), name))
    layers = list(dict.fromkeys(frame.layer))
    gap = 0.3 if len(columns) > 1 else 0.0
    left = {name: index + (gap if name == "MLP" else 0.0) for index, name in enumerate(columns)}
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
    layered = [
        cells.add_params(alt.selection_point(name="cell", fields=["component"], on="click", clear=False)),
        ring.transform_filter(alt.FieldEqualPredicate(field="component", equal=selected or "")),
        names.encode(y=y, x=middle, text="text:N"),
    ]
    if len(columns) <= 13:
        text = alt.Chart(frame).mark_text(fontSize=12.5, tooltip=False)
        layered.append(text.encode(y=y, x=middle, text="text:N", color=alt.Color("ink:N", scale=None)))
    chart = alt.layer(*layered).properties(height=CELL * (len(layers) + 1), padding=NONE)
    return chart.resolve_scale(color="independent").configure_view(strokeWidth=0)


def attention_map(
    tokens: Sequence[str],
    pattern: np.ndarray,
    palette: Palette,
    place: int,
    top: float,
    skip_first: bool = False,
) -> Any:
    """One head's attention: each row is a token that reads, each column one that is read.

    Args:
        tokens: as text.
        pattern: [query_pos key_pos].
        palette: colours.
        place: the row that is framed: where the shown token was read off.
        top: the value of the darkest colour, shared by maps that are compared.
        skip_first: leave the first column empty.
    """
    names = distinct(tokens)
    query, key = (index.ravel() for index in np.indices(pattern.shape))
    frame = pd.DataFrame(
        {
            "from": [names[index] for index in query],
            "to": [names[index] for index in key],
            "attention": pattern.ravel().astype(float),
        }
    )
    keep = (frame.attention > 0) & ~((key == 0) & skip_first)
    side = max(15, min(30, 480 // max(1, len(names))))
    order = alt.Scale(domain=names)
    x = alt.X("to:N", sort=names, scale=order, title="attends to")
    y = alt.Y("from:N", sort=names, scale=order, title="token that reads")
    base = alt.Chart(frame[keep]).encode(
        x=x.axis(labelAngle=-50, labelLimit=110, labelOverlap=False, **BARE),
        y=y.axis(labelLimit=110, labelOverlap=False, **BARE),
        tooltip=[
            alt.Tooltip("from:N", title="token that reads"),
            alt.Tooltip("to:N", title="attends to"),
            alt.Tooltip("attention:Q", format=".1%"),
        ],
    )
    colours = alt.Scale(domain=[0, top or 1.0], range=list(palette.sequential), clamp=True, interpolate="rgb")
    cells = base.mark_rect(cornerRadius=2).encode(color=alt.Color("attention:Q", scale=colours, legend=None))
    row = alt.Chart(pd.DataFrame({"from": [names[place]]}))
    ring = row.mark_rect(filled=False, stroke=palette.ink, strokeWidth=1.5, cornerRadius=2)
    chart = alt.layer(cells, ring.encode(y=alt.Y("from:N", sort=names)))
    return chart.properties(height=side * len(names) + 95, padding=NONE).configure_view(strokeWidth=0)


def shares(frame: pd.DataFrame, name: str, palette: Palette, chance: float = 0.5) -> Any:
    """Accuracy with its interval, and the line of chance.

    Args:
        frame: columns `name`, accuracy, low, high, n, ties; shares in [0, 1].
        name: phenomenon or paradigm.
        palette: colours.
        chance: what guessing gives.
    """
    order = list(frame.sort_values("accuracy", ascending=False)[name])
    frame = frame.assign(text=[f"{accuracy:.1%}" for accuracy in frame.accuracy])
    base = alt.Chart(frame).encode(
        y=alt.Y(f"{name}:N", sort=order, title=None).axis(labelLimit=330, labelPadding=8, **BARE),
        tooltip=[
            alt.Tooltip(f"{name}:N"),
            alt.Tooltip("accuracy:Q", title="right", format=".1%"),
            alt.Tooltip("low:Q", title="95 % from", format=".1%"),
            alt.Tooltip("high:Q", title="to", format=".1%"),
            alt.Tooltip("n:Q", title="pairs", format=","),
            alt.Tooltip("ties:Q", title="ties", format=","),
        ],
    )
    axis = alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1], grid=True, **BARE)
    scale = alt.Scale(domain=[0, 1.28], nice=False)
    title = "right, with 95 % interval"

    def x(field: str) -> Any:
        return alt.X(f"{field}:Q", title=title, scale=scale, axis=axis)

    colour = alt.when(alt.datum.accuracy >= chance)
    colour = colour.then(alt.value(palette.good)).otherwise(alt.value(palette.bad))
    edge: Any = alt.value("width")
    guess = alt.Chart(pd.DataFrame({"accuracy": [chance]}))
    layers = [
        guess.mark_rule(strokeDash=[4, 3], color=palette.muted).encode(x=x("accuracy")),
        base.mark_rule(strokeWidth=3, opacity=0.45).encode(x=x("low"), x2="high:Q", color=colour),
        base.mark_circle(size=80, opacity=1).encode(x=x("accuracy"), color=colour),
        base.mark_text(align="right", fontSize=12, color=palette.ink).encode(x=edge, text="text:N"),
    ]
    chart = alt.layer(*layers).properties(height=24 * len(frame) + 40, padding=NONE)
    return chart.configure_view(strokeWidth=0)

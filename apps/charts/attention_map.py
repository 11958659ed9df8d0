"""One head's attention on one row of tokens."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from apps.charts.axes import BARE, layered
from apps.look.palette import Palette
from apps.look.tokens import distinct

LARGEST = 48
"""Tokens to a side of an attention map; beyond it a window is shown."""


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
    return layered(cells, ring.encode(y=alt.Y("from:N", sort=names)), height=side * len(names) + 95)

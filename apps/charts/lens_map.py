"""Layer x token: what the model would have said at each layer."""

from typing import TYPE_CHECKING, Any

import altair as alt

from apps.charts.axes import BARE, NONE
from apps.look.palette import Palette
from apps.look.tokens import visible

if TYPE_CHECKING:
    import pandas as pd

CELL = 30
"""Height of a row, pixels."""
WIDTH, FEW = 72, 4
"""Pixels of a column where there are few; more of them share the page's width."""
LETTERS = 7
"""Of a token's name in a cell; the tooltip has all."""


def lens_map(frame: "pd.DataFrame", palette: Palette, value: str, chosen: int, vocabulary: int) -> Any:
    """The likeliest token at each layer and place, coloured by how far the written token has come; the last
    layer on top. A click chooses a place (selection `column`, field `place`).

    Args:
        frame: point, place, token, top, top_prob, probability, log_prob, rank.
        palette: colours.
        value: `probability` (0 to 1) or `rank` (1 to the size of the vocabulary, logarithmic).
        chosen: the place that is framed.
        vocabulary: tokens there are; the end of the scale of ranks, the same for every model of a tokenizer.
    """
    points = list(dict.fromkeys(frame.point))
    places = sorted(set(frame.place))
    named = frame.drop_duplicates("place").set_index("place").token
    labels = {place: f"{place} {_short(str(named[place]))}" for place in places}
    by_rank = value == "rank"
    top = max(2, vocabulary)
    share = [1 - _log(rank) / _log(top) for rank in frame["rank"]] if by_rank else list(frame.probability)
    frame = frame.assign(
        column=[labels[place] for place in frame.place],
        share=share,
        text=[_short(visible(str(word))) for word in frame.top],
        ink=[palette.on(palette.amount(one)) for one in share],
    )
    y = alt.Y("point:N", sort=points[::-1], title=None).axis(labelPadding=6, **BARE)
    x = alt.X("column:N", sort=[labels[place] for place in places], title=None).axis(
        orient="top", labelAngle=-35, labelPadding=4, labelLimit=80, labelOverlap=False, **BARE
    )
    scale = alt.Scale(domain=[0, 1], range=list(palette.sequential), interpolate="rgb")
    tooltip = [
        alt.Tooltip("point:N", title="behind"),
        alt.Tooltip("token:N", title="written token"),
        alt.Tooltip("rank:Q", title="its rank here", format=",d"),
        alt.Tooltip("probability:Q", title="its probability here", format=".4f"),
        alt.Tooltip("top:N", title="likeliest here"),
        alt.Tooltip("top_prob:Q", title="with probability", format=".4f"),
    ]
    base = alt.Chart(frame).encode(x=x, y=y)
    cells = base.mark_rect(cornerRadius=3, stroke=palette.page, strokeWidth=2, cursor="pointer").encode(
        color=alt.Color("share:Q", scale=scale, legend=None), tooltip=tooltip
    )
    click = alt.selection_point(name="column", fields=["place"], on="click", clear=False)
    ring = base.transform_filter(alt.FieldEqualPredicate(field="place", equal=chosen)).mark_rect(
        filled=False, stroke=palette.ink, strokeWidth=2, cornerRadius=3
    )
    text = base.mark_text(fontSize=11, tooltip=False, limit=62).encode(
        text="text:N", color=alt.Color("ink:N", scale=None)
    )
    layered = alt.layer(cells.add_params(click), ring, text).properties(
        height=CELL * len(points), padding=NONE, width=alt.Step(WIDTH) if len(places) <= FEW else "container"
    )
    return layered.resolve_scale(color="independent").configure_view(strokeWidth=0)


def _short(word: str) -> str:
    return word if len(word) <= LETTERS else word[: LETTERS - 1] + "…"


def _log(value: float) -> float:
    import math

    return math.log(max(1.0, float(value)))

"""Heads of one model against heads of another."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from apps.charts.axes import BARE, NONE
from apps.look.palette import Palette


def similarity(
    values: np.ndarray, first: Sequence[str], second: Sequence[str], pairs: Sequence[tuple[int, int]],
    palette: Palette, names: tuple[str, str], selected: str | None = None,
) -> Any:  # fmt: skip
    """Cosines, matched heads with a dot; a click selects a cell (selection `cell`, field `pair`).

    Args:
        values: [head of A, head of B].
        first: heads of A.
        second: heads of B.
        pairs: matched heads.
        palette: colours.
        names: of the models.
        selected: the pair that is framed, such as `L0H1-L1H0`.
    """
    row, column = (index.ravel().tolist() for index in np.indices(values.shape))
    matched = set(pairs)
    frame = pd.DataFrame({
        "a": [first[i] for i in row], "b": [second[j] for j in column], "cosine": values.ravel(),
        "matched": [(i, j) in matched for i, j in zip(row, column, strict=True)],
    })  # fmt: skip
    frame["pair"] = frame.a + "-" + frame.b
    frame["ink"] = [palette.on(palette.between(value)) for value in frame.cosine]
    turned = -50 if len(second) > 8 else 0
    x = alt.X("b:N", sort=list(second), title=names[1]).axis(labelAngle=turned, **BARE)
    y = alt.Y("a:N", sort=list(first), title=names[0]).axis(**BARE)
    colours = alt.Scale(domain=[-1, 1], range=list(palette.diverging), clamp=True, interpolate="rgb")
    base = alt.Chart(frame).encode(x=x, y=y)
    cells = base.mark_rect(cornerRadius=2, cursor="pointer").encode(
        color=alt.Color("cosine:Q", scale=colours, legend=None),
        tooltip=[
            alt.Tooltip("a:N", title=names[0]), alt.Tooltip("b:N", title=names[1]),
            alt.Tooltip("cosine:Q", format=".3f"), alt.Tooltip("matched:N"),
        ],
    )  # fmt: skip
    cells = cells.add_params(alt.selection_point(name="cell", fields=["pair"], on="click", clear=False))
    dots = base.transform_filter("datum.matched").mark_circle(size=40, opacity=1, tooltip=False)
    ring = base.transform_filter(alt.FieldEqualPredicate(field="pair", equal=selected or ""))
    ring = ring.mark_rect(cornerRadius=2, filled=False, stroke=palette.ink, strokeWidth=2.5)
    chart = alt.layer(cells, dots.encode(color=alt.Color("ink:N", scale=None)), ring)
    chart = chart.properties(height=max(16, min(28, 420 // len(first))) * len(first) + 60, padding=NONE)
    return chart.resolve_scale(color="independent").configure_view(strokeWidth=0)

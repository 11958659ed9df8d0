"""Layer by component: where the cells of a map stand, with the names above them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import BARE
from apps.look.grid import FEWEST, MOST_NUMBERS
from apps.look.palette import Palette


@dataclass(frozen=True)
class Cells:
    """The parts that the maps draw on."""

    base: Any
    """The cells, without a mark."""
    numbers: Any
    """The field `text` in each cell, in the colour of the field `ink`; None where there is no room."""
    names: Any
    """The columns' names, above the cells."""
    middle: Any
    """The encodings of a mark in the middle of its cell."""
    rows: int
    """Rows, the one with the names included."""

    def framed(self, palette: Palette, selected: str | None) -> Any:
        """A frame around the cell whose field `component` is `selected`."""
        ring = self.base.mark_rect(cornerRadius=4, filled=False, stroke=palette.ink, strokeWidth=2.5)
        return ring.transform_filter(alt.FieldEqualPredicate(field="component", equal=selected or ""))


def cells(frame: pd.DataFrame, columns: Sequence[str], palette: Palette, spare: float) -> Cells:
    """Lay out one cell a row of the frame.

    Args:
        frame: layer, column, text, ink; the columns left, right and middle are added to it.
        columns: names, from the left; `MLP` stands a little apart from others.
        palette: colours.
        spare: room behind the last column, in columns.
    """
    gap = 0.3 if len(columns) > 1 else 0.0
    left = {name: index + (gap if name == "MLP" else 0.0) for index, name in enumerate(columns)}
    frame["left"] = frame.column.map(left)
    frame["right"] = frame.left + 0.95
    frame["middle"] = frame.left + 0.475
    above = pd.DataFrame({"text": columns, "middle": [left[name] + 0.475 for name in columns], "layer": ""})
    layers = list(dict.fromkeys(frame.layer))
    x = alt.Scale(domain=[0, max(len(columns), FEWEST) + spare], nice=False)
    bands = alt.Scale(domain=["", *layers], paddingInner=0.1)
    y = alt.Y("layer:N", sort=["", *layers], scale=bands, title=None).axis(labelPadding=6, **BARE)
    middle = {"y": y, "x": alt.X("middle:Q", scale=x, axis=None)}
    base = alt.Chart(frame).encode(y=y, x=alt.X("left:Q", scale=x, axis=None), x2="right:Q")
    names = alt.Chart(above).mark_text(color=palette.muted, fontSize=12, baseline="bottom", dy=12)
    numbers = None
    if len(columns) <= MOST_NUMBERS:
        marks = alt.Chart(frame).mark_text(fontSize=12.5, tooltip=False)
        numbers = marks.encode(**middle, text="text:N", color=alt.Color("ink:N", scale=None))
    return Cells(base, numbers, names.encode(**middle, text="text:N"), middle, len(layers) + 1)

"""Two numbers of each component against each other; a click selects one."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from apps.charts.axes import NONE
from apps.look.palette import Palette

MOST_NAMED = 12
"""Points that are named: those furthest out."""
SHAPES = {"head": "circle", "MLP": "square"}


def effects(
    rows: Sequence[dict[str, Any]], palette: Palette, selected: str | None, across: str, up: str
) -> Any:
    """Points with their names and the line on which both are equal; a click selects a point (selection
    `point`, field `component`).

    Args:
        rows: component, kind (`head` or `MLP`), direct, ablated: nats.
        palette: colours.
        selected: the component that is ringed.
        across: title of the horizontal axis.
        up: of the vertical one.
    """
    frame = pd.DataFrame(rows)
    kinds = [kind for kind in ("head", "MLP") if kind in set(frame.kind)]
    low = float(min(frame.direct.min(), frame.ablated.min(), 0.0))
    high = float(max(frame.direct.max(), frame.ablated.max(), 0.0))
    line = pd.DataFrame({"direct": [low, high], "ablated": [low, high]})
    x = alt.X("direct:Q", title=across, axis=alt.Axis(gridColor=palette.line, format="+.2~f", tickCount=7))
    y = alt.Y("ablated:Q", title=up, axis=alt.Axis(gridColor=palette.line, format="+.2~f", tickCount=7))
    base = alt.Chart(frame).encode(x=x, y=y)
    inks = {"head": palette.good, "MLP": palette.muted}
    colours = alt.Scale(domain=kinds, range=[inks[kind] for kind in kinds])
    shapes = alt.Scale(domain=kinds, range=[SHAPES[kind] for kind in kinds])
    legend = alt.Legend(title=None, orient="top")
    points = base.mark_point(size=110, filled=True, opacity=0.85, cursor="pointer").encode(
        color=alt.Color("kind:N", scale=colours, legend=legend),
        shape=alt.Shape("kind:N", scale=shapes, legend=legend),
        tooltip=[
            alt.Tooltip("component:N"),
            alt.Tooltip("direct:Q", title="direct contribution, nats", format="+.4f"),
            alt.Tooltip("ablated:Q", title="ablation effect, nats", format="+.4f"),
        ],
    )
    point = alt.selection_point(name="point", fields=["component"], on="click", clear=False)
    same = alt.Chart(line).mark_line(strokeDash=[4, 3], color=palette.muted, strokeWidth=1)
    ring = base.mark_point(size=330, filled=False, stroke=palette.ink, strokeWidth=2)
    layered = [
        same.encode(x="direct:Q", y="ablated:Q"),
        ring.transform_filter(alt.FieldEqualPredicate(field="component", equal=selected or "")),
        points.add_params(point),
    ]
    far = frame.assign(far=frame[["direct", "ablated"]].abs().max(axis=1)).nlargest(MOST_NAMED, "far")
    text = alt.Chart(far).mark_text(dy=-12, fontSize=11, color=palette.ink, tooltip=False)
    layered.append(text.encode(x=x, y=y, text="component:N"))
    return alt.layer(*layered).properties(height=380, padding=NONE).configure_view(strokeWidth=0)

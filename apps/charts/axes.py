"""What the charts share."""

from typing import Any

import altair as alt

BARE: Any = {"ticks": False, "domain": False, "labelFlush": False, "labelBound": False}
"""An axis that is labels only, each in its place."""

NONE: Any = {"left": 0, "right": 0, "top": 0, "bottom": 2}
"""No margin around a chart; the page has its own."""


def layered(*layers: Any, height: int, apart: bool = False) -> Any:
    """Layers as one chart without a frame. All is set at once: each later step would copy the whole chart,
    which is felt between a click and the new figure.

    Args:
        layers: the lowest first.
        height: pixels.
        apart: each layer has a colour scale of its own.
    """
    more: Any = {"resolve": {"scale": {"color": "independent"}}} if apart else {}
    view = alt.Config(view=alt.ViewConfig(strokeWidth=0))
    return alt.layer(*layers, height=height, padding=NONE, config=view, **more)

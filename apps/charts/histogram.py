"""How often a neuron is how active."""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from apps.charts.axes import BARE, NONE
from apps.look.palette import Palette


def histogram(frame: pd.DataFrame, palette: Palette) -> Any:
    """Bars of equal width for bins that double in size every two; heights are logarithms.

    Args:
        frame: low, high, tokens, in order; empty bins too.
        palette: colours.
    """
    names = [f"{low:.2g} to {high:.2g}" for low, high in zip(frame.low, frame.high, strict=True)]
    frame = frame.assign(
        bin=names, height=np.log10(frame.tokens + 1), side=np.where(frame.low >= 0, "above", "below")
    )
    colours = alt.Scale(domain=["above", "below"], range=[palette.good, palette.muted])
    base = alt.Chart(frame).encode(
        x=alt.X("bin:N", sort=names, title="activation (two bins an octave)").axis(
            labelAngle=-50, labelOverlap="greedy", **BARE
        ),
        tooltip=[alt.Tooltip("bin:N", title="activation"), alt.Tooltip("tokens:Q", format=",")],
    )
    ticks = [0, 1, 2, 3, 4, 5, 6]
    axis = alt.Axis(values=ticks, labelExpr="format(pow(10, datum.value), '~s')", grid=True, **BARE)
    bars = base.mark_bar().encode(
        y=alt.Y("height:Q", title="tokens", axis=axis), color=alt.Color("side:N", scale=colours, legend=None)
    )
    return bars.properties(height=170, padding=NONE).configure_view(strokeWidth=0)

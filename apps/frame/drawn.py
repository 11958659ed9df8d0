"""A chart on the page, without the check against Vega-Lite's schema that Altair makes each time.

The check takes about a third of the time that a chart takes; the tests make it.
"""

import time
from collections.abc import Callable
from typing import Any

import streamlit as st

PAINT = 0.5
"""Seconds that a browser takes for the first view."""


def drawn(chart: Any, key: str, on_select: Callable[[], None], selection: str, alt: str) -> None:
    """Draw a chart whose selections call back.

    Args:
        chart: an Altair chart.
        key: of the widget; `st.session_state[key]["selection"]` holds what is selected.
        on_select: called when it changes.
        selection: name of the selection.
        alt: what the chart shows, for readers who do not see it.
    """
    st.vega_lite_chart(
        chart.to_dict(validate=False), key=key, on_select=on_select, selection_mode=selection, alt=alt
    )


def still(chart: Any, alt: str) -> None:
    """Draw a chart without selections.

    Args:
        chart: an Altair chart.
        alt: what it shows, for readers who do not see it.
    """
    st.vega_lite_chart(chart.to_dict(validate=False), alt=alt)


def painted() -> None:
    """Once a session, when its first view has been sent: wait until the browser has drawn it. What comes
    behind it (charts, whose library is large) would be loaded before."""
    if not st.session_state.get("painted"):
        st.session_state["painted"] = True
        time.sleep(PAINT)

"""A click on a point of a curve chooses its checkpoint, for all pages."""

from typing import Any

import streamlit as st

from apps.answers.catalogue import LAST
from apps.frame import journey


def curve(chart: Any, key: str, steps: tuple[int, ...], alt: str, page: str = "training") -> None:
    """Draw a chart of `apps.charts.curves`.

    Args:
        chart: with the selection `at`.
        key: of the widget, other for another model or checkpoint.
        steps: the run's checkpoints, in order.
        alt: what it shows, in words.
        page: where it stands, and where a click stays.
    """

    def picked() -> None:
        rows = st.session_state[key]["selection"].get("at", [])
        step = rows[0].get("step") if rows else None
        if step in steps:
            journey.go(page, checkpoint=LAST if step == steps[-1] else int(step))
        elif step is not None:
            near = min(steps, key=lambda each: abs(each - step)) if steps else None
            if near is not None:
                st.toast(f"No checkpoint was kept at step {int(step):,}; the nearest is step {near:,}.")

    st.altair_chart(chart, key=key, on_select=picked, selection_mode="at", alt=alt)

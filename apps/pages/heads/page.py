"""Heads and neurons: a finder for each, and all about the one that was chosen."""

import streamlit as st

from apps.frame import address
from apps.frame.frame import Frame
from apps.pages.heads import finder, neurons
from apps.pages.heads.usable import usable

PARTS = {"heads": "Heads", "neurons": "Neurons"}


def show(frame: Frame) -> None:
    """Draw the switch, and the half that was chosen."""
    address.choice("units", list(PARTS), "heads")
    chosen = st.segmented_control(
        "Heads or neurons",
        list(PARTS),
        key="units",
        format_func=lambda key: PARTS[key],
        required=True,
        label_visibility="collapsed",
    )
    address.write(units=None if chosen == "heads" else chosen)
    frame = usable(frame)
    if chosen == "neurons":
        neurons.show(frame)
    else:
        finder.show(frame)

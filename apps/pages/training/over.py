"""One pair, or the mean of its paradigm: a choice that both views share."""

import streamlit as st

from apps.answers import comparison
from apps.frame import address
from apps.frame.frame import Wanted

OVER = {"pair": "This pair", "paradigm": "Mean of the paradigm"}


def choose(wanted: Wanted) -> str:
    """`pair` or `paradigm`; the reader's own sentences have no paradigm."""
    if wanted.uid is None or wanted.source is None:
        return "pair"
    address.choice("tover", list(OVER), "pair")
    chosen = st.segmented_control(
        "Over", list(OVER), key="tover", format_func=lambda key: OVER[key], required=True,
        label_visibility="collapsed",
        help=f"One pair, or the mean over the first {comparison.PAIRS} pairs of its paradigm.",
    )  # fmt: skip
    address.write(tover=None if chosen == "pair" else chosen)
    return chosen or "pair"

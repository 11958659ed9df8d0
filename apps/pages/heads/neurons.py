"""Neurons."""

import streamlit as st

from apps.frame.frame import Frame


def show(frame: Frame) -> None:
    """Draw."""
    st.write("…")

"""Compare and training: two models of any shape, one run over its checkpoints, all runs as a family."""

from importlib import import_module

import streamlit as st

from apps.frame import address
from apps.frame.frame import Frame
from apps.frame.told import told

VIEWS = {"models": "Models", "training": "Training", "scaling": "Scaling"}


def show(frame: Frame) -> None:
    """Draw the chosen view."""
    first = "models" if frame.beside is not None else "training"
    address.choice("tview", list(VIEWS), first)
    chosen = st.segmented_control(
        "View", list(VIEWS), key="tview", format_func=lambda key: VIEWS[key], required=True,
        label_visibility="collapsed",
        help="Models: A beside B. Training: model A over its checkpoints. Scaling: all runs.",
    )  # fmt: skip
    address.write(tview=None if chosen == first else chosen)
    with told():
        import_module(f"apps.pages.training.{chosen or first}").show(frame)

"""Compare and training: two models of any shape, one run over its checkpoints, all runs as a family."""

from importlib import import_module

from apps.frame import address
from apps.frame.frame import Frame
from apps.frame.told import told

VIEWS = {"models": "Models", "training": "Training", "scaling": "Scaling"}


def show(frame: Frame) -> None:
    """Draw the chosen view."""
    first = "models" if frame.beside is not None else "training"
    chosen = address.one_of(
        "tview",
        "View",
        VIEWS,
        first,
        help="Models: A beside B. Training: model A over its checkpoints. Scaling: all runs.",
    )
    with told():
        import_module(f"apps.pages.training.{chosen}").show(frame)

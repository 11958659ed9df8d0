"""Heads and neurons: a finder for each, and all about the one that was chosen."""

from apps.frame import address
from apps.frame.frame import Frame
from apps.pages.heads import finder, neurons
from apps.pages.heads.usable import usable

PARTS = {"heads": "Heads", "neurons": "Neurons"}


def show(frame: Frame) -> None:
    """Draw the switch, and the half that was chosen."""
    chosen = address.one_of("units", "Heads or neurons", PARTS)
    frame = usable(frame)
    if chosen == "neurons":
        neurons.show(frame)
    else:
        finder.show(frame)

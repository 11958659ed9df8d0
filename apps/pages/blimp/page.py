"""Minimal pairs: phenomena and paradigms with intervals and the line of chance."""

from apps.frame.frame import Frame
from apps.pages.blimp import shares


def show(frame: Frame) -> None:
    """Draw the page."""
    shares.show(frame.opened, frame.palette)

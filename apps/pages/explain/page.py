"""The first page: one pair, or one text, and the components that decided it."""

from apps.frame.frame import Frame
from apps.pages.explain import pair, text


def show(frame: Frame) -> None:
    """Draw what was chosen in the sidebar; nothing where nothing could be."""
    if frame.wanted is not None:
        pair.show(frame, frame.wanted)
    elif frame.text is not None:
        text.show(frame.opened, frame.text, frame.palette)

"""What every page is given: the choices of the sidebar."""

from dataclasses import dataclass

from apps.answers.catalogue import Asked, Opened
from apps.answers.wanted import Wanted
from apps.look.palette import Palette


@dataclass(frozen=True)
class Frame:
    """The choices that all pages share."""

    asked: Asked
    """What the explorer was started on."""
    opened: Opened
    """Model A at the chosen checkpoint."""
    beside: Opened | None
    """Model B, to compare with; its last checkpoint."""
    wanted: Wanted | None
    """The pair; None where a text was chosen, or nothing could be."""
    text: str | None
    palette: Palette

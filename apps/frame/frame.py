"""What every page is given: the choices of the sidebar."""

from dataclasses import dataclass

from apps.answers.catalogue import Asked, Opened
from apps.answers.sources import Source
from apps.look.palette import Palette
from workbench.evals.result import BlimpResult


@dataclass(frozen=True)
class Wanted:
    """Two sentences to compare, and where they come from."""

    good: str
    bad: str
    protocol: str = "native"
    pll: str = "original"
    origin: tuple[str, ...] = ()
    paradigm: BlimpResult | None = None
    """The decisions on the pair's whole paradigm; None for sentences of the reader's own."""
    source: Source | None = None
    """The set that the pair is of."""
    uid: str | None = None
    """The paradigm's name."""
    pair_id: int | None = None


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

"""The pair that was asked for."""

from dataclasses import dataclass

from apps.answers.sources import Source
from workbench.evals.blimp import BlimpResult


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

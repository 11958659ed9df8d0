"""What the parts of the page share."""

from dataclasses import dataclass

from apps.answers.beside import Column
from apps.answers.sources import Saved, Source
from apps.frame.frame import Frame


@dataclass(frozen=True)
class Board:
    """Models and their results on the same pairs."""

    frame: Frame
    saved: Saved
    """Model A's result."""
    columns: tuple[Column, ...]
    """Model A first, then B if it was scored, then others."""
    source: Source | None
    """The set of pairs; None if its sentences are not at hand."""

    @property
    def second(self) -> Saved | None:
        """Model B's result."""
        beside = self.frame.beside
        if beside is None or len(self.columns) < 2 or self.columns[1][0] != beside.name:
            return None
        return self.columns[1][1]


def shown(uid: str) -> str:
    """A paradigm or phenomenon as the page writes it."""
    return uid.removeprefix("embedded_").replace("_", " ")


NO_SENTENCES = (
    "This model's result came without sentences. To look at single pairs, start the explorer with --data and "
    "the folder that holds them."
)

"""Figures with their bounds: medians, met or missed, as a table and as JSON."""

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Row:
    """One figure with its bound."""

    name: str
    bound: float | None
    unit: str = "s"
    values: list[float] = field(default_factory=list)
    rests: list[float] = field(default_factory=list)
    """Seconds until nothing runs any more."""

    @property
    def median(self) -> float:
        return statistics.median(self.values) if self.values else float("nan")

    @property
    def verdict(self) -> str:
        """Whether the bound is kept; a bound of zero is kept by zero alone."""
        if self.bound is None:
            return ""
        return "met" if self.median < self.bound or self.median == self.bound == 0 else "MISSED"

    def line(self) -> str:
        """For the table."""
        bound = "" if self.bound is None else f"{self.bound:g} {self.unit}"
        shown = f"{self.median:.2f}" if self.unit == "s" else f"{self.median:.0f}"
        low, high = (min(self.values), max(self.values)) if self.values else (0.0, 0.0)
        spread = f"{low:.2f}–{high:.2f}" if self.unit == "s" and len(self.values) > 1 else ""
        rest = f"{statistics.median(self.rests):.2f}" if self.rests else ""
        figures = f"{shown:>8}  {spread:<13}{rest:>7}{len(self.values):>5}"
        return f"{self.name:<46}{figures}  {bound:>8}  {self.verdict}"


class Table:
    """All figures, in the order in which they were measured."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        print(f"{'':<46}{'median':>8}  {'from–to':<13}{'rests':>7}{'n':>5}  {'bound':>8}", flush=True)

    def add(self, row: Row) -> Row:
        """Print it and keep it."""
        print(row.line(), flush=True)
        self.rows.append(row)
        return row

    def save(self, file: Path, **about: Any) -> None:
        """All of it as JSON."""
        rows = [asdict(row) | {"median": row.median, "verdict": row.verdict} for row in self.rows]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(about | {"rows": rows}, indent=1, ensure_ascii=False) + "\n")

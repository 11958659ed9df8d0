"""Tables, numbers and curves as text, for commands that print them."""

import itertools
import shutil
import sys
import unicodedata
from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"


def clean(text: object) -> str:
    """Text on one line without control characters, so that no name can drive the terminal."""
    line = " ".join(str(text).split())
    return "".join(character for character in line if unicodedata.category(character)[0] != "C")


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> None:
    """Print columns under their headings; the first `left` columns to the left, numbers to the right.

    On a terminal that is too narrow the last columns' text is cut; elsewhere nothing is.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def line(row: Sequence[str]) -> str:
        parts = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(parts).rstrip()[:limit]

    print(line(header))
    print("  ".join("─" * width for width in widths)[:limit])
    for row in cells:
        print(line(row))


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """A curve as one line of blocks, the lowest value lowest; longer series are averaged down."""
    if not values:
        return ""
    count = min(width, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_LEVELS[min(7, int((mean - low) / span * 8))] for mean in means)

"""What the destructive tests tried, what survived and what was lost, as a table at the end of the run.

A test asks for the fixture `trials` and puts each trial into its context; one that raises is lost:

    kills = trials(1, "kill -9 at random moments")
    with kills.one():
        ...

The table is printed, and written to build/torture.json, when a test marked `torture` has run.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

KEY = "trials"
FILE = Path(__file__).resolve().parents[1] / "build" / "torture.json"


class Trials:
    """Counts of one kind of trial in one test; see the module's text."""

    def __init__(self, counts: dict[str, Any]) -> None:
        self.counts = counts

    def add(self, tried: int, survived: int) -> None:
        """Count several at once."""
        self.counts["tried"] += tried
        self.counts["survived"] += survived

    @contextmanager
    def one(self, many: int = 1) -> Iterator[None]:
        """One trial, or `many` that are judged together: survived if the block ends well."""
        self.counts["tried"] += many
        yield
        self.counts["survived"] += many


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Callable[[int, str], Trials]:
    """Makes a counter: `trials(row of the table of figures, what is tried)`."""

    def make(row: int, what: str) -> Trials:
        counts = {"row": row, "what": what, "tried": 0, "survived": 0}
        request.node.user_properties.append((KEY, counts))  # goes with the report, from other processes too
        return Trials(counts)

    return make


def summed(reports: list[Any]) -> list[dict[str, Any]]:
    """The counts of all tests, by row and kind."""
    total: dict[tuple[int, str], dict[str, Any]] = {}
    for report in reports:
        for name, counts in report.user_properties:
            if name == KEY:
                place = total.setdefault(
                    (counts["row"], counts["what"]), {**counts, "tried": 0, "survived": 0}
                )
                place["tried"] += counts["tried"]
                place["survived"] += counts["survived"]
    rows = [total[key] for key in sorted(total)]
    return [{**row, "lost": row["tried"] - row["survived"]} for row in rows]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The counts as lines of text."""
    width = max(len(row["what"]) for row in rows)
    lines = [f"row  {'what':<{width}}  tried  survived  lost"]
    for row in rows:
        lines.append(
            f"{row['row']:>3}  {row['what']:<{width}}  {row['tried']:>5,}  {row['survived']:>8,}  {row['lost']:>4,}"
        )
    tried, lost = (sum(row[name] for row in rows) for name in ("tried", "lost"))
    return [*lines, f"{'':3}  {'together':<{width}}  {tried:>5,}  {tried - lost:>8,}  {lost:>4,}"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table and write the file, if a destructive test ran."""
    every = [report for found in terminalreporter.stats.values() for report in found]
    reports = [report for report in every if isinstance(report, pytest.TestReport) and report.when == "call"]
    if not any("torture" in report.keywords for report in reports):
        return
    if rows := summed(reports):
        terminalreporter.section("torture: tried, survived, lost")
        terminalreporter.write_line("\n".join(table(rows)))
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(json.dumps({"ended": time.strftime("%Y-%m-%d %H:%M"), "rows": rows}, indent=2) + "\n")
        terminalreporter.write_line(f"written to {FILE.relative_to(FILE.parents[1])}")

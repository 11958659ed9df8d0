"""Where a run's numbers go: metrics.jsonl, which is the record, and Weights & Biases, which is a copy.

metrics.jsonl holds what a repeated run gives again to the bit; times, which it does not, go to
timings.jsonl. Nothing that wandb does, raising and hanging included, reaches the training.
"""

import json
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.io import write_bytes
from workbench.runs.folder import METRICS, TIMINGS, read_rows

if TYPE_CHECKING:
    from training.wandb_copy import WandbTracker

MILESTONES = ("eval", "extend")
Earlier = list[tuple[int, dict[str, Any]]]
"""Rows as a tracker takes them: the step, and the numbers by name."""


class Record:
    """Appends rows to metrics.jsonl and timings.jsonl, each whole, and passes them on.

    Args:
        run: the run folder.
        upto: rows of later steps are removed first, with any half-written line.
        tracker: makes the tracker that also gets every row, from those that are there already.
        writes: False in a process that only helps to train: it knows the same rows and writes none.
    """

    def __init__(
        self,
        run: Path,
        upto: int,
        tracker: "Callable[[Earlier], WandbTracker] | None" = None,
        writes: bool = True,
    ) -> None:
        self._done: set[tuple[str, int, bool]] = set()
        self.milestones: list[dict[str, Any]] = []
        """The rows, in order, on which later training depends: evaluations and extensions."""
        self._files: dict[str, FileIO] = {}
        earlier: Earlier = []
        for name in (METRICS, TIMINGS):
            rows = [row for row in read_rows(run / name) if row.get("step", -1) <= upto]
            for row in rows if name == METRICS else []:
                self._note(row)
            if not writes:
                continue
            write_bytes(run / name, b"".join(_line(row) for row in rows))
            self._files[name] = FileIO(run / name, "ab")
            earlier += [(row["step"], _named(row, "time" if name == TIMINGS else "")) for row in rows]
        self._tracker = tracker(sorted(earlier, key=lambda row: row[0])) if tracker else None

    def write(self, kind: str, step: int, **numbers: Any) -> None:
        """A row of metrics.jsonl: `{"kind": ..., "step": ..., ...}`."""
        row = {"kind": kind, "step": step, **numbers}
        self._append(METRICS, row)
        self._note(row)
        if self._tracker is not None:
            self._tracker.log(step, _named(row))

    def time(self, step: int, seconds: float, tokens_per_second: float) -> None:
        """A row of timings.jsonl: seconds of training so far, and the speed since the last row."""
        row = {"step": step, "seconds": round(seconds, 3), "tokens_per_second": round(tokens_per_second, 1)}
        self._append(TIMINGS, row)
        if self._tracker is not None:
            self._tracker.log(step, _named(row, "time"))

    def _note(self, row: dict[str, Any]) -> None:
        self._done.add(_key(row))
        if row.get("kind") in MILESTONES:
            self.milestones.append(row)

    def has(self, kind: str, step: int, final: bool = False) -> bool:
        """Whether that row is there already."""
        return (kind, step, final) in self._done

    def ended(self, step: int, sampled: bool) -> bool:
        """Whether all is there that a run ends with: the last evaluation, and a sample if one is wanted."""
        return self.has("eval", step, final=True) and (not sampled or self.has("sample", step))

    def sync(self) -> None:
        """Bring all rows to the disk, before a checkpoint that counts on them."""
        for file in self._files.values():
            os.fsync(file.fileno())

    def close(self, complete: bool = False) -> None:
        """Close the files and end the tracker; `complete`: nothing more will come for the last step."""
        for file in self._files.values():
            file.close()
        if self._tracker is not None:
            self._tracker.finish(complete)

    def _append(self, name: str, row: dict[str, Any]) -> None:
        """The whole line, or, on a full disk, none of it: half a line with another behind it is no row."""
        if name not in self._files:
            return
        file, data = self._files[name], _line(row)
        start, done = os.fstat(file.fileno()).st_size, 0
        try:
            while done < len(data):  # what does not fit is left out without an error, until the next try
                done += file.write(data[done:]) or 0
        except OSError:
            os.ftruncate(file.fileno(), start)
            raise


def _named(row: dict[str, Any], kind: str = "") -> dict[str, Any]:
    """`train/loss`, `eval/loss`, `time/seconds`, ...: the row's numbers under names for a tracker."""
    kind = kind or str(row.get("kind", ""))
    return {f"{kind}/{name}": value for name, value in row.items() if name not in ("kind", "step")}


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _key(row: dict[str, Any]) -> tuple[str, int, bool]:
    return row.get("kind", ""), row["step"], bool(row.get("final"))

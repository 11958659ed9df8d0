"""Where a run's numbers go: metrics.jsonl, which is the record, and Weights & Biases, which is a copy.

metrics.jsonl holds what a repeated run gives again to the bit; times, which it does not, go to
timings.jsonl. Nothing that wandb does, raising and hanging included, reaches the training.
"""

import json
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.files import write_bytes
from workbench.runs.folder import METRICS, TIMINGS, read_rows

MILESTONES = ("eval", "extend")


class Record:
    """Appends rows to metrics.jsonl and timings.jsonl, each in one write, and passes them on.

    Args:
        run: the run folder.
        upto: rows of later steps are removed first, with any half-written line.
        tracker: also gets every row.
        writes: False in a process that only helps to train: it knows the same rows and writes none.
    """

    def __init__(
        self, run: Path, upto: int, tracker: "WandbTracker | None" = None, writes: bool = True
    ) -> None:
        self._tracker = tracker
        self._done: set[tuple[str, int, bool]] = set()
        self.milestones: list[dict[str, Any]] = []
        """The rows, in order, on which later training depends: evaluations and extensions."""
        self._files = {}
        for name in (METRICS, TIMINGS):
            rows = [row for row in read_rows(run / name) if row.get("step", -1) <= upto]
            for row in rows if name == METRICS else []:
                self._note(row)
            if not writes:
                continue
            write_bytes(run / name, b"".join(_line(row) for row in rows))
            self._files[name] = open(run / name, "ab", buffering=0)  # noqa: SIM115

    def write(self, kind: str, step: int, **numbers: Any) -> None:
        """A row of metrics.jsonl: `{"kind": ..., "step": ..., ...}`."""
        row = {"kind": kind, "step": step, **numbers}
        self._append(METRICS, row)
        self._note(row)
        if self._tracker is not None:
            self._tracker.log(step, {f"{kind}/{name}": value for name, value in numbers.items()})

    def time(self, step: int, seconds: float, tokens_per_second: float) -> None:
        """A row of timings.jsonl: seconds of training so far, and the speed since the last row."""
        row = {"step": step, "seconds": round(seconds, 3), "tokens_per_second": round(tokens_per_second, 1)}
        self._append(TIMINGS, row)
        if self._tracker is not None:
            self._tracker.log(step, {f"time/{name}": value for name, value in row.items() if name != "step"})

    def _note(self, row: dict[str, Any]) -> None:
        self._done.add(_key(row))
        if row.get("kind") in MILESTONES:
            self.milestones.append(row)

    def _append(self, name: str, row: dict[str, Any]) -> None:
        if name in self._files:
            self._files[name].write(_line(row))

    def has(self, kind: str, step: int, final: bool = False) -> bool:
        """Whether that row is there already."""
        return (kind, step, final) in self._done

    def sync(self) -> None:
        """Bring all rows to the disk, before a checkpoint that counts on them."""
        for file in self._files.values():
            os.fsync(file.fileno())

    def close(self) -> None:
        """Close the files and end the tracker."""
        for file in self._files.values():
            file.close()
        if self._tracker is not None:
            self._tracker.finish()


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _key(row: dict[str, Any]) -> tuple[str, int, bool]:
    return row.get("kind", ""), row["step"], bool(row.get("final"))


class WandbTracker:
    """Weights & Biases on a thread of its own, fed through a queue.

    Without WANDB_API_KEY it works offline: no connection is tried, and `wandb sync` uploads later.
    The first exception ends it with one sentence to `warn`; one that hangs is left behind.

    Args:
        run: the run folder; wandb's files go below it.
        project: wandb's project.
        config: the run's settings.
        warn: called with a sentence when wandb gives up.
        patience: seconds to wait for it at the end.
    """

    def __init__(
        self,
        run: Path,
        project: str,
        config: dict[str, Any],
        warn: Callable[[str], None],
        patience: float = 30.0,
    ) -> None:
        self._queue: queue.Queue[tuple[int, dict[str, Any]] | None] = queue.Queue()
        self._warn = warn
        self._patience = patience
        self._failed = False
        self._thread = threading.Thread(
            target=self._work, args=(Path(run), project, config), name="wandb", daemon=True
        )
        self._thread.start()

    def log(self, step: int, numbers: dict[str, Any]) -> None:
        """Hand over a row; returns at once."""
        if not self._failed:
            self._queue.put((step, numbers))

    def finish(self) -> None:
        """Let it write what it has, and wait a while for it."""
        self._queue.put(None)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._warn(f"wandb did not end within {self._patience:g} s; metrics.jsonl has the numbers.")

    def _work(self, run: Path, project: str, config: dict[str, Any]) -> None:
        try:
            tracked = _start(run, project, config)
            while (item := self._queue.get()) is not None:
                step, numbers = item
                tracked.log(numbers, step=step)
            tracked.finish()
        except ImportError:
            self._failed = True
            self._warn("wandb is not installed: pip install 'interp-workbench[track]'.")
        except BaseException as error:
            self._failed = True
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            self._warn(f"wandb gave up ({reason}); training goes on, metrics.jsonl has the numbers.")


def wanted(choice: bool | None) -> bool:
    """Whether to use wandb: as asked, else only if WANDB_API_KEY is set."""
    return bool(os.environ.get("WANDB_API_KEY")) if choice is None else choice


def _start(run: Path, project: str, config: dict[str, Any]) -> Any:
    import hashlib

    import wandb  # type: ignore[import-not-found]

    online = bool(os.environ.get("WANDB_API_KEY"))
    mode = os.environ.get("WANDB_MODE", "online" if online else "offline")
    folder = run.absolute()
    return wandb.init(
        project=project,
        name=folder.name,
        id=hashlib.sha256(str(folder).encode()).hexdigest()[:12],
        resume="allow" if online else None,
        dir=str(folder),
        config=config,
        mode="offline" if mode == "online" and not online else mode,  # type: ignore[arg-type]
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=30,
            x_disable_stats=True,
            disable_git=True,
            disable_code=True,
        ),
    )

"""Weights & Biases: a copy of metrics.jsonl that can fail in any way without the training noticing.

A run keeps one wandb id for its whole life, in wandb.json of its folder, so that it can be moved, killed
and resumed and stays one run there. The same file says up to which step the copy reaches: what is missing,
after a kill or where wandb was switched on late, is copied from metrics.jsonl first, and nothing twice.

Offline, every call of `resume` makes a directory of its own (wandb 0.31 cannot go on in an old one). All
carry the same id and `resume="allow"`, without which `wandb sync` would write each over the one before;
with it `wandb sync RUN/wandb` appends them in order. A directory that was never finished holds next to
nothing, as wandb keeps its rows in memory, and makes the synchronisation of the whole run fail: the next call
removes it and copies its rows again.
"""

import json
import os
import queue
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.io import read_json

NOTE = "wandb.json"
"""In the run folder: `id`; `copied`, the last step of the calls that ended well, and `ended`, their offline
directories; `handed`, the last step given to a call that may not end."""

_ID = re.compile(r"[0-9a-f]{12}")

METRICS = {
    "train/*": None,
    "train/loss": "min,last",
    "eval/*": None,
    "eval/loss": "min,last",
    "eval/perplexity": "min,last",
    "eval/bits_per_byte": "min,last",
    "eval/accuracy": "max,last",
    "sample/*": None,
    "time/*": None,
}
"""What wandb shows over the step, and which of its values stands in a table of runs."""


class WandbTracker:
    """Weights & Biases on a thread of its own, fed through a queue.

    Without WANDB_API_KEY it works offline: no connection is tried, and `wandb sync` uploads later.
    The first exception ends it with one sentence to `warn`; one that hangs is left behind.

    Args:
        run: the run folder; wandb's files go below it.
        chosen: the run's `track` section: `project`, `group`, `name`, `job_type`, `tags`.
        config: what wandb shows as the run's configuration.
        warn: called with a sentence when wandb gives up, and where its files are at the end.
        earlier: rows (step, numbers) of the run so far; those that wandb lacks are copied first.
        patience: seconds to wait for it at the end.
    """

    def __init__(
        self,
        run: Path,
        chosen: Mapping[str, Any],
        config: Mapping[str, Any],
        warn: Callable[[str], None],
        earlier: Iterable[tuple[int, dict[str, Any]]] = (),
        patience: float = 30.0,
    ) -> None:
        self._run, self._chosen, self._config = Path(run), dict(chosen), dict(config)
        self._warn, self._patience = warn, patience
        self._queue: queue.Queue[tuple[int, dict[str, Any]] | bool] = queue.Queue()
        self._failed = False
        for row in earlier:
            self._queue.put(row)
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def log(self, step: int, numbers: dict[str, Any]) -> None:
        """Hand over a row; returns at once."""
        if not self._failed:
            self._queue.put((step, numbers))

    def finish(self, complete: bool = True) -> None:
        """Let it write what it has, and wait a while for it.

        Args:
            complete: whether the last step has all its rows. If not, it is left to the resumed run.
        """
        self._queue.put(complete)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._warn(f"wandb did not end within {self._patience:g} s; metrics.jsonl has the numbers.")

    def _work(self) -> None:
        try:
            note = _note(self._run)
            tracked, offline = _start(self._run, note["id"], self._chosen, self._config)
            copied = note["copied"]
            if not offline and tracked.resumed:
                copied = tracked.step - 1  # what arrived there, not what was handed over before a kill
            gathered: dict[str, Any] = {}
            at = note["handed"] = copied
            while not isinstance(item := self._queue.get(), bool):
                step, numbers = item
                if step > at and gathered:
                    self._send(tracked, note, at, gathered)
                    gathered = {}
                if step > copied:
                    at = step
                    gathered |= numbers
            if item and gathered:
                self._send(tracked, note, at, gathered)
            tracked.finish()
            note["copied"] = note["handed"]
            note["ended"] += [Path(tracked.dir).parent.name] if offline else []
            _keep(self._run, note)
            if offline:
                self._warn(f"wandb's copy is offline; upload it with: wandb sync {self._run / 'wandb'}")
        except ImportError:
            self._failed = True
            self._warn("wandb is not installed: pip install 'interp-workbench[track]'.")
        except BaseException as error:
            self._failed = True
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            self._warn(f"wandb gave up ({reason}); training goes on, metrics.jsonl has the numbers.")

    def _send(self, tracked: Any, note: dict[str, Any], step: int, numbers: dict[str, Any]) -> None:
        """All rows of one step as one row, which wandb never gets again."""
        tracked.log({"step": step, **numbers}, step=step, commit=True)
        note["handed"] = step
        _keep(self._run, note)


def wanted(choice: bool | None) -> bool:
    """Whether to use wandb: as asked, else only if WANDB_API_KEY is set."""
    return bool(os.environ.get("WANDB_API_KEY")) if choice is None else choice


def _note(run: Path) -> dict[str, Any]:
    """What wandb.json says; a new id where there is none. Clears up after calls that never ended."""
    try:
        kept = read_json(run / NOTE)
        note = {"id": _ID.fullmatch(kept["id"])[0], "copied": int(kept["copied"])}  # type: ignore[index]
        note |= {"handed": int(kept["handed"]), "ended": [str(name) for name in kept["ended"]]}
    except (WorkbenchError, KeyError, TypeError, ValueError):
        note = {"id": secrets.token_hex(6), "copied": -1, "handed": -1, "ended": []}
    for folder in (run / "wandb").glob(f"offline-run-*-{note['id']}"):
        if folder.name in note["ended"]:
            continue
        if any(folder.glob("*.synced")):  # it was uploaded before it ended, as far as it went
            note["copied"] = note["handed"]
        else:
            shutil.rmtree(folder, ignore_errors=True)
    _keep(run, note)
    return note


def _keep(run: Path, note: dict[str, Any]) -> None:
    """Without the wait of fsync: a kill loses nothing, and after a power cut a row stands twice."""
    if os.environ.get("WANDB_MODE") == "disabled":
        return  # nothing is copied anywhere
    temporary = run / f".{NOTE}.tmp"
    temporary.write_text(json.dumps(note) + "\n")
    os.replace(temporary, run / NOTE)


def _start(run: Path, name: str, chosen: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Any, bool]:
    """wandb's run, and whether it works offline."""
    import wandb  # type: ignore[import-not-found]

    online = bool(os.environ.get("WANDB_API_KEY"))
    mode = os.environ.get("WANDB_MODE", "online" if online else "offline")
    mode = "offline" if mode == "online" and not online else mode
    folder = run.absolute()
    in_sweep = (folder.parent / "sweep.json").exists()
    tracked = wandb.init(
        project=chosen.get("project"),
        group=chosen.get("group") or (folder.parent.name if in_sweep else None),
        name=chosen.get("name") or folder.name,
        job_type=chosen.get("job_type"),
        tags=list(chosen.get("tags") or ()) or None,
        id=name,
        resume="allow",
        dir=str(folder),
        config=dict(config),
        mode=mode,  # type: ignore[arg-type]
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=30,
            x_disable_stats=True,
            disable_git=True,
            disable_code=True,
        ),
    )
    tracked.define_metric("step", hidden=True)
    for metric, summary in METRICS.items():
        tracked.define_metric(metric, step_metric="step", summary=summary)
    return tracked, mode == "offline"

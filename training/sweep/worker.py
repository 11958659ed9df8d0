"""A process that trains members one after another, so that torch is imported and the corpus opened once.

It reads names of members from its standard input, a line each, and writes one line of JSON to the file
descriptor it was given when one ends. When the input closes, however its parent ended, it saves and leaves.
"""

import contextlib
import gc
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from training.memo import keeping
from training.signals import GENTLE
from training.sweep import folder as names
from training.sweep.member import in_one_line, run_member
from training.sweep.status import TakenError
from workbench.errors import WorkbenchError


def main(arguments: list[str]) -> int:
    """`python -m training.sweep.worker FOLDER FD`."""
    folder, report = Path(arguments[0]), int(arguments[1])

    def say(**message: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # the parent is gone; the input says so too
            os.write(report, (json.dumps(message) + "\n").encode())

    for number in GENTLE:
        signal.signal(number, _leave)
    asked: queue.Queue[str | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(asked, busy), daemon=True).start()
    _import_all()
    say(ready=True)
    threads = _threads()
    with keeping():
        while (name := asked.get()) is not None:
            busy.set()
            say(start=name)
            with _logged(folder, name):
                healthy, message = _one(folder, name)
            busy.clear()
            say(end=name, **message)
            if not healthy:
                return 1
            gc.collect()
            _threads(threads)
    return 0


def _one(folder: Path, name: str) -> tuple[bool, dict[str, Any]]:
    """Run one member; whether the process may go on, and what to tell the parent."""
    try:
        outcome = run_member(folder, name)
    except TakenError as error:
        return True, {"state": "taken", "error": str(error)}
    except WorkbenchError as error:
        with contextlib.suppress(OSError):
            print(f"Error: {in_one_line(error)}", file=sys.stderr)
        return True, {"state": "failed", "error": in_one_line(error)}
    except Exception as error:
        with contextlib.suppress(OSError):
            traceback.print_exc()
        return False, {"state": "failed", "error": in_one_line(error)}
    state = "done" if outcome.finished else "stopped"
    return True, {"state": state, "step": outcome.step, "signal": outcome.signal}


def _listen(asked: "queue.Queue[str | None]", busy: threading.Event) -> None:
    for line in sys.stdin:
        asked.put(line.strip())
    asked.put(None)
    if busy.is_set():  # the parent is gone while a member trains: save it and leave
        os.kill(os.getpid(), signal.SIGTERM)


def _leave(number: int, frame: FrameType | None) -> None:
    """A signal between members: there is nothing to save."""
    os._exit(128 + number)


@contextlib.contextmanager
def _logged(folder: Path, name: str) -> Iterator[None]:
    """Standard output and error go to the member's log."""
    file = names.log_file(folder, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(1), os.dup(2)
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        for stream in (1, 2):
            os.dup2(log, stream)
        yield
    finally:
        with contextlib.suppress(OSError):  # the disk may be full
            sys.stdout.flush()
            sys.stderr.flush()
        for stream, old in zip((1, 2), before, strict=True):
            os.dup2(old, stream)
            os.close(old)
        os.close(log)


def _import_all() -> None:
    """What a training needs, before the first member asks for it."""
    for module in (
        "training.loop",
        "workbench.data.batches",
        "workbench.data.corpus",
        "workbench.data.packing",
        "workbench.model.transformer",
    ):
        import_module(module)


def _threads(count: int | None = None) -> int:
    """Torch's threads; `count` sets them, for a member may have had a number of its own."""
    import torch

    if count is not None and torch.get_num_threads() != count:
        torch.set_num_threads(count)
    return torch.get_num_threads()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

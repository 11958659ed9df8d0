"""One training at a time in a run folder."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.errors import RunError

LOCK = ".lock"


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run folder's lock while the block runs.

    The kernel drops the lock when its process ends, however it ends, so a lock is never stale.

    Raises:
        RunError: another process holds it; the message gives its process id.
    """
    handle = os.open(Path(run) / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        if not _taken(handle, attempts=3):
            owner = os.read(handle, 32).decode(errors="replace").strip()
            raise RunError(
                f"{run} is being trained by process {owner or 'unknown'}; "
                "wait for it, stop it, or train into another folder."
            )
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def is_locked(run: Path) -> bool:
    """Whether a process is training into the run folder now."""
    try:
        handle = os.open(Path(run) / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not _taken(handle, attempts=1)
    finally:
        os.close(handle)


def _taken(handle: int, attempts: int) -> bool:
    for attempt in range(attempts):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if attempt + 1 < attempts:
                time.sleep(0.05)  # `is_locked` holds the lock for an instant
    return False

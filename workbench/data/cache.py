"""The cache of derived data: its folder, locks between processes, and errors of its disk."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.errors import DataError
from workbench.io import FULL_DISK


def cache_root(cache: Path | str | None = None) -> Path:
    """Return the folder for derived data: `cache` if given, else `$WORKBENCH_CACHE`, else
    `~/.cache/workbench`."""
    return Path(cache or os.environ.get("WORKBENCH_CACHE") or "~/.cache/workbench").expanduser()


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold an advisory lock on `path`, which is created if missing, while the block runs.

    The kernel releases the lock of a process that dies. On a file system without locks the block runs
    unlocked (the `filelock` package would wait forever): work may then be done twice, but
    `workbench.io.new_folder` still keeps folders whole.

    Args:
        path: the lock file.
        wait: wait for other holders; if False and there is one, the block runs unlocked.

    Yields:
        True if the lock is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError:
            held = False
        yield held
    finally:
        os.close(handle)


def is_disk_full(error: BaseException | None) -> bool:
    """Return True if this error, or one that caused it, says that the disk is full."""
    while error is not None:
        if isinstance(error, OSError) and (error.errno in FULL_DISK or "Not enough disk space" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def disk_errors(folder: Path, purpose: str) -> Iterator[None]:
    """Turn a full or unwritable disk into an error of one line.

    Args:
        folder: where the block writes.
        purpose: continues "cannot", such as `"pack TinyStories"`.

    Raises:
        DataError: instead of the `OSError`; names the folder and the remedies.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            reason = "the disk is full; free some space"
        elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
            reason = "it is not writable"
        elif isinstance(error, NotADirectoryError | FileExistsError):
            reason = "a file is in the way of that folder"
        else:
            raise
        remedy = "or choose another place with WORKBENCH_CACHE"
        raise DataError(f"cannot {purpose} in {folder}: {reason}, {remedy}.") from None

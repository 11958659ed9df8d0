"""Where derived data lives, and how two processes that want the same piece agree on who makes it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.errors import DataError
from workbench.files import FULL_DISK


def cache_root(cache: Path | str | None = None) -> Path:
    """The folder for derived data: `cache` if given, else `$WORKBENCH_CACHE`, else `~/.cache/workbench`."""
    chosen = cache or os.environ.get("WORKBENCH_CACHE") or "~/.cache/workbench"
    return Path(chosen).expanduser()


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold an advisory lock on `path` while the block runs; others who lock it wait.

    Args:
        path: made if it is not there.
        wait: until nobody else holds it; otherwise the block runs unlocked where somebody does.

    The system frees the lock of a process that dies. On a file system without locks the block runs
    unlocked: work may then be done twice, but `workbench.files.new_folder` still keeps folders whole.

    Yields:
        Whether the lock is held.
    """
    import fcntl

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
    """Whether this error, or one that led to it, says that there is no room left on the disk."""
    while error is not None:
        if isinstance(error, OSError) and (error.errno in FULL_DISK or "Not enough disk space" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def disk_errors(folder: Path, purpose: str) -> Iterator[None]:
    """Turn a full or unwritable disk into one line.

    Args:
        folder: where the block writes.
        purpose: what for, as in `"pack 2.0 MB of stories"`.

    Raises:
        DataError: in place of the `OSError`; names the folder and the remedies.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            why = "the disk is full; free some space"
        elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
            why = "it is not writable"
        elif isinstance(error, NotADirectoryError | FileExistsError):
            why = "a file stands in the way of that folder"
        else:
            raise
        remedy = "or choose another place with WORKBENCH_CACHE"
        raise DataError(f"cannot {purpose} in {folder}: {why}, {remedy}.") from None

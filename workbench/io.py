"""Files that are either complete or absent (temporary name, fsync, rename), and the lock of a run folder.

Nothing is pickled.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.errors import DataError, RunError

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk, a quota or a limit on file sizes leaves no room."""
BAD_DISK = FULL_DISK | {errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV}
"""The disk fails, whatever is written."""


def disk_reason(error: OSError) -> str:
    """Return what is wrong with the disk, to follow a colon in a message."""
    return "the disk is full" if error.errno in FULL_DISK else (error.strerror or str(error))


def read_plain(path: Path, limit: int | None = None) -> bytes:
    """Read a regular file; pipes and devices, which might never end, are refused.

    Args:
        path: the file; a link is followed.
        limit: maximum size in bytes.

    Raises:
        OSError: the file cannot be opened, is not a regular file, or is larger than `limit`.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
        info = os.fstat(stream.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if limit is not None and info.st_size > limit:
            raise OSError(errno.EFBIG, f"it has {info.st_size:,} bytes, over {limit:,}", str(path))
        return stream.read()


def read_hashed(path: Path, digest: object, limit: int | None = None) -> bytes | None:
    """Read a file whose SHA-256 is known; return None if it is unreadable or has other contents.

    Args:
        path: the file; see `read_plain`.
        digest: the expected hexadecimal SHA-256.
        limit: maximum size in bytes.
    """
    try:
        data = read_plain(path, limit)
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == digest else None


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_file(path: Path) -> None:
    """Flush one file's contents to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically: a reader sees the old file or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically (see `write_bytes`)."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically (see `write_bytes`)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing, is not UTF-8, or is not JSON; the message names it.
    """
    try:
        return json.loads(read_plain(path).decode())
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)[:200]
        raise DataError(f"{path} is not a readable JSON file ({reason}).") from None


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def new_folder(path: Path, keep: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Create a folder that appears under its name only if the block succeeds.

    The block fills a temporary folder next to it, whose files are fsynced before it is renamed to `path`. An
    existing folder is moved aside first, so a half-deleted one is never visible. On an exception, Ctrl-C
    included, the temporary folder is removed. A kill leaves only a name that starts with a dot and ends in
    `.tmp`, which readers ignore.

    Args:
        path: the folder.
        keep: called with an existing folder at the end; True keeps it and drops the new one. For processes
            that race to build the same thing: a good folder is then never moved away from its readers.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        os.chmod(temporary, 0o755)
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                fsync_file(file)
        fsync_folder(temporary)
        _put_in_place(temporary, path, keep)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_folder(path.parent)


def _put_in_place(temporary: Path, path: Path, keep: Callable[[Path], bool] | None) -> None:
    """Rename `temporary` to `path`, moving an existing folder aside; another process may do the same."""
    while True:
        try:
            os.rename(temporary, path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if keep is not None and keep(path):
            shutil.rmtree(temporary)
            return
        old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
        try:
            os.rename(path, old)
        except FileNotFoundError:
            old.rmdir()
            continue
        try:
            os.rename(temporary, path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                shutil.rmtree(old, ignore_errors=True)
                continue
            os.rename(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
        return


LOCK = ".lock"


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run folder's lock while the block runs.

    The kernel releases the lock when its process ends, however it ends, so a lock is never stale. The file
    holds the process id for other processes' messages; `filelock` would truncate it whenever one looks.

    Raises:
        RunError: another process holds it; the message names its process id.
    """
    handle = os.open(Path(run) / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        if not _acquire(handle, attempts=3):
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
    """Return True if a process is training into the run folder."""
    try:
        handle = os.open(Path(run) / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not _acquire(handle, attempts=1)
    finally:
        os.close(handle)


def _acquire(handle: int, attempts: int) -> bool:
    for attempt in range(attempts):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if attempt + 1 < attempts:
                time.sleep(0.05)  # `is_locked` holds the lock for a moment
    return False

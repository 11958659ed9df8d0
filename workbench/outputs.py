"""Tables and pictures that commands write with --out, each in one step."""

import errno
import io
import os
from pathlib import Path
from typing import Any

from workbench.errors import ConfigError, shown
from workbench.files import write_bytes


def save_table(path: Path, frame: Any) -> None:
    """Write a data frame as parquet, without its index."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    _write(path, buffer.getvalue())


def save_picture(path: Path, figure: Any) -> None:
    """Write a matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    _write(path, buffer.getvalue())


def _write(path: Path, data: bytes) -> None:
    try:
        write_bytes(path, data)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(f"{shown(str(path))} cannot be written: {error.strerror}.") from None


def records(frame: Any) -> list[dict[str, Any]]:
    """A data frame's rows as plain values for JSON; None where there is no number."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def out_folder(name: str) -> Path:
    """The folder that --out names, before any work is done for it; nothing is made yet.

    Raises:
        ConfigError: a file, or nothing that could become a folder.
    """
    folder = Path(name)
    try:
        stands = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    except OSError as error:
        raise ConfigError(f"--out {shown(name)} cannot be a folder: {error.strerror}.") from None
    if not stands.is_dir():
        raise ConfigError(
            f"--out {shown(name)}: {shown(str(stands))} is a file, not a folder; choose another name."
        )
    if not os.access(stands, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--out {shown(name)}: nothing may be written in {shown(str(stands))}; choose another place."
        )
    return folder

"""Tables and pictures that verbs write with --out, each in one step. Not a verb."""

import io
from pathlib import Path
from typing import Any

from workbench.files import write_bytes


def save_table(path: Path, frame: Any) -> None:
    """Write a data frame as parquet, without its index."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())


def save_picture(path: Path, figure: Any) -> None:
    """Write a matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    write_bytes(path, buffer.getvalue())


def records(frame: Any) -> list[dict[str, Any]]:
    """A data frame's rows as plain values for JSON; None where there is no number."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")

"""What a family takes on the disk, member by member, and the limit that it must keep."""

from pathlib import Path
from typing import Any

from workbench.errors import RunError
from workbench.runs.folder import run_folders

LIMIT = 24_000_000
"""Bytes of all files together; a megabyte is a million bytes here."""
_GROUPS = {"weights": ".safetensors", "pairs": ".parquet", "curves": ".jsonl"}


def table(family: Path) -> list[dict[str, Any]]:
    """Bytes of each member by kind of file; what members share as `shared`; the sum as `all`."""
    rows = [_row(member.name, member.rglob("*")) for member in run_folders(family)]
    rows.append(_row("shared", family.glob("*")))
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "member"}
    return [*rows, {"member": "all", **total}]


def _row(name: str, files: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"member": name, **dict.fromkeys(_GROUPS, 0), "text": 0, "bytes": 0}
    for file in files:
        if file.is_file():
            size = file.stat().st_size
            row[next((group for group, end in _GROUPS.items() if file.suffix == end), "text")] += size
            row["bytes"] += size
    return row


def print_sizes(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    width = max(len(row["member"]) for row in rows)
    keys = [key for key in rows[0] if key != "member"]
    print("member".ljust(width) + "".join(f"{key:>13}" for key in keys))
    for row in rows:
        print(row["member"].ljust(width) + "".join(f"{row[key]:>13,}" for key in keys))


def refuse_too_large(rows: list[dict[str, Any]], limit: int | None = None) -> None:
    """Refuse a family beyond the limit, `LIMIT` if not set.

    Raises:
        RunError: with the bytes too many and the largest member.
    """
    total, limit = rows[-1]["bytes"], LIMIT if limit is None else limit
    if total > limit:
        largest = max(rows[:-1], key=lambda row: row["bytes"])
        raise RunError(
            f"the family has {total:,} bytes, {total - limit:,} over the limit of {limit:,}; keep fewer "
            f"--checkpoints or leave out a member ({largest['member']} is the largest, {largest['bytes']:,})."
        )

"""Minimal pairs on this machine, for results that came without their sentences. Nothing is downloaded."""

import os
from collections.abc import Iterator
from pathlib import Path

from workbench.data.pairs import PairSet, open_pairs
from workbench.errors import WorkbenchError

HERE = Path(__file__).resolve().parents[2]
USUAL = ("../shared/data", "data", ".")
"""Folders, beside the current one and the checkout, in which a set of pairs is looked for by its name."""
HUB = {"blimp": "datasets--nyu-mll--blimp"}
"""Set -> its folder in the hub's cache, where an earlier download lies."""


def find_pairs(name: str, source: str, fingerprint: str, data: str | None = None) -> PairSet | None:
    """The set of pairs that a result was made with, if this machine has it.

    Args:
        name: the set's, `blimp`.
        source: `embedded` for those that come with the package.
        fingerprint: the set must have it.
        data: a folder of pairs, or one that holds such folders, to look in first.
    """
    if source == "embedded":
        return fitting(None, fingerprint)
    for place in dict.fromkeys(map(str, places(name, data))):
        if (found := fitting(place, fingerprint)) is not None:
            return found
    return None


def places(name: str, data: str | None = None) -> Iterator[Path]:
    """Where the set called `name` may lie; see `find_pairs`."""
    if data is not None:
        yield from filter(os.path.exists, (Path(data).expanduser(), Path(data).expanduser() / name))
    for base in (Path(), HERE):
        yield from (place for usual in USUAL if (place := (base / usual / name).resolve()).is_dir())
    if name in HUB:
        home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
        hub = Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
        yield from sorted((hub / HUB[name] / "snapshots").glob("*"))


def fitting(place: str | None, fingerprint: str) -> PairSet | None:
    """The pairs of one place (None: the embedded ones), if they can be read and have the fingerprint."""
    try:
        found = open_pairs(place)
    except (WorkbenchError, OSError):
        return None
    return found if found.fingerprint == fingerprint else None

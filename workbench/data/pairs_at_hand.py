"""Minimal pairs on this machine, for results that came without their sentences. Nothing is downloaded."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from workbench.data.pairs import Pair, PairSet, open_pairs
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


def holds(place: str | None, fingerprint: str) -> bool:
    """Whether a place has the pairs of this fingerprint (None: the embedded ones). BLiMP's folder takes a
    quarter of a second; the pairs themselves are not made."""
    if place is None:
        from workbench.data.embedded.pairs import FINGERPRINT

        return fingerprint == FINGERPRINT
    found = _hub_fingerprint(Path(place))
    return found == fingerprint if found else fitting(place, fingerprint) is not None


def paradigm_of(place: str | None, paradigm: str) -> list[Pair]:
    """The pairs of one paradigm of a place; of a folder in hub layout no other file is read.

    Raises:
        DataError: they cannot be read, or there are none.
    """
    from workbench.data.pair_files import read_folder

    if place is not None and (Path(place) / paradigm).is_dir():
        found = [pair for pair in read_folder(Path(place), paradigm) if pair.uid == paradigm]
        if found:
            return found
    return list(open_pairs(place).select([paradigm]).paradigms[paradigm])


def _hub_fingerprint(folder: Path) -> str | None:
    """`PairSet.fingerprint` of a folder in hub layout; None where it is another folder, or has files of
    several paradigms."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(folder.glob("*/train*.parquet"))
    wanted = ["UID", "sentence_good", "sentence_bad"]
    rows: dict[str, list[str]] = {}
    try:
        for file in files:
            table = pq.ParquetFile(file).read(wanted)
            uids, good, bad = (table.column(name).to_pylist() for name in wanted)
            if len(set(uids)) != 1:
                return None
            lines = rows.setdefault(uids[0], [])
            lines += [f"{uids[0]}\0{one}\0{other}\0" for one, other in zip(good, bad, strict=True)]
    except (pa.ArrowException, OSError, KeyError, TypeError):
        return None
    digest = hashlib.sha256("".join("".join(rows[uid]) for uid in sorted(rows)).encode())
    return digest.hexdigest()[:16] if rows else None


def fitting(place: str | None, fingerprint: str) -> PairSet | None:
    """The pairs of one place (None: the embedded ones), if they can be read and have the fingerprint."""
    if place is None and not holds(None, fingerprint):
        return None
    try:
        found = open_pairs(place)
    except (WorkbenchError, OSError):
        return None
    return found if found.fingerprint == fingerprint else None

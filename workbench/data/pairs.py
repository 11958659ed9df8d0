"""Minimal pairs: the embedded ones, BLiMP (local or from the hub), or a folder or file of the user's own.

BLiMP: Warstadt et al. 2020, TACL 8:377-392; 67 paradigms of 1,000 pairs under 12 phenomena.
"""

import codecs
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.data.phenomena import BLIMP, Pair, phenomenon_of
from workbench.data.sources import wide_encoding
from workbench.errors import DataError, WorkbenchError, nearest, shown

BLIMP_PAIRS = 1000
"""Pairs of each BLiMP paradigm."""


@dataclass(frozen=True)
class PairSet:
    """Minimal pairs by paradigm.

    Attributes:
        name: "embedded", "blimp", or the name of the folder or file.
        source: "embedded", "blimp" (every paradigm is one of BLiMP's 67; `describe_pairs` shows whether it
            is all of BLiMP), or "folder".
        paradigms: UID -> pairs, UIDs in alphabetical order.
    """

    name: str
    source: str
    paradigms: Mapping[str, Sequence[Pair]]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return sum(map(len, self.paradigms.values()))

    def __repr__(self) -> str:
        return f"PairSet({self.name!r}, {len(self.paradigms)} paradigms, {len(self)} pairs)"

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, paradigm by paradigm."""
        return [pair for pairs in self.paradigms.values() for pair in pairs]

    def phenomena(self) -> dict[str, str]:
        """Return UID -> phenomenon."""
        return {uid: pairs[0].phenomenon for uid, pairs in self.paradigms.items()}

    @cached_property
    def sha256(self) -> str:
        """SHA-256 that changes with any paradigm, sentence or order of pairs."""
        digest = hashlib.sha256()
        for pair in self.pairs:
            digest.update(_hashed_row(pair.uid, pair.sentence_good, pair.sentence_bad))
        return digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """First 16 digits of `sha256`, which results are stored with."""
        return self.sha256[:16]

    def select(self, paradigms: str | Iterable[str] | None = None, limit: int | None = None) -> "PairSet":
        """Return the set restricted to these paradigms and to the first `limit` pairs of each.

        Raises:
            DataError: no paradigm, an unknown one (the nearest is named), or a limit below 1.
        """
        if limit is not None and limit < 1:
            raise DataError(f"limit={limit}: at least 1 pair per paradigm.")
        if isinstance(paradigms, str):
            paradigms = [paradigms]
        prefix = f"{self.source}_"  # tables leave it out
        selected = [
            prefix + uid if uid not in self.paradigms and prefix + uid in self.paradigms else uid
            for uid in (self.paradigms if paradigms is None else paradigms)
        ]
        if not selected:
            raise DataError(
                f"{self.name}: no paradigms were selected; omit the selection to use all of them."
            )
        for uid in selected:
            if uid not in self.paradigms:
                raise DataError(f"{self.name} has no paradigm {uid!r}. {nearest(uid, self.paradigms)}")
        return PairSet(
            self.name,
            self.source,
            {uid: pairs[:limit] for uid, pairs in self.paradigms.items() if uid in selected},
        )


@dataclass(frozen=True)
class PairSetInfo:
    """Name, size and hash of a set of pairs, for results and tables."""

    name: str
    """`blimp` only for all of BLiMP; for a part of it the paradigm or `blimp (3 of 67 paradigms)`."""
    n_paradigms: int
    n_pairs: int
    sha256: str
    """Hash of the content, `PairSet.sha256`."""
    part_of: str | None
    """`blimp` if pairs or paradigms of BLiMP are missing, else None."""


def describe_pairs(pairs: PairSet) -> PairSetInfo:
    """Return the name, size and content hash of a set, and whether it is only a part of BLiMP."""
    n_paradigms, name, part_of = len(pairs.paradigms), pairs.name, None
    sizes = {uid: len(rows) for uid, rows in pairs.paradigms.items()}
    if pairs.source == "blimp" and sizes != dict.fromkeys(BLIMP, BLIMP_PAIRS):
        part_of = "blimp"
        if n_paradigms == 1:
            (name,) = sizes
        elif n_paradigms < len(BLIMP):
            name = f"blimp ({n_paradigms} of {len(BLIMP)} paradigms)"
        else:
            name = f"blimp ({len(pairs):,} of {BLIMP_PAIRS * len(BLIMP):,} pairs)"
    return PairSetInfo(name, n_paradigms, len(pairs), pairs.sha256, part_of)


def open_pairs(source: str | Path | None = None) -> PairSet:
    """Open minimal pairs.

    Args:
        source: None or "embedded"; a folder in hub layout (`<paradigm>/train-*.parquet`) or of .jsonl
            files; one .jsonl or .parquet file; a hub name such as `nyu-mll/blimp`. Rows have
            `sentence_good` and `sentence_bad`; without `UID`, the file or folder name is the paradigm;
            without `pair_id`, pairs are numbered. An existing path takes precedence over a hub name.

    Raises:
        DataError: nothing there, nothing in it, or a file or row that is not pairs; the message names the
            file and the line. Equal sentences are refused (except the seven such pairs of BLiMP itself), and
            so are two pairs of a paradigm with the same `pair_id`.
    """
    if source is None or source == "embedded":
        from workbench.data.embedded.pairs import embedded_pairs

        return PairSet("embedded", "embedded", dict(sorted(embedded_pairs().items())))
    name, pairs = _find(str(source))
    paradigms: dict[str, list[Pair]] = {}
    for pair in pairs:
        paradigms.setdefault(pair.uid, []).append(pair)
    if not paradigms:
        raise DataError(f"{source} holds no pairs: its files are empty.")
    kind = "blimp" if paradigms.keys() <= BLIMP.keys() else "folder"
    return PairSet("blimp" if kind == "blimp" else name, kind, dict(sorted(paradigms.items())))


_PATTERNS = ("*/train*.parquet", "*/*.parquet", "*.jsonl")
_FLAGS = {
    "simple_LM_method": True,
    "one_prefix_method": False,
    "two_prefix_method": False,
    "lexically_identical": False,
}


def _find(source: str) -> tuple[str, Iterator[Pair]]:
    """Return a short name and the pairs of a folder, a file or a hub name."""
    try:
        path = Path(source).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown ~user, a null byte
        path, is_folder, is_file = Path(), False, False
    if is_folder:
        return path.resolve().name, _read_folder(path)
    if is_file:
        return path.stem, _read_files([path])
    if source.count("/") == 1 and not source.startswith((".", "/", "~")) and not source.endswith("/"):
        return source.split("/")[1], _read_folder(_fetch(source))
    raise DataError(
        f"No pairs at {shown(source, 500)!r}: no such folder. "
        f"{nearest(source, ['embedded', 'nyu-mll/blimp'])} "
        "A folder of parquet or .jsonl files works as well."
    )


def _fetch(name: str) -> Path:
    """Return the folder of a hub data set in the local cache; downloaded once, then used without network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(
            snapshot_download(name, repo_type="dataset", allow_patterns=list(_PATTERNS), etag_timeout=8)
        )
    except RepositoryNotFoundError:
        raise DataError(
            f"{name!r} is neither a local folder nor a data set on the hub; check the name."
        ) from None
    except Exception as error:  # the hub's client passes on the errors of its HTTP library
        raise DataError(
            f"{name!r} is not a local folder, and the hub cannot be reached "
            f"({_reason(error.__cause__ or error)}); pass a local folder with its files, or omit it for the "
            "embedded pairs."
        ) from None


def _read_folder(folder: Path, paradigm: str | None = None) -> Iterator[Pair]:
    """Yield the pairs of a folder; in hub layout optionally of one paradigm's files only."""
    for pattern in _PATTERNS:
        if paradigm is not None:
            pattern = pattern.replace("*/", f"{glob.escape(paradigm)}/")
        if files := sorted(folder.glob(pattern)):
            yield from _read_files(files)
            return
    raise DataError(
        f"{folder} holds no pairs: found neither <paradigm>/*.parquet, as on the hub, nor *.jsonl."
    )


def _read_files(files: Sequence[Path]) -> Iterator[Pair]:
    """Yield pairs whose (paradigm, pair_id) is unique.

    Pairs without a number get that of their row in the file; where earlier files already have pairs of the
    paradigm, counting continues after the largest number among them.
    """
    seen: dict[str, set[int]] = {}
    for file in files:
        offsets = {uid: max(ids) + 1 for uid, ids in seen.items()}
        parquet = file.suffix.lower() == ".parquet"
        hub_layout = parquet and (len(files) > 1 or file.stem.startswith("train"))
        paradigm = file.parent.name if hub_layout else file.stem
        rows = _parquet_rows(file) if parquet else _jsonl_rows(file)
        for number, (row, where) in enumerate(rows):
            pair = _pair(row, paradigm, number, offsets, where)
            ids = seen.setdefault(pair.uid, set())
            if pair.pair_id in ids:
                raise DataError(
                    f"{where}: paradigm {pair.uid!r} already has a pair with pair_id {pair.pair_id}; "
                    "number its pairs differently, or leave pair_id out."
                )
            ids.add(pair.pair_id)
            yield pair


def _parquet_rows(file: Path) -> Iterator[tuple[dict[str, Any], str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.ParquetFile(file).read().to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file} is not a readable parquet file ({_reason(error)}); fetch it again."
        ) from None
    for number, values in enumerate(zip(*columns.values(), strict=True), start=1):
        yield dict(zip(columns, values, strict=True)), f"{file}, row {number}"


def _jsonl_rows(file: Path) -> Iterator[tuple[dict[str, Any], str]]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}).") from None
    if encoding := wide_encoding(data):
        raise DataError(
            f"{file} is {encoding}; convert it to UTF-8, such as with iconv -f {encoding} -t UTF-8."
        )
    for line, raw in enumerate(data.removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        if not raw.strip():
            continue
        where = f"{file}, line {line}"
        try:
            row = json.loads(raw.decode())
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8.") from None
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error}); each line is one JSON object.") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: a JSON {type(row).__name__}, not an object with both sentences.")
        yield row, where


def _pair(row: Mapping[str, Any], paradigm: str, number: int, offsets: Mapping[str, int], where: str) -> Pair:
    good, bad = _sentence(row, "sentence_good", where), _sentence(row, "sentence_bad", where)
    uid, term = str(row.get("UID") or paradigm), str(row.get("linguistics_term") or "")
    if good == bad and uid not in BLIMP:
        raise DataError(
            f"{where}: sentence_good and sentence_bad are equal, so neither can win; remove the pair."
        )
    pair_id = row.get("pair_id", row.get("pairID", number + offsets.get(uid, 0)))
    if not str(pair_id).isdecimal():
        raise DataError(f"{where}: field 'pair_id' is {pair_id!r}, not a whole number from 0 up.")
    return Pair(
        sentence_good=good,
        sentence_bad=bad,
        uid=uid,
        phenomenon=phenomenon_of(uid, term),
        pair_id=int(pair_id),
        field=str(row.get("field") or ""),
        linguistics_term=term,
        **{flag: bool(row.get(flag, default)) for flag, default in _FLAGS.items()},
    )


def _sentence(row: Mapping[str, Any], field: str, where: str) -> str:
    if field not in row:
        raise DataError(f"{where}: field {field!r} is missing; it has {', '.join(map(str, row)) or 'none'}.")
    if not isinstance(row[field], str) or not row[field].strip():
        raise DataError(f"{where}: field {field!r} is {row[field]!r}, not a sentence.")
    return row[field]


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _hashed_row(uid: str, good: str, bad: str) -> bytes:
    return f"{uid}\0{good}\0{bad}\0".encode()


# Results are shipped without their sentences. The functions below find the pairs again on this machine, by
# their fingerprint; nothing is downloaded.

_CHECKOUT = Path(__file__).resolve().parents[2]
_SEARCHED = ("../shared/data", "data", ".")
"""Folders, relative to the current one and to the checkout, that are searched for a set by its name."""
_HUB_CACHE = {"blimp": "datasets--nyu-mll--blimp"}
"""Set -> its folder in the hub's cache."""


def find_pairs(name: str, source: str, fingerprint: str, data: str | None = None) -> PairSet | None:
    """Return the set of pairs that a result was computed on, or None if this machine does not have it.

    Args:
        name: the set's name, such as `blimp`.
        source: `embedded` for the embedded pairs.
        fingerprint: of the set.
        data: a folder of pairs, or one with such folders, to search first.
    """
    if source == "embedded":
        return open_matching(None, fingerprint)
    for place in dict.fromkeys(map(str, candidate_folders(name, data))):
        if (pairs := open_matching(place, fingerprint)) is not None:
            return pairs
    return None


def candidate_folders(name: str, data: str | None = None) -> Iterator[Path]:
    """Yield existing folders that may hold the set `name`; see `find_pairs`."""
    if data is not None:
        yield from filter(os.path.exists, (Path(data).expanduser(), Path(data).expanduser() / name))
    for base in (Path(), _CHECKOUT):
        yield from (place for folder in _SEARCHED if (place := (base / folder / name).resolve()).is_dir())
    if name in _HUB_CACHE:
        home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
        hub = Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
        yield from sorted((hub / _HUB_CACHE[name] / "snapshots").glob("*"))


def has_fingerprint(place: str | None, fingerprint: str) -> bool:
    """Return True if the pairs at `place` (None: the embedded ones) have this fingerprint.

    Reads only the sentences of a folder in hub layout (BLiMP: 0.7 s instead of 4 s for `open_pairs`).
    """
    if place is None:
        from workbench.data.embedded.pairs import FINGERPRINT

        return fingerprint == FINGERPRINT
    found = _hub_fingerprint(Path(place))
    return found == fingerprint if found else open_matching(place, fingerprint) is not None


def read_paradigm(place: str | None, paradigm: str) -> list[Pair]:
    """Return the pairs of one paradigm; of a folder in hub layout no other file is read.

    Raises:
        DataError: they cannot be read, or there are none.
    """
    if place is not None and (Path(place) / paradigm).is_dir():
        pairs = [pair for pair in _read_folder(Path(place), paradigm) if pair.uid == paradigm]
        if pairs:
            return pairs
    return list(open_pairs(place).select(paradigm).paradigms[paradigm])


def open_matching(place: str | None, fingerprint: str) -> PairSet | None:
    """Return the pairs at `place` (None: the embedded ones) if they are readable and have the fingerprint."""
    if place is None and not has_fingerprint(None, fingerprint):
        return None
    try:
        pairs = open_pairs(place)
    except (WorkbenchError, OSError):
        return None
    return pairs if pairs.fingerprint == fingerprint else None


def _hub_fingerprint(folder: Path) -> str | None:
    """Return `PairSet.fingerprint` of a folder in hub layout; None if it is not one, or if a file has several
    paradigms."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["UID", "sentence_good", "sentence_bad"]
    rows: dict[str, list[bytes]] = {}
    try:
        for file in sorted(folder.glob("*/train*.parquet")):
            table = pq.ParquetFile(file).read(columns)
            uids, good, bad = (table.column(name).to_pylist() for name in columns)
            if len(set(uids)) != 1:
                return None
            rows.setdefault(uids[0], []).extend(map(_hashed_row, uids, good, bad))
    except (pa.ArrowException, OSError, KeyError, TypeError):
        return None
    digest = hashlib.sha256(b"".join(b"".join(rows[uid]) for uid in sorted(rows)))
    return digest.hexdigest()[:16] if rows else None

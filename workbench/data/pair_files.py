"""Minimal pairs in parquet and .jsonl files, local or of the hub; `pairs.open_pairs` is the door."""

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.data.pairs import Pair
from workbench.data.phenomena import BLIMP, phenomenon_of
from workbench.errors import DataError, nearest

_PATTERNS = ("*/train*.parquet", "*/*.parquet", "*.jsonl")
_FLAGS = {
    "simple_LM_method": True,
    "one_prefix_method": False,
    "two_prefix_method": False,
    "lexically_identical": False,
}


def read_pairs(source: str) -> tuple[str, Iterable[Pair]]:
    """A short name and the pairs of a local folder, a .jsonl file, or a hub name (see `pairs.open_pairs`)."""
    path = Path(source).expanduser()
    if os.path.isdir(path):
        return path.resolve().name, read_folder(path)
    if os.path.isfile(path):
        return path.stem, _read_jsonl(path)
    if source.count("/") == 1 and not source.startswith((".", "/", "~")) and not source.endswith("/"):
        return source.split("/")[1], read_folder(_fetch(source))
    raise DataError(
        f"No pairs at {source!r}: no such folder. {nearest(source, ['embedded', 'nyu-mll/blimp'])} "
        "A folder of parquet or .jsonl files does as well."
    )


def _fetch(name: str) -> Path:
    """The hub's files, in its cache on this machine: downloaded once, and found there without a network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(
            snapshot_download(name, repo_type="dataset", allow_patterns=list(_PATTERNS), etag_timeout=8)
        )
    except RepositoryNotFoundError:
        raise DataError(
            f"{name!r} is neither a folder here nor a data set of the hub; check the name."
        ) from None
    except Exception as error:  # the hub's client lets the errors of its HTTP library through
        raise DataError(
            f"{name!r} is no folder here, and the hub is out of reach ({_reason(error.__cause__ or error)}); "
            "pass a local folder that holds its files, or leave it out for the embedded pairs."
        ) from None


def read_folder(folder: Path, paradigm: str | None = None) -> Iterator[Pair]:
    """The pairs of a folder, file by file.

    Args:
        folder: in hub layout, or of .jsonl files.
        paradigm: only the files of its folder, in hub layout.
    """
    for pattern in _PATTERNS:
        if paradigm is not None:
            pattern = pattern.replace("*/", f"{glob.escape(paradigm)}/")
        if files := sorted(folder.glob(pattern)):
            for file in files:
                yield from _read_jsonl(file) if file.suffix == ".jsonl" else _read_parquet(file)
            return
    raise DataError(
        f"{folder} holds no pairs: neither <paradigm>/*.parquet, as on the hub, nor *.jsonl was found in it."
    )


def _read_parquet(file: Path) -> Iterator[Pair]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.ParquetFile(file).read().to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file} is not a readable parquet file ({_reason(error)}); fetch it again."
        ) from None
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        yield _pair(
            dict(zip(columns, values, strict=True)), file.parent.name, number, f"{file}, row {number + 1}"
        )


def _read_jsonl(file: Path) -> Iterator[Pair]:
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}).") from None
    number = 0
    for line, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        where = f"{file}, line {line}"
        try:
            row = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8.") from None
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error}); each line is one JSON object.") from None
        if not isinstance(row, dict):
            raise DataError(
                f"{where}: a JSON {type(row).__name__}, where an object with both sentences goes."
            )
        yield _pair(row, file.stem, number, where)
        number += 1


def _pair(row: Mapping[str, Any], paradigm: str, number: int, where: str) -> Pair:
    good, bad = _sentence(row, "sentence_good", where), _sentence(row, "sentence_bad", where)
    uid, term = str(row.get("UID") or paradigm), str(row.get("linguistics_term") or "")
    if good == bad and uid not in BLIMP:
        raise DataError(
            f"{where}: sentence_good and sentence_bad are equal, so neither can win; drop the pair."
        )
    pair_id = row.get("pair_id", row.get("pairID", number))
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

"""From what `--data` names to columns of text, through `datasets`: files, folders in hub layout, the hub.

The library's Arrow copy goes to its own cache (`HF_DATASETS_CACHE`) or to the folder given, under a name made
from the files' contents, so an edited file is read anew whatever its date says.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from workbench.data.hub import read_hub
from workbench.data.reading import (
    FOLDER_HINT,
    KINDS,
    check_column,
    columns_of,
    kind_of,
    missing,
    one_line,
    quiet,
    str_or_none,
)
from workbench.data.stories_io import READERS_VERSION, read_jsonl, read_txt, scan
from workbench.errors import DataError

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", re.ASCII)


@dataclass(frozen=True)
class Source:
    """Columns of text as `datasets` holds them on disk: split name to `pyarrow.ChunkedArray` of strings."""

    name: str
    where: str
    splits: dict[str, Any]


def read_source(source: str, column: str = "text", cache: Path | None = None) -> Source:
    """Read a file, a folder in hub layout, or a data set of the hub (`owner/name[:configuration]`).

    Args:
        source: the path or name; a path that exists wins over a name of the hub.
        column: which column holds the stories.
        cache: folder for the Arrow copies in place of the `datasets` library's own.

    Raises:
        DataError: whatever is wrong with it, in one line.
    """
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    if not source.strip() or len(source) > 4096 or not source.isprintable():
        raise DataError(f"{source[:40]!r} is no path and no name of the hub.")
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}.") from None
    if is_folder:
        name, where, read = path.resolve().name, str(path.resolve()), partial(_folder, path.resolve())
    elif exists:
        if not path.is_file():
            raise DataError(f"{source} is neither a file nor a folder.")
        if suffix not in KINDS:
            raise DataError(
                f"{source}: a corpus file ends in {', '.join(KINDS)}, not in {suffix or 'nothing'}; "
                "a .txt file has <|endoftext|> between stories."
            )
        name, where = path.stem, str(path.resolve())
        read = partial(_files, KINDS[suffix], {"train": [str(path.resolve())]})
    elif HUB_NAME.fullmatch(source) and suffix not in KINDS:
        name, where, read = source.partition("/")[2], source, partial(read_hub, source)
    else:
        raise DataError(f"{source} does not exist. {missing(path)}")
    try:
        with quiet(bars=read.func is read_hub and sys.stderr.isatty()), one_line(source):
            splits = read(column, cache)
    except DataError as error:
        raise DataError(" ".join(str(error).split())) from None
    return Source(name, where, splits)


def _files(kind: str, files: dict[str, list[str]], column: str, cache: Path | None) -> dict[str, Any]:
    import datasets

    digests = {split: [scan(Path(file), text=kind != "parquet") for file in files[split]] for split in files}
    key = _key(kind, digests, column)
    if kind == "parquet":
        _look_into_parquet(files, column)
        builder = datasets.load_dataset_builder("parquet", data_files=files, cache_dir=str_or_none(cache))
        return _prepared(builder, key, column, cache)
    reader: Callable[..., Iterator[dict[str, Any]]] = read_txt if kind == "text" else read_jsonl
    splits = {}
    for split, paths in files.items():
        if not any(Path(path).stat().st_size for path in paths):
            continue
        # A list among gen_kwargs would be taken for shards, one for each process; the partial hides it.
        splits[split] = datasets.Dataset.from_generator(
            partial(reader, paths, column),
            features=datasets.Features({column: datasets.Value("string")}),
            cache_dir=str_or_none(cache),  # type: ignore[arg-type]
            fingerprint=f"{key}-{split}",
        )
    return columns_of(splits, column)


def _folder(path: Path, column: str, cache: Path | None) -> dict[str, Any]:
    import datasets

    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        raise DataError(f"{path} was written by save_to_disk; write it with to_parquet and give that folder.")
    _stay_at_home(path)
    try:
        builder = datasets.load_dataset_builder(str(path), cache_dir=str_or_none(cache))
    except FileNotFoundError:
        raise DataError(f"{path} holds no data; {FOLDER_HINT}.") from None
    kind = kind_of(builder, str(path))
    found = builder.config.data_files or {}
    files = {str(split): sorted(str(file) for file in listed) for split, listed in found.items()}
    paths = [file for listed in files.values() for file in listed]
    if kind == "parquet":
        _look_into_parquet(files, column)
    if kind in ("text", "json") and all(KINDS.get(Path(file).suffix.lower()) == kind for file in paths):
        return _files(kind, files, column, cache)
    digests = {split: [scan(Path(file), text=False) for file in listed] for split, listed in files.items()}
    return _prepared(builder, _key(kind, digests, column, builder.dataset_name), column, cache)


def _stay_at_home(path: Path) -> None:
    """Refuse a local folder whose README.md names data files on the network, before they are asked for."""
    from datasets import config
    from huggingface_hub import DatasetCard

    for name in (config.REPOCARD_FILENAME, config.REPOYAML_FILENAME):
        if (path / name).is_file():
            text = (path / name).read_text(encoding="utf-8")
            card = DatasetCard(text if name.endswith(".md") else f"---\n{text}\n---\n").data.to_dict()
            if away := re.search(r"[a-z0-9+]{2,}://[^'\"\s]+", str(card.get("configs"))):
                raise DataError(
                    f"{path / name} names data elsewhere ({away[0]}); download it into the folder first."
                )


def _look_into_parquet(files: dict[str, list[str]], column: str) -> None:
    """Refuse a wrong column or an empty file before anything is copied."""
    import pyarrow.parquet as pq

    rows = 0
    for file in (file for listed in files.values() for file in listed):
        if not Path(file).stat().st_size:
            raise DataError(f"{file} holds no stories: it is empty.")
        with pq.ParquetFile(file) as parquet:
            check_column(parquet.schema_arrow.names, column, file)
            rows += parquet.metadata.num_rows
    if not rows:
        raise DataError(f"{next(iter(files.values()))[0]} holds no stories: it has no rows.")


def _prepared(builder: Any, key: str, column: str, cache: Path | None) -> dict[str, Any]:
    from datasets import config

    root = Path(cache or config.HF_DATASETS_CACHE)
    builder.download_and_prepare(output_dir=str(root / "workbench" / key))
    return columns_of(builder.as_dataset(), column)


def _key(kind: str, digests: dict[str, list[str]], column: str, name: str = "") -> str:
    recipe = json.dumps([READERS_VERSION, kind, digests, column, name], sort_keys=True)
    return hashlib.sha256(recipe.encode()).hexdigest()[:24]

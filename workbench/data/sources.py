"""Columns of text from what `--data` names: files, folders in hub layout, data sets of the hub.

All are read through `datasets`. Its Arrow copy goes to its own cache (`HF_DATASETS_CACHE`) or to a given
folder, under a name made from the files' contents, so that an edited file is read anew whatever its date.
"""

import codecs
import hashlib
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.data.cache import is_disk_full
from workbench.errors import DataError, nearest

if TYPE_CHECKING:
    from datasets import DatasetBuilder
    from pyarrow import ChunkedArray

KINDS = {".txt": "text", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", re.ASCII)
HUB_SECONDS = 4.0
READERS_VERSION = 1
SEPARATOR = "<|endoftext|>"
LONGEST_STORY = 64 * 2**20
"""Characters; a text without a separator for this long is not a file of stories."""
_EXAMPLE = "roneneldan/TinyStories"
_FOLDER_HINT = "put .parquet, .jsonl or .txt files into it, such as train.parquet and validation.parquet"
_BUILDERS = ("parquet", "json", "text", "csv", "arrow", "cache")


@dataclass(frozen=True)
class Source:
    """Columns of text, memory-mapped from the Arrow files of `datasets`.

    Attributes:
        name: short name for tables.
        where: absolute path or hub name.
        splits: split name -> column of strings.
    """

    name: str
    where: str
    splits: "dict[str, ChunkedArray]"


def read_source(source: str, column: str = "text", cache: Path | None = None) -> Source:
    """Read a file, a folder in hub layout, or a data set of the hub (`owner/name[:configuration]`).

    Args:
        source: the path or name; an existing path takes precedence over a hub name.
        column: which column holds the stories.
        cache: folder for the Arrow copies instead of the `datasets` library's own.

    Raises:
        DataError: it cannot be read; one line says why.
    """
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    if not source.strip() or len(source) > 4096 or not source.isprintable():
        raise DataError(f"{source[:40]!r} is neither a path nor a hub name.")
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


def _files(
    kind: str, files: dict[str, list[str]], column: str, cache: Path | None
) -> "dict[str, ChunkedArray]":
    import datasets

    digests = {split: [scan(Path(file), text=kind != "parquet") for file in files[split]] for split in files}
    key = _key(kind, digests, column)
    if kind == "parquet":
        _check_parquet(files, column)
        builder = datasets.load_dataset_builder(
            "parquet", data_files=files, cache_dir=None if cache is None else str(cache)
        )
        return _prepared(builder, key, column, cache)
    reader: Callable[..., Iterator[dict[str, Any]]] = read_txt if kind == "text" else read_jsonl
    splits = {}
    for split, paths in files.items():
        if not any(Path(path).stat().st_size for path in paths):
            continue
        # `datasets` takes a list among gen_kwargs for shards, one per process; the partial hides it.
        splits[split] = datasets.Dataset.from_generator(
            partial(reader, paths, column),
            features=datasets.Features({column: datasets.Value("string")}),
            cache_dir=None if cache is None else str(cache),  # type: ignore[arg-type]
            fingerprint=f"{key}-{split}",
        )
    return columns_of(splits, column)


def _folder(path: Path, column: str, cache: Path | None) -> "dict[str, ChunkedArray]":
    import datasets

    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        raise DataError(f"{path} was written by save_to_disk; write it with to_parquet and give that folder.")
    _refuse_remote_files(path)
    try:
        builder = datasets.load_dataset_builder(str(path), cache_dir=None if cache is None else str(cache))
    except FileNotFoundError:
        raise DataError(f"{path} holds no data; {_FOLDER_HINT}.") from None
    kind = kind_of(builder, str(path))
    found = builder.config.data_files or {}
    files = {str(split): sorted(str(file) for file in listed) for split, listed in found.items()}
    paths = [file for listed in files.values() for file in listed]
    if kind == "parquet":
        _check_parquet(files, column)
    if kind in ("text", "json") and all(KINDS.get(Path(file).suffix.lower()) == kind for file in paths):
        return _files(kind, files, column, cache)
    digests = {split: [scan(Path(file), text=False) for file in listed] for split, listed in files.items()}
    return _prepared(builder, _key(kind, digests, column, builder.dataset_name), column, cache)


def _refuse_remote_files(path: Path) -> None:
    """Refuse a local folder whose README.md names data files on the network, before they are requested."""
    from datasets import config
    from huggingface_hub import DatasetCard

    for name in (config.REPOCARD_FILENAME, config.REPOYAML_FILENAME):
        if (path / name).is_file():
            text = (path / name).read_text(encoding="utf-8")
            card = DatasetCard(text if name.endswith(".md") else f"---\n{text}\n---\n").data.to_dict()
            if remote := re.search(r"[a-z0-9+]{2,}://[^'\"\s]+", str(card.get("configs"))):
                raise DataError(
                    f"{path / name} names data elsewhere ({remote[0]}); download it into the folder first."
                )


def _check_parquet(files: dict[str, list[str]], column: str) -> None:
    """Refuse a missing column or an empty file before anything is copied."""
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


def _prepared(
    builder: "DatasetBuilder", key: str, column: str, cache: Path | None
) -> "dict[str, ChunkedArray]":
    from datasets import config

    root = Path(cache or config.HF_DATASETS_CACHE)
    builder.download_and_prepare(output_dir=str(root / "workbench" / key))
    return columns_of(builder.as_dataset(), column)


def _key(kind: str, digests: dict[str, list[str]], column: str, name: str = "") -> str:
    recipe = json.dumps([READERS_VERSION, kind, digests, column, name], sort_keys=True)
    return hashlib.sha256(recipe.encode()).hexdigest()[:24]


def columns_of(splits: Any, column: str) -> "dict[str, ChunkedArray]":
    """Return the `column` of each split.

    Raises:
        DataError: no such column, one that is not text, or one with nulls in it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {}
    for split, dataset in splits.items():
        check_column(dataset.column_names, column, f"the {split} split")
        values = dataset.data.column(column)
        values = pa.chunked_array(values) if not isinstance(values, pa.ChunkedArray) else values
        if len(values) and not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            raise DataError(f"column {column!r} of the {split} split holds {values.type}, not text.")
        if values.null_count:
            row = pc.index(pc.is_null(values), True).as_py()  # type: ignore[attr-defined]
            raise DataError(
                f"column {column!r} of the {split} split is null in {values.null_count} rows, "
                f"the first of them row {row + 1}; fix or remove them."
            )
        columns[str(split)] = values
    return columns


def check_column(found: list[str], column: str, where: str) -> None:
    """Refuse a table (`where`) without the column; the message lists those it has."""
    if column not in found:
        hint = nearest(column, found)
        hint = hint if hint.startswith("Did") else "Name the column that holds the stories."
        raise DataError(
            f"{where} has no column {column!r}; it has {', '.join(found) or 'none'}. {hint}".strip()
        )


def kind_of(builder: "DatasetBuilder", source: str) -> str:
    """Return the format that a `datasets` builder reads; only plain tables and text, never one that unpickles
    or unpacks.

    Raises:
        DataError: any other.
    """
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in _BUILDERS:
        raise DataError(
            f"{source} holds no stories that can be read (its files look like {kind}); {_FOLDER_HINT}."
        )
    return kind


def missing(path: Path) -> str:
    """Return advice for a path that does not exist: the nearest name next to it, and what can be given."""
    advice = f"Give a file ({', '.join(KINDS)}), a folder, or a name of the hub such as {_EXAMPLE}."
    try:
        siblings = [entry.name for entry in path.parent.iterdir() if entry.name != path.name]
    except OSError:
        return advice
    hint = nearest(path.name, siblings)
    return f"{hint} {advice}" if hint.startswith("Did") else advice


# Strict, streaming readers of plain files for `Dataset.from_generator`, which keeps stories on disk: a file
# is never in memory as a whole, and what a reader cannot take is refused with file, line and remedy.


def wide_encoding(start: bytes) -> str | None:
    """Return the name of the UTF-16 or UTF-32 encoding that text with these first bytes has, else None."""
    for mark, name in (
        (codecs.BOM_UTF32_LE, "UTF-32"),
        (codecs.BOM_UTF32_BE, "UTF-32"),
        (codecs.BOM_UTF16_LE, "UTF-16"),
        (codecs.BOM_UTF16_BE, "UTF-16"),
    ):
        if start.startswith(mark):
            return name
    # Without a mark: text starts with two ASCII characters, and UTF-8 text has no NUL bytes.
    zeros = [byte == 0 for byte in start[:4]]
    if zeros == [False, True, False, True]:
        return "UTF-16LE"
    return "UTF-16BE" if zeros == [True, False, True, False] else None


def scan(path: Path, *, text: bool) -> str:
    """Return the SHA-256 of a file's bytes; with `text`, also check that all of it is UTF-8.

    Raises:
        DataError: unreadable; not UTF-8 (with the byte, its position and its line).
    """
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()
    position, line = 0, 1
    try:
        with open(path, "rb") as stream:
            while chunk := stream.read(2**20):
                digest.update(chunk)
                if text and not position and (encoding := wide_encoding(chunk)):
                    raise DataError(
                        f"{path} is {encoding} text; convert it to UTF-8 first, such as with "
                        f"iconv -f {encoding} -t UTF-8."
                    )
                if text:
                    pending = len(decoder.getstate()[0])
                    _decode(decoder, chunk, path, position - pending, line)
                    line += chunk.count(b"\n")
                    position += len(chunk)
        if text:
            _decode(decoder, b"", path, position - len(decoder.getstate()[0]), line, final=True)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    return digest.hexdigest()


def _decode(
    decoder: codecs.IncrementalDecoder, chunk: bytes, path: Path, start: int, line: int, final: bool = False
) -> None:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError as error:
        line += error.object.count(b"\n", 0, error.start)
        raise DataError(
            f"{path} is not UTF-8 text: byte 0x{error.object[error.start]:02x} at position "
            f"{start + error.start} (line {line}); convert it first, such as with iconv -f latin1 -t utf-8."
        ) from None


def read_txt(paths: list[str], column: str) -> Iterator[dict[str, Any]]:
    """Yield the stories between `<|endoftext|>`, stripped; the end of a file also ends a story.

    Raises:
        DataError: no separator in 64 million characters.
    """
    for path in paths:
        with open(path, encoding="utf-8-sig") as stream:
            rest = ""
            while chunk := stream.read(2**20):
                *whole, rest = (rest + chunk).split(SEPARATOR)
                yield from ({column: story.strip()} for story in whole if not story.isspace() and story)
                if len(rest) > LONGEST_STORY:
                    raise DataError(
                        f"{path}: no {SEPARATOR} in {len(rest):,} characters; put it between stories."
                    )
            if rest.strip():
                yield {column: rest.strip()}


def read_jsonl(paths: list[str], column: str) -> Iterator[dict[str, Any]]:
    """Yield the `column` of each line's JSON object; empty lines are skipped.

    Raises:
        DataError: a line that is not a JSON object, or has no such column or no text in it; with its number.
    """
    for path in paths:
        with open(path, encoding="utf-8-sig", newline="\n") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield {column: _text_of(line, column, f"{path}, line {number}")}


def _text_of(line: str, column: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deeply")
        raise DataError(f"{where}: not JSON ({reason}); a .jsonl file has one object on each line.") from None
    if not isinstance(row, dict):
        raise DataError(
            f'{where}: a {type(row).__name__}, not an object such as {{"{column}": "Once upon a time"}}.'
        )
    if column not in row:
        raise DataError(
            f"{where}: no column {column!r}; it has {', '.join(row) or 'none'}. {nearest(column, row)}"
        )
    story = row[column]
    if not isinstance(story, str):
        kind = "null" if story is None else type(story).__name__
        raise DataError(f"{where}: {column!r} is {kind}, not text; fix or remove the line.")
    try:
        story.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: {column!r} holds half a surrogate pair, which is not Unicode text."
        ) from None
    return story


def read_hub(source: str, column: str, cache: Path | None) -> "dict[str, ChunkedArray]":
    """Return the columns of `owner/name` or `owner/name:configuration`, at the newest revision.

    One request with a short time limit checks whether the hub can be reached; if not, an earlier copy in the
    cache is opened, without the minute of retries that the libraries would make.

    Raises:
        DataError: no such data set, or unreachable and not in the cache; says how to pass local data.
    """
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    repository, _, configuration = source.partition(":")
    revision, reason = None, ""
    try:
        revision = HfApi().dataset_info(repository, timeout=HUB_SECONDS).sha
    except GatedRepoError:
        raise DataError(
            f"{repository} is gated on the hub: ask for access there, then `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        advice = missing(Path(source))
        raise DataError(f"{source} is neither a local path nor a data set on the hub. {advice}") from None
    except OfflineModeIsEnabled:
        reason = "HF_HUB_OFFLINE is set"
    except Exception as error:  # the hub's client passes on the errors of its HTTP library
        reason = first_line(error) or type(error).__name__
    with _offline(bool(reason)):
        try:
            builder = datasets.load_dataset_builder(
                repository,
                configuration or None,
                revision=revision,
                cache_dir=None if cache is None else str(cache),
            )
        except (OSError, ValueError) as error:
            if not reason:
                raise
            if "onfig" in str(error):
                reason = first_line(error)
            raise DataError(
                f"{source} is neither a local path nor in the cache, and the hub cannot be reached "
                f"({reason}). Download it elsewhere and pass the folder or file, such as "
                "path/to/TinyStories, or pass none for the embedded stories.",
                option="--data path/to/TinyStories",
            ) from None
        kind_of(builder, source)
        if builder.info.features:
            check_column(list(builder.info.features), column, source)
        builder.download_and_prepare()
        return columns_of(builder.as_dataset(), column)


@contextmanager
def _offline(offline: bool) -> Iterator[None]:
    """Put the hub's clients into offline mode, if wanted: they read their caches only, without retries."""
    import huggingface_hub.constants as hub
    from datasets import config

    before = config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE
    if offline:
        config.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE = before


@contextmanager
def quiet(bars: bool) -> Iterator[None]:
    """Silence log lines, warnings and, unless `bars`, progress bars of the libraries."""
    import datasets
    from huggingface_hub.utils import logging as hub_logging

    level, hub_level = datasets.logging.get_verbosity(), hub_logging.get_verbosity()
    hidden = datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(50)
    hub_logging.set_verbosity(50)
    if not bars:
        datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        datasets.logging.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if not hidden:
            datasets.enable_progress_bars()


@contextmanager
def one_line(source: str) -> Iterator[None]:
    """Turn whatever the libraries raise while `source` is read into a `DataError` of one line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # of datasets or pyarrow; the root cause says what happened
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, DataError):
            raise DataError(str(cause)) from None
        if is_disk_full(error):
            raise DataError(
                f"{source} cannot be read: the disk of the data sets' cache is full; free some space "
                "or set HF_DATASETS_CACHE to a folder elsewhere."
            ) from None
        if isinstance(error, ValueError) and "corresponds to no data" in str(error):
            raise DataError(f"{source} holds no stories.") from None
        if "Config name is missing" in str(error):
            names = ", ".join(re.findall(r"'([^']+)'", str(error))[:12])
            how = "one of its files" if Path(source).exists() else f"{source}:NAME"
            raise DataError(f"{source} has several configurations; give {how}. It has {names}, ...") from None
        if type(cause).__name__ == "CastError":
            raise DataError(f"{source} cannot be read: its files do not have the same columns.") from None
        raise DataError(f"{source} cannot be read: {first_line(cause) or type(cause).__name__}") from None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters."""
    return " ".join(str(error).split("\n")[0].split())[:200]

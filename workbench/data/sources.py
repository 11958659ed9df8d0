"""From what `--data` names to columns of text, through `datasets`: files, folders in hub layout, the hub.

The library's Arrow copy goes to its own cache (`HF_DATASETS_CACHE`) or to the folder given, under a name made
from the files' contents, so an edited file is read anew whatever its date says.
"""

import codecs
import errno
import hashlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from workbench.errors import DataError, nearest
from workbench.io import FULL_DISK

# Where derived data lives, and how two processes that want the same piece agree on who makes it.


def cache_root(cache: Path | str | None = None) -> Path:
    """The folder for derived data: `cache` if given, else `$WORKBENCH_CACHE`, else `~/.cache/workbench`."""
    chosen = cache or os.environ.get("WORKBENCH_CACHE") or "~/.cache/workbench"
    return Path(chosen).expanduser()


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold an advisory lock on `path` while the block runs; others who lock it wait.

    Args:
        path: made if it is not there.
        wait: until nobody else holds it; otherwise the block runs unlocked where somebody does.

    The system frees the lock of a process that dies. On a file system without locks the block runs
    unlocked: work may then be done twice, but `workbench.io.new_folder` still keeps folders whole.

    Yields:
        Whether the lock is held.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError:
            held = False
        yield held
    finally:
        os.close(handle)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether this error, or one that led to it, says that there is no room left on the disk."""
    while error is not None:
        if isinstance(error, OSError) and (error.errno in FULL_DISK or "Not enough disk space" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def disk_errors(folder: Path, purpose: str) -> Iterator[None]:
    """Turn a full or unwritable disk into one line.

    Args:
        folder: where the block writes.
        purpose: what for, as in `"pack 2.0 MB of stories"`.

    Raises:
        DataError: in place of the `OSError`; names the folder and the remedies.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            why = "the disk is full; free some space"
        elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
            why = "it is not writable"
        elif isinstance(error, NotADirectoryError | FileExistsError):
            why = "a file stands in the way of that folder"
        else:
            raise
        remedy = "or choose another place with WORKBENCH_CACHE"
        raise DataError(f"cannot {purpose} in {folder}: {why}, {remedy}.") from None


# What reading through `datasets` needs whatever the source: silence, one-line errors, checked columns.


KINDS = {".txt": "text", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
EXAMPLE = "roneneldan/TinyStories"
FOLDER_HINT = "put .parquet, .jsonl or .txt files into it, such as train.parquet and validation.parquet"
_BUILDERS = ("parquet", "json", "text", "csv", "arrow", "cache")


@contextmanager
def quiet(bars: bool) -> Iterator[None]:
    """No log lines, warnings or bars of other libraries between the user and our one line."""
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
    """Turn whatever other libraries raise while `source` is read into a `DataError` of one line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # datasets and pyarrow raise from everywhere; the cause tells what happened
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, DataError):
            raise DataError(str(cause)) from None
        if is_disk_full(error):
            raise DataError(
                f"{source} cannot be read in: the disk of the data sets' cache is full; free some space "
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


def columns_of(splits: Any, column: str) -> dict[str, Any]:
    """The `column` of each split as a `pyarrow.ChunkedArray` of strings.

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
                f"the first of them row {row + 1}; mend or remove them."
            )
        columns[str(split)] = values
    return columns


def check_column(found: list[str], column: str, where: str) -> None:
    """Refuse a table (`where`) that has not got the column; the message lists those it has."""
    if column not in found:
        hint = nearest(column, found)
        hint = hint if hint.startswith("Did") else "Name the column that holds the stories."
        raise DataError(
            f"{where} has no column {column!r}; it has {', '.join(found) or 'none'}. {hint}".strip()
        )


def kind_of(builder: Any, source: str) -> str:
    """Which format a `datasets` builder reads. Only plain tables and text: none that may unpickle or unpack.

    Raises:
        DataError: any other.
    """
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in _BUILDERS:
        raise DataError(
            f"{source} holds no stories that can be read (its files look like {kind}); {FOLDER_HINT}."
        )
    return kind


def first_line(error: BaseException) -> str:
    """The first line of an error's words, 200 characters at most."""
    return " ".join(str(error).split("\n")[0].split())[:200]


def missing(path: Path) -> str:
    """What to do about a path that does not exist: the nearest name beside it, and what can be given."""
    advice = f"Give a file ({', '.join(KINDS)}), a folder, or a name of the hub such as {EXAMPLE}."
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.name != path.name]
    except OSError:
        return advice
    hint = nearest(path.name, beside)
    return f"{hint} {advice}" if hint.startswith("Did") else advice


def str_or_none(path: Path | None) -> str | None:
    """A path as text for libraries that take no Path."""
    return str(path) if path else None


# Data sets of the hub: reached within seconds or not at all, and from the cache when out of reach.


HUB_SECONDS = 4.0


def read_hub(source: str, column: str, cache: Path | None) -> dict[str, Any]:
    """The columns of `owner/name` or `owner/name:configuration`, at the newest revision.

    One request with a short time limit decides whether the hub can be reached; if not, an earlier copy in the
    cache is opened, without the minute of retries that the libraries would spend.

    Raises:
        DataError: no such data set, or out of reach and not in the cache; says how to pass local data.
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
        raise DataError(f"{source} is neither a path here nor a data set on the hub. {advice}") from None
    except OfflineModeIsEnabled:
        reason = "HF_HUB_OFFLINE is set"
    except Exception as error:  # the hub's client lets the errors of its HTTP library through
        reason = first_line(error) or type(error).__name__
    with _offline(bool(reason)):
        try:
            builder = datasets.load_dataset_builder(
                repository, configuration or None, revision=revision, cache_dir=str_or_none(cache)
            )
        except (OSError, ValueError) as error:
            if not reason:
                raise
            if "onfig" in str(error):
                reason = first_line(error)
            raise DataError(
                f"{source} is neither a path here nor in the cache, and the hub is out of reach "
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
def _offline(wanted: bool) -> Iterator[None]:
    """The hub's clients in offline mode: they look into their caches only, at once and without retries."""
    import huggingface_hub.constants as hub
    from datasets import config

    before = config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE
    if wanted:
        config.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE = before


# Stories out of plain files: strict, streaming readers for `.txt` and `.jsonl`.
#
# They feed `datasets.Dataset.from_generator`, which keeps the stories on disk; at no time is a whole file
# in memory. Whatever a reader cannot take, it refuses with the file, the line and the remedy.


READERS_VERSION = 1
SEPARATOR = "<|endoftext|>"
LONGEST_STORY = 64 * 2**20
"""Characters; a text without a separator for so long is no file of stories."""


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
    zeros = tuple(byte == 0 for byte in start[:4])
    return {(False, True, False, True): "UTF-16LE", (True, False, True, False): "UTF-16BE"}.get(zeros)


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
    """Stories between `<|endoftext|>`, without the white space around them; the end of a file ends one too.

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
    """The `column` of each line's JSON object. Empty lines are passed over.

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
        raise DataError(f"{where}: {column!r} is {kind}, not text; mend or remove the line.")
    try:
        story.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: {column!r} holds half a surrogate pair, which is no Unicode text."
        ) from None
    return story


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

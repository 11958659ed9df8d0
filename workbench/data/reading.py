"""What reading through `datasets` needs whatever the source: silence, one-line errors, checked columns."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.data.cache import is_disk_full
from workbench.errors import DataError, nearest

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

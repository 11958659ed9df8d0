"""A task of the user's own: a .jsonl file, or a Python function.

A line of the file is one label:

    {"text": "Lily saw a dog.", "span": [0, 4], "label": "person"}
    {"text": "Lily saw a dog.", "spans": [[11, 14], [5, 8]], "label": "obj", "group": "story 7"}

Spans are characters `[start, end)`. A label in quotation marks is a class, a number a number (of two spans: a
distance). `group` (default: the text) is what no split parts; `word` (default: the span's letters, small) is
the type for the control task. A function gives `Document`s, or such dictionaries.
"""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from probes.examples import Document, Item, Kind, Task
from probes.sources import need_limit
from probes.tasks.own_rows import EXAMPLE, documents_of, read_rows
from workbench.errors import DataError, WorkbenchError, nearest, shown


def file_task(path: str | Path) -> Task:
    """A task out of a .jsonl file; its first line says of which kind it is.

    Raises:
        DataError: as `read_rows`; no lines.
    """
    path = Path(path).expanduser()
    first = next(documents_of(read_rows(path)), None)
    if first is None:
        raise DataError(f"{path} holds no labels: each line is one, such as {EXAMPLE}.")
    base = _task(path.name.removesuffix(".jsonl"), f"labels of {path.name}", first)

    def documents(source: object = None, *, limit: int | None = None, seed: int = 0) -> Iterator[Document]:
        return _limited(_of_one_kind(documents_of(read_rows(path)), base), limit)

    return replace(base, documents=documents)


def function_task(target: str | Callable[..., Any]) -> Task:
    """A task out of a function, given itself or as `module:name`; the current folder's modules are found.

    The function takes nothing, or the source that the command line names, and gives documents or dictionaries
    (see the head of this file). If `module:name` is a `Task`, it is taken as it is.

    Raises:
        DataError: no such module or name; it gives nothing, or something else, or fails.
    """
    name = target if isinstance(target, str) else getattr(target, "__name__", "function")
    function = _imported(target) if isinstance(target, str) else target
    if isinstance(function, Task):
        return function
    if not callable(function):
        raise DataError(f"{name} is {shown(function)}, neither a function nor a Task.")
    with_source = _takes_source(function)

    def call(source: object) -> Iterator[Document]:
        return documents_of(_rows_of(name, (lambda: function(source)) if with_source else function))

    first = next(call(None), None)
    if first is None:
        raise DataError(f"{name} gave no documents.")
    base = _task(name.rpartition(":")[2], f"labels by {name}", first)

    def documents(source: object = None, *, limit: int | None = None, seed: int = 0) -> Iterator[Document]:
        return _limited(_of_one_kind(call(source), base), limit)

    return replace(base, documents=documents)


def _kind(item: Item) -> tuple[Kind, int]:
    if isinstance(item.label, str):
        return "classes", len(item.spans)
    return ("distance" if len(item.spans) == 2 else "number"), len(item.spans)


def _task(name: str, description: str, first: Document) -> Task:
    if not first.items:
        raise DataError(f"{name}: the first document has no items, so its kind is not known.")
    kind, n_spans = _kind(first.items[0])
    reads = "two spans" if n_spans == 2 else "each span"
    return Task(name, description, kind, "own", lambda: (), "group", reads, n_spans)


def _of_one_kind(documents: Iterable[Document], task: Task) -> Iterator[Document]:
    for document in documents:
        for item in document.items:
            if _kind(item) != (task.kind, task.n_spans):
                raise DataError(
                    f"{task.name}: label {shown(str(item.label))!r} of {shown(document.text)!r} is of "
                    f"another kind than the first label ({task.kind}, spans: {task.n_spans}); a class is "
                    "text, in quotation marks."
                )
        yield document


def _limited(documents: Iterable[Document], limit: int | None) -> Iterator[Document]:
    need_limit(limit)
    yield from islice(documents, limit)


def _imported(target: str) -> Any:
    module_name, _, name = target.partition(":")
    if not module_name or not name or not all(part.isidentifier() for part in module_name.split(".")):
        raise DataError(f"{shown(target)!r} is no function: write module:function, such as my_tasks:rhymes.")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name not in (module_name, module_name.partition(".")[0]):
            raise DataError(f"{module_name} needs {error.name}, which is not installed.") from None
        raise DataError(f"No module {module_name!r} in {here} or among those installed.") from None
    except Exception as error:
        raise DataError(f"{module_name} cannot be imported: {_where(error)}") from None
    finally:
        sys.path.remove(here)
    if not hasattr(module, name):
        public = [other for other in vars(module) if not other.startswith("_")]
        raise DataError(f"{module_name} has no {name!r}. {nearest(name, public)}")
    return getattr(module, name)


def _takes_source(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [one for one in parameters if one.default is one.empty and one.kind == one.KEYWORD_ONLY]
    usual = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if needed or sum(one.default is one.empty for one in usual) > 1:
        raise DataError(
            f"{getattr(function, '__name__', function)} needs more than a source; it may take one."
        )
    return bool(usual)


def _rows_of(name: str, call: Callable[[], Any]) -> Iterator[tuple[str, Any]]:
    """What the user's function gives, with its own failures in one line."""
    number = 0
    try:
        for number, row in enumerate(call(), start=1):
            yield f"{name}, item {number}", row
    except WorkbenchError:
        raise
    except Exception as error:
        raise DataError(f"{name} failed after {number:,} items: {_where(error)}") from None


def _where(error: BaseException) -> str:
    """Type, message and the last line of the user's code."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {shown(str(error), 200)}{at}"

"""The base class of every result: a frozen dataclass that has a table, a plot, and a folder on disk.

A saved result is a folder: `result.json` holds the class and the plain fields, `arrays.npz` the arrays and
`<field>.parquet` each data frame. Nothing is pickled.
"""

import dataclasses
import importlib
import io
import math
import zipfile
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from workbench.console import make_table, stack
from workbench.errors import DataError, shown
from workbench.io import new_folder, read_json, read_plain, write_bytes, write_json

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

RESULT_FILE = "result.json"
ARRAYS_FILE = "arrays.npz"
VERSION = 1

R = TypeVar("R", bound="Result")


class Result:
    """Base of the frozen dataclasses that the library's functions return.

    A subclass is declared with `@dataclass(frozen=True, eq=False, repr=False)` and defines `to_frame` and,
    where there is something to draw, `plot`.
    """

    SUMMARY_ROWS: ClassVar[int] = 12
    """Rows of `to_frame` that `summary` shows."""

    def to_frame(self) -> "pd.DataFrame":
        """Return the result as a tidy data frame, one row per measured cell."""
        raise NotImplementedError(f"{type(self).__name__} defines no to_frame")

    def plot(self, **options: Any) -> Any:
        """Draw the result and return the figure."""
        raise NotImplementedError(f"{type(self).__name__} has no plot; use to_frame()")

    def summary(self, rows: int = SUMMARY_ROWS) -> "RenderableType":
        """Return what is most worth knowing as sentences and tables, for `workbench.console.show` or rich.

        Args:
            rows: rows of each table.
        """
        frame = self.to_frame()
        table = make_table(
            list(map(str, frame.columns)),
            [list(map(_cell, row)) for row in frame.head(rows).to_numpy(object)],
        )
        more = f"{rows} of {len(frame):,} rows; to_frame() has all" if len(frame) > rows else None
        return stack(f"{type(self).__name__}", "", table, more)

    def __repr__(self) -> str:
        try:
            frame = self.to_frame()
        except Exception:  # a repr must not fail
            return f"{type(self).__name__}(...)"
        columns = ", ".join(map(str, frame.columns[:6])) + (", ..." if len(frame.columns) > 6 else "")
        return f"{type(self).__name__}({len(frame):,} rows: {columns})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return f"<p><code>{type(self).__name__}</code>, {len(frame):,} rows</p>" + frame.head(
            self.SUMMARY_ROWS
        ).to_html(index=False, float_format="{:.4g}".format, border=0)

    def save(self, folder: str | Path) -> Path:
        """Write the result to a folder in one step; an existing result there is replaced.

        Args:
            folder: where to write.

        Returns:
            The folder.

        Raises:
            DataError: `folder` exists and holds no result, or a field cannot be stored.
        """
        import numpy as np

        folder = Path(folder)
        if folder.exists() and not (folder / RESULT_FILE).is_file():
            raise DataError(f"{folder} exists and is not a saved result; choose another folder.")
        writer = _Writer()
        fields = {
            field.name: writer.encode(getattr(self, field.name), field.name)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }
        with new_folder(folder) as temporary:
            for name, frame in writer.frames.items():
                buffer = io.BytesIO()
                frame.to_parquet(buffer)
                write_bytes(temporary / f"{name}.parquet", buffer.getvalue())
            if writer.arrays:
                buffer = io.BytesIO()
                np.savez(buffer, allow_pickle=False, **writer.arrays)
                write_bytes(temporary / ARRAYS_FILE, buffer.getvalue())
            head = {"version": VERSION, "class": _class_name(type(self)), "fields": fields}
            write_json(temporary / RESULT_FILE, head)
        return folder

    @classmethod
    def read(cls: type[R], folder: str | Path) -> R:
        """Read what `save` wrote.

        Called on a subclass it returns that class; called on `Result` it returns the saved class.

        Raises:
            DataError: there is no result, it is of another class, or a file is damaged.
        """
        folder = Path(folder)
        head = read_json(folder / RESULT_FILE)
        if not isinstance(head, dict) or head.get("version") != VERSION or "fields" not in head:
            raise DataError(f"{folder / RESULT_FILE} is not a saved result of this version.")
        made = _find_class(head.get("class"))
        if not issubclass(made, cls):
            raise DataError(f"{folder} holds a {made.__name__}, not a {cls.__name__}.")
        try:
            fields = _Reader(folder).decode(head["fields"])
            return made(**fields)
        except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{folder} is damaged: {shown(str(error), 120)}.") from None


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _class_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _find_class(name: Any) -> type:
    """Import a class of this package by the name that `_class_name` gave it; anything else is refused."""
    module, _, qualified = str(name).partition(":")
    if module.split(".")[0] not in ("workbench", "probes", "training"):
        raise DataError(f"{shown(name)} is not a result class of the workbench.")
    try:
        found: Any = importlib.import_module(module)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        raise DataError(f"{shown(name)} is not a result class of this version.") from None
    storable = isinstance(found, type) and (
        dataclasses.is_dataclass(found) or hasattr(found, "_fields") or issubclass(found, Enum)
    )
    if not storable:
        raise DataError(f"{shown(name)} is not a result class of the workbench.")
    return found


class _Writer:
    """Encode field values as JSON, moving arrays and frames out into files of their own."""

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}
        self.frames: dict[str, Any] = {}

    def encode(self, value: Any, where: str) -> Any:
        import numpy as np
        import pandas as pd

        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, Enum):
            return {"$enum": _class_name(type(value)), "name": value.name}
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, int | float):
            return value if not isinstance(value, float) or math.isfinite(value) else {"$float": repr(value)}
        if hasattr(value, "detach"):  # a tensor; torch itself need not be imported
            self.arrays[where] = value.detach().cpu().numpy()
            return {"$tensor": where}
        if isinstance(value, np.ndarray):
            if value.dtype == object:
                items = [self.encode(x, f"{where}.{i}") for i, x in enumerate(value.ravel())]
                return {"$objects": items, "shape": list(value.shape)}
            self.arrays[where] = value
            return {"$array": where}
        if isinstance(value, pd.DataFrame):
            self.frames[where] = value
            return {"$frame": where}
        if isinstance(value, Path):
            return {"$path": str(value)}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            items = [self.encode(x, f"{where}.{i}") for i, x in enumerate(value)]
            return {"$named": _class_name(type(value)), "items": items}
        if isinstance(value, list | tuple):
            items = [self.encode(x, f"{where}.{i}") for i, x in enumerate(value)]
            return items if isinstance(value, list) else {"$tuple": items}
        if isinstance(value, dict):
            pairs = [
                [self.encode(key, where), self.encode(item, f"{where}.{i}")]
                for i, (key, item) in enumerate(value.items())
            ]
            return {"$dict": pairs}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {
                field.name: self.encode(getattr(value, field.name), f"{where}.{field.name}")
                for field in dataclasses.fields(value)
            }
            return {"$class": _class_name(type(value)), "fields": fields}
        raise DataError(f"the field {where} holds a {type(value).__name__}, which cannot be saved.")


class _Reader:
    """Undo `_Writer`."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.folder = folder
        self.arrays: dict[str, Any] = {}
        if (folder / ARRAYS_FILE).exists():
            with np.load(io.BytesIO(read_plain(folder / ARRAYS_FILE)), allow_pickle=False) as stored:
                self.arrays = {name: stored[name] for name in stored.files}

    def decode(self, value: Any) -> Any:
        import numpy as np
        import pandas as pd

        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        kind = next((key for key in value if key.startswith("$")), None)
        if kind is None:
            return {key: self.decode(item) for key, item in value.items()}
        content = value[kind]
        if kind == "$float":
            return float(content)
        if kind == "$array":
            return self.arrays[content]
        if kind == "$tensor":
            import torch

            return torch.from_numpy(self.arrays[content])
        if kind == "$objects":
            made = np.empty(len(content), dtype=object)
            made[:] = [self.decode(item) for item in content]
            return made.reshape(value["shape"])
        if kind == "$frame":
            return pd.read_parquet(io.BytesIO(read_plain(self.folder / f"{Path(content).name}.parquet")))
        if kind == "$path":
            return Path(content)
        if kind == "$tuple":
            return tuple(self.decode(item) for item in content)
        if kind == "$dict":
            return {self.decode(key): self.decode(item) for key, item in content}
        if kind == "$enum":
            return _find_class(content)[value["name"]]  # type: ignore[index]
        if kind == "$named":
            return _find_class(content)(*(self.decode(item) for item in value["items"]))
        if kind == "$class":
            return _find_class(content)(**self.decode(value["fields"]))
        raise DataError(f"{self.folder / RESULT_FILE} has an unknown entry {shown(kind)}.")

"""Terminal output of commands and long-running functions: progress, tables, errors, saved outputs."""

import contextlib
import errno
import io
import itertools
import os
import shutil
import signal
import sys
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, WorkbenchError, shown
from workbench.io import FULL_DISK, write_bytes

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

_BAR = 20


def clock(seconds: float | int) -> str:
    """Return a duration as `4:05` or `1:02:03`.

    >>> clock(245)
    '4:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short(number: float | int) -> str:
    """Return a number in four or five characters: `812`, `81.2k`, `3.4M`.

    >>> short(81234)
    '81.2k'
    """
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.1f}{unit}"
    return f"{number:.0f}"


class Progress:
    """A progress line, redrawn at most five times a second, with messages printed above it.

    Args:
        label: shown first, such as the run's name.
        stream: stderr if not set. If it is not a terminal, a line is printed every `pause` seconds.
        quiet: print messages only.
        pause: seconds between lines if the stream is not a terminal.
    """

    def __init__(self, label: str, stream: Any = None, quiet: bool = False, pause: float = 20.0) -> None:
        self._label = label
        self._stream = stream or sys.stderr
        self._live = not quiet and self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._quiet = quiet
        self._every = 0.2 if self._live else pause
        self._last = time.monotonic() if not self._live else 0.0
        self._drawn = False

    def due(self) -> bool:
        """Return True if it is time to call `update`; cheap enough for every step."""
        return not self._quiet and time.monotonic() - self._last >= self._every

    def update(self, fraction: float, text: str) -> None:
        """Draw the line: the completed fraction (0 to 1) and the text after the bar."""
        self._last = time.monotonic()
        if self._quiet:
            return
        if not self._live:
            self._write(f"{self._label}  {fraction:4.0%}  {text}\n")
            return
        filled = round(fraction * _BAR)
        bar = "━" * filled + "\x1b[2m" + "─" * (_BAR - filled) + "\x1b[0m"
        width = shutil.get_terminal_size().columns
        room = width - len(self._label) - _BAR - 11
        body = (
            f"{self._label}  {bar}  {fraction:4.0%}  {text[: max(0, room)]}"
            if room > 10
            else text[: width - 1]
        )
        self._write(f"\r\x1b[2K{body}")
        self._drawn = True

    def say(self, sentence: str) -> None:
        """Print a message above the line."""
        self._write(f"{self._clear()}{sentence}\n")
        self._last = 0.0 if self._live else self._last

    def close(self) -> None:
        """Remove the line."""
        self._write(self._clear())

    def _clear(self) -> str:
        drawn, self._drawn = self._drawn, False
        return "\r\x1b[2K" if drawn else ""

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError, UnicodeEncodeError):
            self._quiet = True  # the terminal is closed; training continues


OnProgress = Callable[[float, str], None]
"""Called periodically with the completed fraction (0 to 1) and a short message."""
_DELAY = 2.0
"""Seconds after which a bar appears by default."""


def ignore_progress(fraction: float, message: str = "") -> None:
    """Do nothing: the `OnProgress` of a caller that shows no progress."""


@contextlib.contextmanager
def progress_bar(progress: bool | OnProgress | None, label: str) -> Iterator[OnProgress]:
    """Turn the `progress` argument of a public function into the callback that it calls.

    Args:
        progress: a callback, which is returned as it is; True for a bar at once; None for a bar once the
            work has taken two seconds, if stderr is a terminal or the caller a notebook; False for none.
        label: shown in front of the bar.
    """
    if callable(progress):
        yield progress
        return
    notebook = "ipykernel" in sys.modules
    if progress is False or not (progress or notebook or sys.stderr.isatty()):
        yield ignore_progress
        return
    if not notebook and not sys.stderr.isatty():  # True, and stderr goes to a file
        line = Progress(label)
        yield lambda fraction, message="": line.update(fraction, message) if line.due() else None
        return

    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[message]}"),
    )
    bar = RichProgress(*columns, console=Console(stderr=not notebook), transient=True)
    task = bar.add_task(label, total=1.0, message="")
    began, shown_bar = time.monotonic(), False

    def on_progress(fraction: float, message: str = "") -> None:
        nonlocal shown_bar
        if not shown_bar and (progress or time.monotonic() - began > _DELAY):
            shown_bar = True
            bar.start()
        bar.update(task, completed=fraction, message=message)

    try:
        yield on_progress
    finally:
        bar.stop()


_LEVELS = "▁▂▃▄▅▆▇█"


def clean(text: object) -> str:
    """Return text on one line without control characters, so that no name can control the terminal."""
    return _printable(" ".join(str(text).split()))


def _printable(text: str) -> str:
    return "".join(one for one in text if one == "\n" or unicodedata.category(one)[0] != "C")


def make_table(header: Sequence[object], rows: Sequence[Sequence[object]], left: int = 1) -> "Table":
    """Return a rich table with the first `left` columns left-aligned and the others right-aligned.

    Cells may be rich `Text`; everything else is shown as cleaned text, never as markup.
    """
    from rich.box import Box
    from rich.table import Table

    box = Box("    \n    \n ─  \n    \n    \n    \n    \n    \n")  # a rule under the header, nothing else
    table = Table(box=box, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    for index, name in enumerate(header):
        justify = "left" if index < left else "right"
        table.add_column(_cell(name), justify=justify, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(value: object) -> "Text":
    from rich.text import Text

    return value if isinstance(value, Text) else Text(clean(value))


def stack(*parts: "RenderableType | None") -> "Group":
    """Join sentences and tables to be printed under each other; None is left out, "" is an empty line."""
    from rich.console import Group
    from rich.text import Text

    return Group(
        *(Text(_printable(part)) if isinstance(part, str) else part for part in parts if part is not None)
    )


def show(*parts: "RenderableType | None") -> None:
    """Print sentences and tables; tables fit the terminal's width, and are never cut in a pipe or a file."""
    from rich.console import Console

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    Console(file=sys.stdout, width=width, highlight=False).print(stack(*parts))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> None:
    """Print the table of `make_table`."""
    show(make_table(header, rows, left))


def number(value: float | None, digits: int = 3) -> str:
    """Format a number with `digits` decimals; None as a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def bar(fraction: float, width: int = 24) -> str:
    """Draw a fraction as a bar from 0 to 1, with a stroke at one half.

    >>> bar(0.75, 8)
    '████│█  '
    """
    full, rest = divmod(round(fraction * width * 8), 8)
    cells = ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(width)[:width]
    return cells[: width // 2] + "│" + cells[width // 2 + 1 :]


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Draw a series as one line of block characters; long series are averaged to `width`."""
    if not values:
        return ""
    count = min(width, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_LEVELS[min(7, int((mean - low) / span * 8))] for mean in means)


def guarded(command: Callable[[], int], quiet: tuple[type[BaseException], ...] = ()) -> int:
    """Run a command and turn its errors into one line on stderr and an exit code.

    Args:
        command: returns its own code.
        quiet: errors already reported; they end the command with 2 and no message.

    Returns:
        The command's own code; 2 after a `WorkbenchError` or a full disk (one line on stderr), 128 plus
        the number after a signal, 141 when the reader of our output went away.
    """
    warnings.showwarning = _one_line
    try:
        code = command()
        sys.stdout.flush()
        return code
    except WorkbenchError as error:
        return _fail(str(error) if error.option is None else f"{error} Option: {error.option}.")
    except quiet:
        return 2
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        _say("Interrupted.")
        return 128 + int(number)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except MemoryError:
        return _fail("the machine's memory is too small for this; use a smaller model, batch or file.")
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        return _fail(f"the disk is full{f' at {error.filename}' if error.filename else ''}; free some space.")


def _fail(message: str) -> int:
    _say(f"Error: {' '.join(message.split())}")
    return 2


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(line.encode("utf-8", "replace").decode(), file=sys.stderr, flush=True)


def _one_line(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    if category.__module__.startswith(("workbench", "training", "probes", "apps")):
        _say(f"Warning: {' '.join(str(message).split())}")


def save_table(path: Path, frame: Any) -> None:
    """Write a data frame as parquet, without its index."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    _write(path, buffer.getvalue())


def save_picture(path: Path, figure: Any) -> None:
    """Write a matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    _write(path, buffer.getvalue())


def _write(path: Path, data: bytes) -> None:
    try:
        write_bytes(path, data)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(f"{shown(str(path))} cannot be written: {error.strerror}.") from None


def records(frame: Any) -> list[dict[str, Any]]:
    """Return a data frame's rows as plain values for JSON; NaN becomes None."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def out_folder(name: str) -> Path:
    """Check the folder given by --out before any work is done for it; nothing is created yet.

    Raises:
        ConfigError: it is a file, or cannot become a writable folder.
    """
    folder = Path(name)
    try:
        existing = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    except OSError as error:
        raise ConfigError(f"--out {shown(name)} cannot be a folder: {error.strerror}.") from None
    if not existing.is_dir():
        raise ConfigError(
            f"--out {shown(name)}: {shown(str(existing))} is a file, not a folder; choose another name."
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--out {shown(name)}: no permission to write in {shown(str(existing))}; choose another place."
        )
    return folder

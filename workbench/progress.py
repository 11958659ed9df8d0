"""A progress line on the terminal; plain lines where there is no terminal."""

import os
import shutil
import sys
import time
from typing import Any

_BAR = 20


def clock(seconds: float | int) -> str:
    """`4:05`, or `1:02:03`.

    >>> clock(245)
    '4:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short(number: float | int) -> str:
    """A number in four or five characters: `812`, `81.2k`, `3.4M`.

    >>> short(81234)
    '81.2k'
    """
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.1f}{unit}"
    return f"{number:.0f}"


class Progress:
    """One line that is redrawn at most five times a second, and sentences above it.

    Args:
        label: what is going on; the run's name.
        stream: where to; stderr if not set. Without a terminal there, a line is printed every
            `pause` seconds instead. `stream=None` and `quiet=True` prints nothing but sentences.
        quiet: no progress, only sentences.
        pause: seconds between lines without a terminal.
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
        """Whether it is time to call `update`; cheap enough for every step."""
        return not self._quiet and time.monotonic() - self._last >= self._every

    def update(self, share: float, text: str) -> None:
        """Draw: share of the work done, 0 to 1, and what to say behind the bar."""
        self._last = time.monotonic()
        if self._quiet:
            return
        if not self._live:
            self._write(f"{self._label}  {share:4.0%}  {text}\n")
            return
        filled = round(share * _BAR)
        bar = "━" * filled + "\x1b[2m" + "─" * (_BAR - filled) + "\x1b[0m"
        width = shutil.get_terminal_size().columns
        room = width - len(self._label) - _BAR - 11
        body = (
            f"{self._label}  {bar}  {share:4.0%}  {text[: max(0, room)]}" if room > 10 else text[: width - 1]
        )
        self._write(f"\r\x1b[2K{body}")
        self._drawn = True

    def say(self, sentence: str) -> None:
        """Print a sentence of its own, above the line."""
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
            self._quiet = True  # the terminal is gone; training goes on

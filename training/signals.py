"""Signals: leave in order, or at once."""

import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

GENTLE = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
_PATIENCE = 0.5
"""Seconds within which a second Ctrl-C is the same one, delivered again by a wrapper such as make."""


class Stopped(KeyboardInterrupt):
    """A signal came where nothing needs saving; `number` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopSignals:
    """Context in which INT, TERM, USR2 and HUP ask the training to save and leave.

    Until `arm()` a signal raises `Stopped` on the spot. From then on it only sets `requested`, which
    the loop reads at each step; a second Ctrl-C raises `Stopped` at once.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._armed = False
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def arm(self) -> None:
        """From here on there is something to save.

        Raises:
            Stopped: a signal came before, and the code that it interrupted swallowed it.
        """
        if self.requested is not None:
            raise Stopped(self.requested)
        self._armed = True

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in GENTLE:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is not None and self.requested is not None and not self._armed:
            # The code that was interrupted may have wrapped `Stopped` in an error of its own.
            raise Stopped(self.requested) from None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._armed:
            self.requested = number
            raise Stopped(number)
        if self.requested is None:
            self.requested, self._since = number, time.monotonic()
            if number == signal.SIGINT:
                _say("Stopping: saving first. Ctrl-C again quits at once, without saving.")
        elif number == signal.SIGINT and time.monotonic() - self._since > _PATIENCE:
            raise Stopped(number)


def _say(text: str) -> None:
    try:
        sys.stderr.write(f"\n{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError, RuntimeError):
        pass  # the terminal is gone, or is being written to right now

"""Long work beside the page: one thread for each question, shared by all sessions, with progress and an end
before its time.

A page that reruns alone cannot be interrupted by its own Cancel button, so the work is not done in it: it
looks now and then how far the work is.
"""

import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import streamlit as st

from workbench.errors import WorkbenchError

Tick = Callable[[float], None]
MOST = 16
"""Results kept; the one that was asked for longest ago goes first."""


class CancelledError(Exception):
    """The reader does not want it any more."""


ABANDONED = 20.0
"""Seconds without a look after which work for a page that was left is ended."""


class Work:
    """One question that is being worked on, or its answer."""

    def __init__(self, answer: Callable[[Tick], Any], attended: bool = False) -> None:
        self.attended = attended
        """True if it is for a page that looks all the time, and is ended when nobody looks any more."""
        self.seen = time.monotonic()
        self.share = 0.0
        """Of the work, 0 to 1."""
        self.result: Any = None
        self.error: Exception | None = None
        self.began = time.monotonic()
        self.seconds: float | None = None
        """How long it took."""
        self._stopped = False
        self._over = threading.Event()
        threading.Thread(target=self._run, args=(answer,), daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether there is an answer, or an error."""
        self.seen = time.monotonic()
        return self._over.is_set()

    @property
    def left(self) -> float | None:
        """Seconds to go at the rate so far; None while that cannot be told."""
        spent = time.monotonic() - self.began
        return spent / self.share * (1 - self.share) if self.share > 0.02 else None

    def wait(self, seconds: float) -> bool:
        """Give it so much time; whether it is done then."""
        return self._over.wait(seconds)

    def cancel(self) -> None:
        """End it at its next tick."""
        self._stopped = True

    def _tick(self, share: float) -> None:
        self.share = float(share)
        if self._stopped or (self.attended and time.monotonic() - self.seen > ABANDONED):
            raise CancelledError

    def _run(self, answer: Callable[[Tick], Any]) -> None:
        try:
            self.result = answer(self._tick)
            self.seconds = time.monotonic() - self.began
        except Exception as error:
            if not isinstance(error, WorkbenchError | CancelledError):
                traceback.print_exc()
            self.error = error
        finally:
            self._over.set()


class Works:
    """All work of the server, the oldest forgotten first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[Hashable, Work] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Work | None:
        """The work on a question; None if nobody asked it, or it was cancelled."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def begin(self, key: Hashable, answer: Callable[[Tick], Any], attended: bool = False) -> Work:
        """Start working, unless somebody has. `answer` is given a function to tell the share done to;
        `attended`: see `Work`."""
        with self._lock:
            known = self._known.get(key)
            if known is None or (known.attended and isinstance(known.error, CancelledError)):
                self._known[key] = Work(answer, attended)
                while len(self._known) > self._most:
                    self._known.popitem(last=False)[1].cancel()
            self._known.move_to_end(key)
            return self._known[key]

    def cancel(self, key: Hashable) -> None:
        """End it and forget it."""
        with self._lock:
            work = self._known.pop(key, None)
        if work is not None:
            work.cancel()


@st.cache_resource(max_entries=1, show_spinner=False)
def works() -> Works:
    """The one of this server; cleared with Streamlit's caches."""
    return Works()

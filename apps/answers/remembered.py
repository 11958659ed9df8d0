"""Answers that come one by one, such as one a checkpoint: kept for all sessions, the oldest forgotten first.

`st.cache_resource` cannot say whether an answer is there without making it; this can.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import streamlit as st

MOST = 2000
"""Answers kept; each is a few numbers or a small table."""


class Memory:
    """A bounded dictionary that several sessions may use at once."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Hashable) -> Any:
        """What is known under `key`; None if nothing is."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Keep `value`; forget the one that was asked for longest ago if there are too many."""
        with self._lock:
            self._known[key] = value
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)


@st.cache_resource(max_entries=1, show_spinner=False)
def memory() -> Memory:
    """The one of this server; cleared with Streamlit's caches."""
    return Memory()

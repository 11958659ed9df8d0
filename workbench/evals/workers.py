"""Independent batches over the processor's cores: one thread each, no waiting for one another."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Lock
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def tokens_per_forward(device: str) -> int:
    """Tokens that one forward reads: enough to make Python's share small, few enough for the caches."""
    return 2048 if device == "cpu" else 65536


class Tally:
    """Counts what several threads have done, and tells `tick` the share of `total`, one call at a time."""

    def __init__(self, total: int, tick: Callable[[float], None]) -> None:
        self._total, self._tick = total, tick
        self._done = 0
        self._lock = Lock()

    def add(self, count: int) -> None:
        """So many more are done."""
        with self._lock:
            self._done += count
            self._tick(self._done / self._total)


def for_each(work: Callable[[T], None], items: Sequence[T], threads: int) -> None:
    """Call `work` on every item, without gradients, on `threads` threads.

    Small operations gain more from running side by side than from being divided: each thread runs its
    operations alone (torch's intra-operation threads are 1 meanwhile, and restored), also where there is
    but one item, as a divided sum is rounded otherwise. `work` must write to places of its own. The first
    exception stops the rest and is raised here, Ctrl-C included.
    """
    if threads <= 1:
        with torch.inference_mode():
            for item in items:
                work(item)
        return

    def guarded(item: T) -> None:
        with torch.inference_mode():
            work(item)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = [pool.submit(guarded, item) for item in items]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)


def threads_for(model: Any) -> int:
    """Threads to score with: torch's number on a processor; one on an accelerator, or under hooks,
    which may keep what they see."""
    hooked = getattr(model, "has_listeners", lambda: False)()
    return 1 if hooked or model.device.type != "cpu" else torch.get_num_threads()

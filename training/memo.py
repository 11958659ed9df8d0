"""What a process that trains many runs need not do twice: open a corpus, map its shards, choose a dtype."""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any

_kept: OrderedDict[Hashable, Any] | None = None
MOST = 16


@contextlib.contextmanager
def keeping() -> Iterator[None]:
    """While the block runs, `remembered` remembers. Blocks may be nested; the outermost one forgets."""
    global _kept
    before, _kept = _kept, OrderedDict() if _kept is None else _kept
    try:
        yield
    finally:
        _kept = before


def remembered(key: Hashable, make: Callable[[], Any]) -> Any:
    """What `make` gave for this key before, if a `keeping` block is open; else what it gives now."""
    if _kept is None:
        return make()
    if key in _kept:
        _kept.move_to_end(key)
        return _kept[key]
    value = _kept[key] = make()
    while len(_kept) > MOST:
        _kept.popitem(last=False)
    return value

"""What components do on whole paradigms: from the summary that was written beside the run, else measured."""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import streamlit as st

from apps.answers.catalogue import Opened
from apps.answers.sources import Source, pair_set, protocol_of
from apps.answers.summaries import table
from workbench.data.pairs import PairSet
from workbench.errors import InputError
from workbench.interp.matrix import ComponentMatrix, component_matrix
from workbench.interp.texts import REFERENCE_STORIES

if TYPE_CHECKING:
    import pandas as pd

METHODS = {"direct": "Direct contribution", "ablate": "Switched off (mean)"}
FEW = 100
"""Pairs of a paradigm that are measured without being asked: about half a second of a tiny model."""
MOST = 1024
"""Paradigms that are remembered, of all models together."""
Key = tuple[str, str, str, str, int]


@dataclass(frozen=True)
class Aggregate:
    """The mean effect of a component over pairs of a paradigm, nats, with its 95 % interval."""

    effect: float
    low: float
    high: float
    n: int


@dataclass
class _Store:
    """Measured paradigms, the oldest forgotten first."""

    kept: "OrderedDict[Key, ComponentMatrix]" = field(default_factory=OrderedDict)
    rates: dict[tuple[str, str], float] = field(default_factory=dict)
    """Seconds a pair of the last measurement, by checkpoint and method."""
    lock: threading.RLock = field(default_factory=threading.RLock)


@st.cache_resource(show_spinner=False)
def _store() -> _Store:
    return _Store()


def aggregate(opened: Opened, source: Source, paradigm: str, label: str) -> Aggregate | None:
    """Direct contribution of a component over the paradigm, whole sentences; None where it has none."""
    frame = paradigm_frame(opened, source, paradigm)
    row = frame[frame.component == label]
    if row.empty:
        return None
    first = row.iloc[0]
    return Aggregate(float(first.effect), float(first.low), float(first.high), int(first.n))


def at_hand(
    opened: Opened, source: Source, paradigm: str, method: str = "direct", limit: int | None = None
) -> bool:
    """Whether this paradigm's effects take no time."""
    return is_measured(opened, source, paradigm, method, limit) or bool(
        len(_summarised(opened, source, paradigm, method))
    )


def paradigm_frame(
    opened: Opened, source: Source, paradigm: str, method: str = "direct", limit: int | None = None
) -> "pd.DataFrame":
    """One row a component: paradigm, component, kind, layer, head, n, effect, low, high (nats)."""
    known = _summarised(opened, source, paradigm, method)
    return known if len(known) else measured(opened, source, paradigm, method, limit).to_frame()


def _summarised(opened: Opened, source: Source, paradigm: str, method: str) -> "pd.DataFrame":
    """The rows of the summary that was written beside this checkpoint; none if there is no summary of these
    pairs by this protocol."""
    import pandas as pd

    frame = table(opened, "components")
    if frame is None:
        return pd.DataFrame()
    mine = (frame["pairs"] == source.key) & (frame.protocol == protocol_of(source)[0])
    rows = frame[mine & (frame.paradigm == paradigm) & (frame.method == method)]
    return cast("pd.DataFrame", rows)


def measured(
    opened: Opened, source: Source, paradigm: str, method: str = "direct", limit: int | None = None
) -> ComponentMatrix:
    """`component_matrix` on the first pairs of one paradigm; remembered.

    Args:
        opened: the model.
        source: the set of pairs; its sentences must be at hand.
        paradigm: of the set.
        method: `direct`, or `ablate` by the mean over embedded stories.
        limit: pairs; None for `FEW`.
    """
    store, key = _store(), _key(opened, source, paradigm, method, limit)
    found = store.kept.get(key)
    if found is None:
        measure(opened, source, [paradigm], method, limit)
        found = store.kept[key]
    return found


def is_measured(opened: Opened, source: Source, paradigm: str, method: str, limit: int | None = None) -> bool:
    """Whether `measured` has been here before."""
    return _key(opened, source, paradigm, method, limit) in _store().kept


def measure(
    opened: Opened, source: Source, paradigms: Sequence[str], method: str, limit: int | None = None
) -> None:
    """Measure some paradigms in one go; see `measured`.

    Raises:
        InputError: the set of pairs has no paradigm of that name: the saved result was made on other ones.
    """
    whole = pair_set(source)
    if lacking := [name for name in paradigms if name not in whole.paradigms]:
        raise InputError(
            f"{source.label} has no paradigm {lacking[0][:80]}, which the saved result names; score the run "
            "again with `workbench blimp`."
        )
    some = PairSet(
        whole.name, whole.source, {name: whole.paradigms[name][: limit or FEW] for name in paradigms}
    )
    protocol, pll = protocol_of(source)
    text = _stories() if method == "ablate" else None
    began = time.perf_counter()
    with opened.lock:
        found = component_matrix(
            opened.run, some, methods=[method], reference=text, protocol=protocol, pll=pll
        )
    store = _store()
    with store.lock:
        store.rates[opened.key, method] = (time.perf_counter() - began) / max(1, len(some))
        for name in paradigms:
            store.kept[_key(opened, source, name, method, limit)] = _only(found, name)
        while len(store.kept) > MOST:
            store.kept.popitem(last=False)


def rate(opened: Opened, method: str) -> float | None:
    """Seconds a pair that the last measurement took; None before the first."""
    return _store().rates.get((opened.key, method))


def _stories() -> list[str]:
    from workbench.data.embedded.stories import stories

    return list(stories(REFERENCE_STORIES, split="train"))


def _only(matrix: ComponentMatrix, paradigm: str) -> ComponentMatrix:
    mine = (matrix.pairs.paradigm == paradigm).to_numpy()
    effects = {method: values[mine] for method, values in matrix.effects.items()}
    return replace(matrix, pairs=matrix.pairs[mine].reset_index(drop=True), effects=effects)


def _key(opened: Opened, source: Source, paradigm: str, method: str, limit: int | None) -> Key:
    saved = source.other.fingerprint if source.other is not None else ""
    return opened.key, f"{source.key}|{saved}|{protocol_of(source)}", paradigm, method, limit or FEW

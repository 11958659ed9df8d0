"""What components do on whole paradigms: from the summary that was written beside the run, else measured."""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, cast

import streamlit as st

from apps.answers import ablate
from apps.answers.catalogue import Opened
from apps.answers.sources import Source, pair_set, protocol_of
from apps.answers.summaries import table
from workbench.data.pairs import PairSet
from workbench.errors import InputError
from workbench.interp.matrix import ComponentMatrix, component_matrix
from workbench.interp.texts import GIVEN, Reference

if TYPE_CHECKING:
    import pandas as pd

METHODS = {"direct": "Direct contribution", "ablate": "Mean ablation"}
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


class Kind(NamedTuple):
    """What makes effects comparable: rows of different kinds are never shown as one matrix."""

    limit: int
    """Pairs of each paradigm."""
    reference: Reference | None
    """The text behind a mean ablation; None for direct contributions, and where it was not recorded."""
    saved: bool
    """True if the rows of the summary next to the run are shown."""

    def __str__(self) -> str:
        text = (
            ""
            if self.reference is None
            else f", ablated outputs replaced by their mean over {self.reference.label}"
        )
        return f"the first {self.limit:,} pairs of each{text}"


def kind_of(opened: Opened, source: Source, method: str) -> Kind:
    """Return the kind of the rows that are shown: that of the run's summary if it has this method for these
    pairs, else the default."""
    frame = _summary_rows(opened, source, method)
    if not len(frame):
        return Kind(FEW, ablate.reference(opened) if method == "ablate" else None, False)
    recorded = frame.attrs.get("reference") if method == "ablate" else None
    reference = None if recorded is None else Reference(**recorded)
    return Kind(frame.attrs.get("limit") or FEW, reference, True)


def can_measure(opened: Opened, source: Source, method: str) -> bool:
    """Return whether further rows of the shown kind can be measured: not where the summary's reference was
    not recorded or was given by a caller."""
    kind = kind_of(opened, source, method)
    return method != "ablate" or (kind.reference is not None and kind.reference.source != GIVEN)


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
    frame = _summary_rows(opened, source, method)
    return cast("pd.DataFrame", frame[frame.paradigm == paradigm] if len(frame) else frame)


def _summary_rows(opened: Opened, source: Source, method: str) -> "pd.DataFrame":
    import pandas as pd

    frame = table(opened, "components")
    if frame is None:
        return pd.DataFrame()
    mask = (frame["pairs"] == source.key) & (frame.protocol == protocol_of(source)[0])
    return cast("pd.DataFrame", frame[mask & (frame.method == method)])


def measured(
    opened: Opened, source: Source, paradigm: str, method: str = "direct", limit: int | None = None
) -> ComponentMatrix:
    """`component_matrix` on the first pairs of one paradigm; remembered.

    Args:
        opened: the model.
        source: the set of pairs; its sentences must be at hand.
        paradigm: of the set.
        method: `direct`, or `ablate` by the mean over the reference of `kind_of`.
        limit: pairs; None for that of `kind_of`.
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
    kind, whole = kind_of(opened, source, method), pair_set(source)
    if lacking := [name for name in paradigms if name not in whole.paradigms]:
        raise InputError(
            f"{source.label} has no paradigm {lacking[0][:80]}, which the saved result names; score the run "
            "again with `workbench blimp`."
        )
    some = PairSet(
        whole.name, whole.source, {name: whole.paradigms[name][: limit or kind.limit] for name in paradigms}
    )
    protocol, pll = protocol_of(source)
    began = time.perf_counter()
    with opened.lock:
        found = component_matrix(
            opened.run, some, methods=[method], reference=kind.reference, protocol=protocol, pll=pll
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


def _only(matrix: ComponentMatrix, paradigm: str) -> ComponentMatrix:
    mine = (matrix.pairs.paradigm == paradigm).to_numpy()
    effects = {method: values[mine] for method, values in matrix.effects.items()}
    return replace(matrix, pairs=matrix.pairs[mine].reset_index(drop=True), effects=effects)


def _key(opened: Opened, source: Source, paradigm: str, method: str, limit: int | None) -> Key:
    saved = source.other.fingerprint if source.other is not None else ""
    kind = kind_of(opened, source, method)
    about = f"{source.key}|{saved}|{protocol_of(source)}|{kind.reference}"
    return opened.key, about, paradigm, method, limit or kind.limit

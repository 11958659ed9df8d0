"""Where the minimal pairs of the page come from, and what the model made of them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from apps.answers.catalogue import Opened
from apps.answers.libraries import libraries
from apps.answers.pairs_at_hand import pairs_at_hand, place_of
from workbench.data.pairs import Pair, PairSet, candidate_folders, open_pairs, read_paradigm
from workbench.errors import WorkbenchError
from workbench.evals.blimp import BlimpResult, has_sentences, one_paradigm, with_sentences
from workbench.io import read_json
from workbench.runs.folder import tokenizer_file
from workbench.runs.run import is_whole
from workbench.runs.zoo import is_shipped, results_folder

if TYPE_CHECKING:
    import pandas as pd

LARGE, FEW_PAIRS = 20_000_000, 100
"""Parameters of a model from which on a paradigm that was not scored is scored on its first pairs only."""
NAMES = {"embedded": "Embedded pairs (not BLiMP)", "blimp": "BLiMP"}


@dataclass(frozen=True)
class Saved:
    """A result on minimal pairs in a run's folder."""

    path: Path
    modified: int
    step: int | None
    pairs: str
    source: str
    protocol: str
    pll: str | None
    fingerprint: str = ""
    sentences: bool = True
    """Whether they were saved with it; what ships comes without."""

    @property
    def label(self) -> str:
        """Pairs, protocol and checkpoint in a few words."""
        step = "the last checkpoint" if self.step is None else f"checkpoint {self.step:,}"
        pll = f", {self.pll}" if self.pll else ""
        return f"{pairs_name(self.pairs, self.source)} · {self.protocol}{pll} · {step}"


@dataclass(frozen=True)
class Source:
    """A set of pairs that can be looked at with a run."""

    key: str
    label: str
    saved: Saved | None
    """The newest result of the opened checkpoint on them."""
    other: Saved | None
    """The newest result of any checkpoint; it has the sentences, unless it ships."""
    data: str | None = None
    """Where pairs are whose sentences did not come with a result."""
    place: str | None = None
    """The folder of a set that the run was not scored on."""


def pairs_name(pairs: str, source: str) -> str:
    """What a set of pairs is called on the page; embedded ones are always called so."""
    return NAMES.get(source, pairs)


@st.cache_data(max_entries=256, show_spinner=False)
def _head(path: str, modified: int) -> dict[str, Any] | None:
    try:
        value = read_json(Path(path))
        if not isinstance(value, dict) or not is_whole(value):
            return None
        return {
            "step": value["step"],
            "pairs": str(value["pairs"]),
            "source": str(value["source"]),
            "protocol": str(value["protocol"]["name"]),
            "pll": value["pll"],
            "fingerprint": str(value.get("fingerprint", "")),
            "sentences": value.get("sentences") is not False,
        }
    except (WorkbenchError, KeyError, TypeError):
        return None


def saved_results(run: Path) -> list[Saved]:
    """All readable results of a run, newest first. Of a run that ships: the reader's own, then those that
    came with it, BLiMP before others."""
    run, found = Path(run), []
    places = dict.fromkeys([results_folder(run), run])
    for path in (path for place in places for path in (place / "blimp").glob("*.json")):
        try:
            modified = path.stat().st_mtime_ns
        except OSError:
            continue
        head = _head(str(path), modified)
        if head is not None:
            found.append(Saved(path, modified, **head))

    def order(saved: Saved) -> tuple[bool, int, int, str]:
        came = is_shipped(run) and saved.path.parent.parent == run
        rank = ("folder", "embedded", "blimp").index(saved.source) if came and saved.source in NAMES else 0
        return not came, rank, 0 if came else saved.modified, saved.path.name

    return sorted(found, key=order, reverse=True)


def sources(results: list[Saved], step: int, data: str | None = None) -> list[Source]:
    """The embedded pairs, and every set that the run was scored on; scored sets first.

    Args:
        results: of the run.
        step: the opened checkpoint's.
        data: where pairs are whose sentences did not come with a result.
    """
    places = _places(data)
    keys = list(dict.fromkeys([*(saved.pairs for saved in results), "embedded", *places]))
    found = []
    for key in keys:
        mine = [saved for saved in results if saved.pairs == key]
        here = next((saved for saved in mine if saved.step == step), None)
        label = pairs_name(key, mine[0].source if mine else key)
        place = None if mine else places.get(key)
        source = Source(key, label, here, here or next(iter(mine), None), data, place)
        if key == "embedded" and not readable(source):
            source = Source(key, label, None, None, data)  # of an older edition of the pairs: scored now
        found.append(source)
    return found


def _places(data: str | None) -> dict[str, str]:
    """Name -> folder of the sets that the explorer was started with: BLiMP there, or the folder itself."""
    if data is None:
        return {}
    found: dict[str, str] = {}
    try:
        for name in ("blimp", Path(data).name):
            for place in candidate_folders(name, data):
                named = place.name == name or place.parent.name == "snapshots"
                if named and (any(place.glob("*/*.parquet")) or any(place.glob("*.jsonl"))):
                    found.setdefault(name, str(place))
    except (OSError, ValueError):  # no path at all, or a folder that cannot be read
        return {}
    return found


@st.cache_resource(max_entries=4, show_spinner="Reading the pairs …")
def _pairs_of(place: str) -> PairSet:
    return open_pairs(place)


def readable(source: Source) -> bool:
    """Whether the sentences are there: in the results, or in a folder of the same pairs on this machine.
    No sentence is read for it."""
    known = {saved for saved in (source.saved, source.other) if saved is not None}
    return all(saved.sentences or _place(saved, source.data) is not None for saved in known)


def _place(saved: Saved, data: str | None) -> str | None:
    return place_of(saved.pairs, saved.source, saved.fingerprint, data)


@st.cache_resource(max_entries=16, show_spinner=False)
def _result(path: str, modified: int) -> BlimpResult:
    return BlimpResult.read(path)


def read_result(saved: Saved) -> BlimpResult:
    """The whole saved result, with sentences only if they were saved; shared, so not to be changed.

    Raises:
        DataError: its files are missing or damaged.
    """
    return _result(str(saved.path), saved.modified)


def _whole(saved: Saved, data: str | None) -> BlimpResult:
    """The result with its sentences; without them where the pairs are not at hand."""
    result = read_result(saved)
    if has_sentences(result.per_pair):
        return result
    pairs = pairs_at_hand(saved.pairs, saved.source, saved.fingerprint, data)
    return result if pairs is None else _joined(str(saved.path), saved.modified, saved.fingerprint, pairs)


def whole(saved: Saved, data: str | None = None) -> BlimpResult:
    """The saved result, with its sentences if they were saved or the same pairs are on this machine."""
    return _whole(saved, data)


@st.cache_resource(max_entries=8, show_spinner=False)
def _joined(path: str, modified: int, fingerprint: str, _pairs: PairSet) -> BlimpResult:
    libraries()
    from workbench.data.tokenizer import load_tokenizer

    result = _result(path, modified)
    try:
        tokenizer = load_tokenizer(tokenizer_file(Path(path).parents[1]), apply_config=False)
        return with_sentences(result, _pairs, tokenizer)
    except WorkbenchError:
        return result


def scored_pairs(source: Source) -> "pd.DataFrame":
    """The opened checkpoint's saved decisions, with sentences; there must be some."""
    assert source.saved is not None
    return _whole(source.saved, source.data).per_pair


@st.cache_resource(max_entries=4, show_spinner=False)
def embedded() -> PairSet:
    """The pairs that come with the package."""
    return open_pairs(None)


def pair_set(source: Source) -> PairSet:
    """The pairs themselves: the embedded ones, or those that the saved result lists."""
    if source.place is not None:
        return _pairs_of(source.place)
    if source.other is None or source.other.source == "embedded":
        return embedded()
    columns = ["sentence_good", "sentence_bad", "paradigm", "phenomenon", "pair_id"]
    paradigms: dict[str, list[Pair]] = {}
    for row in _whole(source.other, source.data).per_pair[columns].itertuples(index=False, name=None):
        paradigms.setdefault(row[2], []).append(Pair(*row))
    return PairSet(source.other.pairs, source.other.source, paradigms)


def protocol_of(source: Source) -> tuple[str, str]:
    """Protocol and pseudo-log-likelihood that the set was scored with; ours if it was not."""
    if source.other is None:
        return "native", "original"
    return source.other.protocol, source.other.pll or "original"


def paradigms(source: Source) -> dict[str, float | None]:
    """Paradigm -> share decided rightly by the opened checkpoint; None where that is not known."""
    if source.saved is not None:
        return dict(read_result(source.saved).paradigms.accuracy.items())
    return dict.fromkeys(pair_set(source).paradigms)


def scored(opened: Opened, source: Source, paradigm: str) -> BlimpResult:
    """The opened checkpoint's decisions on one paradigm: from its saved result, else scored now.

    `.per_pair` has the columns of `BlimpResult.per_pair`.
    """
    if source.saved is not None:
        return _part(str(source.saved.path), source.saved.modified, paradigm, source)
    protocol, pll = protocol_of(source)
    return _score(opened, opened.key, source.key, paradigm, protocol, pll, source)


@st.cache_resource(max_entries=32, show_spinner=False)
def _part(path: str, modified: int, paradigm: str, _source: Source) -> BlimpResult:
    saved = _source.saved
    assert saved is not None
    if not saved.sentences and (place := _place(saved, _source.data)) is not None:
        pairs = read_paradigm(None if place == "embedded" else place, paradigm)
        return one_paradigm(read_result(saved), paradigm, pairs, tokenizer_file(saved.path.parents[1]))
    whole = _whole(saved, _source.data)
    frame = whole.per_pair[whole.per_pair.paradigm == paradigm].reset_index(drop=True)
    return replace(whole, per_pair=frame)


@st.cache_resource(max_entries=32, show_spinner="Scoring the paradigm …")
def _score(
    _opened: Opened, key: str, pairs: str, paradigm: str, protocol: str, pll: str, _source: Source
) -> BlimpResult:
    libraries()
    from workbench.evals.blimp import blimp

    pairs_of = pair_set(_source)
    with _opened.lock:
        return blimp(
            _opened.model,
            pairs_of,
            protocol,
            pll=pll,
            paradigms=[paradigm],
            limit=FEW_PAIRS if _opened.model.config.n_params > LARGE else None,
            tokenizer=_opened.tokenizer,
            progress=False,
        )


def by_margin(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Pairs of one paradigm, worst first."""
    return frame.sort_values(["margin", "pair_id"], kind="stable").reset_index(drop=True)


def telling_pair(frame: "pd.DataFrame") -> int:
    """The pair to open on: the clearest mistake, of equally long sentences if there is one."""
    even = frame[(frame.tokens_good == frame.tokens_bad) & (frame.correct < 0.5)]
    chosen = even if len(even) else frame
    return int(chosen.loc[chosen.margin.idxmin(), "pair_id"])

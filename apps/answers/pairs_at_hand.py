"""Minimal pairs on this machine, for results that ship without sentences; remembered."""

from pathlib import Path

import streamlit as st

from workbench.data.pairs import PairSet, candidate_folders, has_fingerprint, open_matching


def place_of(name: str, source: str, fingerprint: str, data: str | None = None) -> str | None:
    """Where on this machine the set lies, see `workbench.data.pairs.find_pairs`; None if it does not.
    `embedded` for the pairs that come with the package."""
    if source == "embedded":
        return "embedded" if has_fingerprint(None, fingerprint) else None
    for place in dict.fromkeys(map(str, candidate_folders(name, data))):
        if _holds(place, fingerprint, _changed(place)):
            return place
    return None


def pairs_at_hand(name: str, source: str, fingerprint: str, data: str | None = None) -> PairSet | None:
    """All pairs of the set, remembered; see `place_of`."""
    place = place_of(name, source, fingerprint, data)
    return None if place is None else _opened(place, fingerprint)


def _changed(place: str) -> int:
    try:
        return Path(place).stat().st_mtime_ns
    except OSError:
        return 0


@st.cache_data(max_entries=64, show_spinner="Looking for the pairs …")
def _holds(place: str, fingerprint: str, changed: int) -> bool:
    return has_fingerprint(place, fingerprint)


@st.cache_resource(max_entries=16, show_spinner="Reading the pairs …")
def _opened(place: str, fingerprint: str) -> PairSet | None:
    return open_matching(None if place == "embedded" else place, fingerprint)

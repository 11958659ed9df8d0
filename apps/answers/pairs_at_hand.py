"""Minimal pairs on this machine, for results that ship without sentences; remembered."""

import streamlit as st

from workbench.data.pairs import PairSet
from workbench.data.pairs_at_hand import fitting, places


def pairs_at_hand(name: str, source: str, fingerprint: str, data: str | None = None) -> PairSet | None:
    """`workbench.data.pairs_at_hand.find_pairs`, remembered place by place."""
    if source == "embedded":
        return _opened(None, fingerprint)
    for place in dict.fromkeys(map(str, places(name, data))):
        if (found := _opened(place, fingerprint)) is not None:
            return found
    return None


@st.cache_resource(max_entries=16, show_spinner="Looking for the pairs …")
def _opened(place: str | None, fingerprint: str) -> PairSet | None:
    return fitting(place, fingerprint)

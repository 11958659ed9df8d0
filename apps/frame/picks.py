"""Clicks on our own HTML: an element with `data-wb-pick` inside one with `data-wb-map` calls back."""

from collections.abc import Callable

import streamlit as st
from streamlit.components import v2

_HEAR = """
export default function ({ data, setTriggerValue }) {
  const heard = (event) => {
    const found = event.target.closest?.("[data-wb-pick]");
    const map = found?.closest("[data-wb-map]");
    if (map?.dataset.wbMap === data.map) setTriggerValue("picked", found.dataset.wbPick);
  };
  document.addEventListener("click", heard);
  return () => document.removeEventListener("click", heard);
}
"""
_bridge = v2.component("wb_picks", js=_HEAR)


def picks(name: str, picked: Callable[[str], None]) -> None:
    """Hear clicks on the map called `name`; only the part of the page that this stands in reruns.

    Args:
        name: of `data-wb-map`, unique on the page.
        picked: told the value of `data-wb-pick`, before the rerun. It comes from the browser, so anything
            may be in it.
    """
    key = f"picks-{name}"

    def heard() -> None:
        value = st.session_state[key].get("picked")
        if isinstance(value, str):
            picked(value)

    _bridge(key=key, data={"map": name}, on_picked_change=heard)

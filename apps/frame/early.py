"""What stands on the page while torch and the model are read: the saved verdict, and grey bars."""

import sys
from importlib import import_module

import streamlit as st

from apps.answers.catalogue import Opened
from apps.frame.frame import Wanted
from apps.look import markup
from apps.pages import Page


def until_loaded(page: Page, opened: Opened, wanted: Wanted | None) -> None:
    """Read the page's module and the model; meanwhile say what is known without them.

    Raises:
        WorkbenchError: the model cannot be read.
    """
    if opened.is_loaded and page.module in sys.modules:
        return
    place = st.empty()
    try:
        with place.container():
            if page.key == "explain" and wanted is not None:
                _verdict(opened, wanted)
            st.html(markup.bars(f"Reading {opened.name} …"))
        import_module(page.module)
        _ = opened.tokenizer, opened.model
    finally:
        place.empty()


def _verdict(opened: Opened, wanted: Wanted) -> None:
    """Which sentence is preferred, as the saved result has it."""
    if wanted.paradigm is None:
        return
    frame = wanted.paradigm.per_pair
    margin = float(frame[frame.pair_id == wanted.pair_id].margin.iloc[0])
    kind = "neither sentence" if margin == 0 else f"the {'right' if margin > 0 else 'wrong'} sentence"
    st.html(markup.headline(f"{opened.name} prefers {kind}"))
    st.html(markup.where(wanted.origin))
    st.html(markup.sentences(wanted.good, wanted.bad))

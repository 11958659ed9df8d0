"""The whole page: sidebar, menu, and the page that was chosen."""

from collections.abc import Sequence
from importlib import import_module

import streamlit as st

from apps.answers import catalogue
from apps.answers.catalogue import Opened
from apps.answers.wanted import Wanted
from apps.entry import early, start
from apps.frame import address, journey, sidebar
from apps.frame.frame import Frame
from apps.frame.told import told
from apps.look import markup
from apps.look.palette import palette
from apps.pages import PAGES


def show(arguments: Sequence[str]) -> None:
    """Draw everything."""
    journey.arrived()
    address.follow_history()
    colours = palette(st.context.theme.type)
    st.html(markup.style(colours))
    with told():
        asked = catalogue.asked(arguments)
        runs = catalogue.find_runs(asked.root, asked.family)
        if not runs:
            start.show(asked.root)
            return
        chosen = menu()
        with st.sidebar:
            st.caption("How a small transformer decides between two sentences, and which of its parts do it.")
            opened = sidebar.choose_model(asked, runs)
        beside: Opened | None = None
        wanted: Wanted | str | None = None
        with told(), st.sidebar:  # told in the middle of the page: on a telephone the sidebar is closed
            beside = sidebar.choose_beside(runs, opened)
        with told() as said, st.sidebar:
            what = sidebar.choose_subject()
            if what == "pair":
                wanted = sidebar.choose_pair(opened, asked.data)
            elif what == "sentences":
                wanted = sidebar.write_sentences()
            else:
                wanted = sidebar.write_text()
        with st.sidebar:
            sidebar.footer()
        named = {"checkpoint": "checkpoint", "beside": "model", "pairs": "set of pairs",
                 "paradigm": "paradigm", "pair": "pair", "page": "page"}  # fmt: skip
        notes = address.unknown(named)
        for note in (*notes, *opened.notes, *(beside.notes if beside else ())):
            st.warning(markup.plain(note))
        pair = wanted if isinstance(wanted, Wanted) else None
        text = wanted if isinstance(wanted, str) else None
        with told(said):
            early.until_loaded(PAGES[chosen], opened, pair, colours)
            import_module(PAGES[chosen].module).show(Frame(asked, opened, beside, pair, text, colours))


def menu() -> str:
    """The page to show; it stands in the address, unless it is the first."""
    return address.one_of("page", "Page", {key: page.title for key, page in PAGES.items()})

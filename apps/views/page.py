"""The frame: sidebar, then what was chosen; every mistake of the user's is one line that says what to do."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import streamlit as st

from apps import catalogue, markup
from apps.palette import palette
from apps.views import minimal_pairs, pair, sidebar, start, text
from workbench.errors import WorkbenchError


def show(arguments: Sequence[str]) -> None:
    """Draw the whole page."""
    colours = palette(st.context.theme.type)
    st.html(markup.style(colours))
    with told():
        asked = catalogue.asked(arguments)
        if not catalogue.find_runs(asked.root, asked.family):
            start.show(asked.root)
            return
        with st.sidebar:
            opened = sidebar.choose_model(asked.root, asked.family)
            what = sidebar.choose_subject()
            wanted = None
            if what == "pair":
                with told():
                    wanted = sidebar.choose_pair(opened, asked.data)
            elif what == "sentences":
                wanted = sidebar.write_sentences()
            else:
                wanted = sidebar.write_text()
            sidebar.footer()
        for note in opened.notes:
            st.warning(markup.plain(note))
        with told():
            if isinstance(wanted, sidebar.Wanted):
                pair.show(opened, wanted, colours)
            elif wanted is not None:
                text.show(opened, wanted, colours)
        st.divider()
        with told():
            minimal_pairs.show(opened, colours)


@contextmanager
def told() -> Iterator[None]:
    """Show a user's error as one box."""
    try:
        yield
    except WorkbenchError as error:
        st.error(markup.plain(error))

"""What stands on the page while torch and the model are read: what is known without them, and grey bars."""

import sys
from importlib import import_module

import streamlit as st

from apps.answers.catalogue import Opened
from apps.answers.libraries import libraries
from apps.answers.wanted import Wanted
from apps.frame.drawn import painted
from apps.look import markup
from apps.look.palette import Palette
from apps.pages import Page
from apps.pages.explain import first


def until_loaded(page: Page, opened: Opened, wanted: Wanted | None, palette: Palette) -> None:
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
                first.show(opened, wanted, palette)
            st.html(markup.bars(f"Reading {opened.name} …"))
        painted()
        libraries()
        import_module(page.module)
        _ = opened.tokenizer, opened.model
    finally:
        place.empty()

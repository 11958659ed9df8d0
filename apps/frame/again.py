"""Rerun the part of the page that is running: how heavy work goes on piece by piece."""

import streamlit as st
from streamlit.errors import StreamlitAPIException


def again() -> None:
    """Rerun only the fragment where only that is running, else the whole page. Does not return."""
    try:
        st.rerun(scope="fragment")
    except StreamlitAPIException:
        st.rerun()

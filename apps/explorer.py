"""The explorer: `streamlit run apps/explorer.py -- --runs runs`, or `workbench app`."""

import sys
from pathlib import Path

# From a bare checkout; and no file of this folder may stand in for a library of the same name.
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if path != str(HERE))]

import streamlit as st  # noqa: E402

st.set_page_config(page_title="Workbench explorer", page_icon="🔎", layout="wide")
st.logo(HERE / "look" / "logo.svg", size="large")

from apps.entry import page  # noqa: E402

page.show(sys.argv[1:])

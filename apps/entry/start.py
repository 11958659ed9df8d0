"""Before there is a run: what to do."""

from pathlib import Path

import streamlit as st

from apps.look import markup


def show(root: Path) -> None:
    """Say how to get a first run."""
    there = "has no runs yet" if root.is_dir() else "does not exist yet"
    st.html(markup.headline("No model to open yet"))
    st.html(markup.where([f"the folder {root} {there}"]))
    st.markdown(
        "Train three tiny models on embedded stories, score them and open them here (about four minutes):"
    )
    st.code("make demo", language="bash")
    st.markdown("Or train one yourself, and reload this page:")
    st.code(f"workbench train --preset tiny --minutes 2 --out {root / 'tiny'}", language="bash")
    st.markdown("Runs in another folder? Pass it after two dashes:")
    st.code("streamlit run apps/explorer.py -- --runs FOLDER", language="bash")

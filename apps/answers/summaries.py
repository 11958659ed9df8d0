"""Tables that `workbench explain` worked out beforehand, or that came with a run that ships."""

from typing import TYPE_CHECKING

import streamlit as st

from apps.answers.catalogue import Opened
from workbench.interp.summary import CARD, read_table, summary_folder
from workbench.runs.zoo import places_of

if TYPE_CHECKING:
    import pandas as pd


def table(opened: Opened, name: str) -> "pd.DataFrame | None":
    """A table of the opened checkpoint's summary; shared, so not to be changed.

    Args:
        opened: the checkpoint.
        name: `head_scores` (`HeadScores.to_frame`), `components` (`ComponentMatrix.to_frame`, with `pairs`
            and `protocol`) or `opening` (one row for each set of pairs).

    Returns:
        None where it is missing, damaged, or of other weights.
    """
    return _table(opened, opened.key, name, _written(opened))


def _written(opened: Opened) -> tuple[int, ...]:
    """When the summaries were written; a new one is read as soon as it is there."""
    found = []
    for place in places_of(opened.run.path):
        try:
            found.append((summary_folder(place, opened.run.step) / CARD).stat().st_mtime_ns)
        except OSError:
            found.append(0)
    return tuple(found)


@st.cache_resource(max_entries=48, show_spinner=False)
def _table(_opened: Opened, key: str, name: str, written: tuple[int, ...]) -> "pd.DataFrame | None":
    return read_table(_opened.run.path, _opened.run.step, name)

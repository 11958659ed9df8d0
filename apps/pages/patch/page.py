"""Ablate and patch: what happens to a pair when parts of the model are taken out or exchanged."""

import streamlit as st

from apps.answers import explain
from apps.answers.explain import MINIMAL, OWN
from apps.frame import address, journey
from apps.frame.frame import Frame
from apps.frame.told import fragment
from apps.pages.patch import ablate, patching, scatter

PARTS = {"ablate": "Ablate", "patch": "Patch", "scatter": "Contribution against ablation"}
_SHOW = {"ablate": ablate.show, "patch": patching.show, "scatter": scatter.show}


def show(frame: Frame) -> None:
    """Draw the part that was chosen; a text has no two sentences to compare."""
    if frame.wanted is not None:
        explain.explain_pair(  # refuses what cannot be compared, in its own words
            frame.opened, frame.wanted.good, frame.wanted.bad, frame.wanted.protocol, frame.wanted.pll
        )
        _parts(frame)
    elif frame.text is not None:
        st.subheader("Two sentences are needed here", anchor=False)
        st.markdown(
            "Ablation and patching are judged by a difference between two sentences, and a text is one. "
            "Choose a pair of a set, or write two sentences of your own."
        )
        with st.container(horizontal=True):
            st.button("A pair of a set", on_click=journey.go, args=("patch",), kwargs={"look": "pair"})
            st.button("Two sentences", on_click=journey.go, args=("patch",), kwargs={"look": "sentences"})


@fragment
def _parts(frame: Frame) -> None:
    chosen = address.one_of(
        "do",
        "What to do",
        PARTS,
        help="Take parts out; exchange activations of the two sentences; hold contributions against effects.",
    )
    _SHOW[chosen](frame)


def names(frame: Frame) -> tuple[str, str]:
    """What the two sentences are called."""
    return OWN if frame.wanted is not None and frame.wanted.paradigm is None else MINIMAL

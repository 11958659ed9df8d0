"""One model's half of the page: model A alone, or A and B beside each other."""

from dataclasses import dataclass

import streamlit as st

from apps.answers.catalogue import Opened
from apps.answers.explain import Subject, View

PICKED = "head picked by the reader"
"""True where the reader chose model A's component: another pair then keeps it."""
HOWS = {"direct": "Direct", "mean": "Mean ablation", "zero": "Zero ablation"}
"""What the map can show of each component."""


def pick() -> None:
    """Remember that the reader chose model A's component."""
    st.session_state[PICKED] = True


@dataclass(frozen=True)
class Side:
    """A model and what it made of the pair or text."""

    opened: Opened
    subject: Subject
    state: str
    """Key of the chosen component in the state and the address."""
    picked: str
    """Key of whether the reader chose it."""

    def view(self, key: str) -> View:
        """The quantity of that key; the first one if there is none."""
        return next((view for view in self.subject.views if view.key == key), self.subject.views[0])


def first(opened: Opened, subject: Subject) -> Side:
    """Model A's."""
    return Side(opened, subject, "head", PICKED)


def second(opened: Opened, subject: Subject) -> Side:
    """Model B's."""
    return Side(opened, subject, "headb", f"{PICKED}, of the other model")

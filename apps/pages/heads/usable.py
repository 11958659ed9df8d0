"""What of the sidebar's choices this model can read; the rest of the page does without."""

import dataclasses

import streamlit as st

from apps.answers import explain
from apps.frame.frame import Frame
from apps.look import markup
from workbench.errors import WorkbenchError


def usable(frame: Frame) -> Frame:
    """The frame without a pair or a text that cannot be read; the reason is told in a box."""
    try:
        if frame.wanted is not None:
            wanted = frame.wanted
            explain.explain_pair(frame.opened, wanted.good, wanted.bad, wanted.protocol, wanted.pll)
        elif frame.text is not None:
            explain.explain_text(frame.opened, frame.text)
    except WorkbenchError as error:
        st.error(markup.plain(error))
        return dataclasses.replace(frame, wanted=None, text=None)
    return frame

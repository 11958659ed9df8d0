"""Mistakes are told in one box, never as a traceback, in whole runs of a page as in those of a part."""

import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import streamlit as st

from apps.frame import journey
from apps.look import markup
from workbench.errors import WorkbenchError

FAILED = "This part of the page failed"
"""How a mistake of the workbench's own is told."""


@contextmanager
def told(before: Sequence[str] = ()) -> Iterator[list[str]]:
    """Show a user's error as one box, and a mistake of ours too, with its traceback in the terminal.

    Args:
        before: what was told already, and is not told again.

    Yields:
        A list that will hold the user's error.
    """
    said: list[str] = []
    try:
        yield said
    except WorkbenchError as error:
        said.append(str(error))
        if str(error) not in before:
            st.error(markup.plain(error))
    except FileNotFoundError as error:
        st.error(markup.plain(f"{error.filename} is gone; was the run deleted? Reload, or choose another."))
    except Exception as error:
        traceback.print_exc()
        st.error(markup.plain(
            f"{FAILED} ({type(error).__name__}: {str(error)[:200]}). Reload the page; if it comes back, "
            "please report it with the lines that the terminal shows."
        ))  # fmt: skip


def fragment(part: Callable[..., None]) -> Callable[..., None]:
    """A part of a page that reruns alone. Where a click in it leads to another page, the whole page runs."""

    @functools.wraps(part)
    def shown(*args: Any, **kwargs: Any) -> None:
        journey.follow()
        with told():
            part(*args, **kwargs)

    return st.fragment(shown)

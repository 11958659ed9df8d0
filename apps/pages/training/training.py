"""One run over its training: a slider that drives all pages, and curves with a rule at its checkpoint."""

import streamlit as st

from apps.answers import catalogue
from apps.answers.catalogue import LAST
from apps.frame.frame import Frame
from apps.frame.told import told
from apps.look import markup
from apps.pages.training import head_curves, loss_curves, pair_curves, share_curves
from workbench.io import is_locked
from workbench.runs.zoo import is_shipped, middle_member

SLIDER = "training step"


def show(frame: Frame) -> None:
    """Draw the slider and everything over training."""
    steps = catalogue.steps(frame.opened.run.path)[::-1]
    _slider(frame, steps)
    with told():
        pair_curves.show(frame.opened, frame.wanted, tuple(steps), frame.palette)
    with told():
        loss_curves.show(frame.opened, frame.palette)
    with told():
        share_curves.show(frame.opened, tuple(steps), frame.palette)
    with told():
        head_curves.show(frame.opened, tuple(steps), frame.palette)


def _slider(frame: Frame, steps: list[int]) -> None:
    run = frame.opened.run
    st.subheader(f"{markup.plain(run.name)} over its training", anchor=False)
    if is_locked(run.path):
        st.info("This run is training right now; reload the page for its newest checkpoint and curves.")
    if len(steps) < 2:
        middle = middle_member()
        other = (
            f" Of the family that ships, zoo/{middle} has them." if middle and is_shipped(run.path) else ""
        )
        st.info(markup.plain(
            f"{run.name} has one checkpoint, step {steps[0] if steps else run.step:,}: its losses are below, "
            f"but it cannot be watched from inside over training.{other} A run of your own keeps checkpoints "
            "at 0, 1, 2, 4, … 512 and then at equal distances."
        ))  # fmt: skip
        return
    st.session_state[SLIDER] = run.step if run.step in steps else steps[-1]
    st.select_slider(
        "Checkpoint", steps, key=SLIDER, on_change=_move, args=(steps[-1],),
        format_func=lambda step: f"step {step:,}",
        help="Updates done. It is the checkpoint of the sidebar: moving it moves all parts of all pages.",
    )  # fmt: skip


def _move(last: int) -> None:
    step = st.session_state[SLIDER]
    st.session_state["checkpoint"] = LAST if step == last else step

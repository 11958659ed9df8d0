"""Minimal pairs: phenomena and paradigms x models, failing pairs, and the components behind them."""

import shlex

import streamlit as st

from apps.answers import catalogue, sources
from apps.answers.beside import Column, matching
from apps.answers.catalogue import Opened
from apps.answers.sources import Saved
from apps.frame import address
from apps.frame.frame import Frame
from apps.frame.told import fragment, told
from apps.look import markup
from apps.pages.blimp import matrix, pairs, shares
from apps.pages.blimp.board import Board
from workbench.runs.zoo import shown_name


@fragment
def show(frame: Frame) -> None:
    """Draw the page, or say how to get a result."""
    opened = frame.opened
    st.subheader(f"How often {markup.plain(opened.name)} prefers the grammatical sentence", anchor=False)
    results = sources.saved_results(opened.run.path)
    if not results:
        _empty(opened)
        return
    one, more = st.columns([1, 1], gap="large")
    with one:
        saved = _choose_result(opened, results)
    with more:
        columns = _columns(frame, saved)
    board = Board(frame, saved, tuple(columns), _source(frame, results, saved))
    with told():
        shares.show(board)
    with told():
        pairs.show(board)
    with told():
        matrix.show(board)


def _choose_result(opened: Opened, results: list[Saved]) -> Saved:
    saved = {each.path.stem: each for each in results}
    here = [name for name, each in saved.items() if each.step == opened.run.step]
    address.choice("result", list(saved), here[0] if here else next(iter(saved)))
    name = st.selectbox(
        "Result", list(saved), key="result", format_func=lambda name: saved[name].label,
        help="Every result in the run's folder, newest first. Other models are shown on the same pairs by "
        "the same protocol.",
    )  # fmt: skip
    address.write(result=None if name == (here[0] if here else next(iter(saved))) else name)
    if saved[name].step != opened.run.step:
        st.info(
            f"This result is of step {saved[name].step}; the opened checkpoint is step {opened.run.step}."
        )
    return saved[name]


def _columns(frame: Frame, saved: Saved) -> list[Column]:
    """Model A, model B, and further ones of the reader's choice, each with its result on the same pairs."""
    columns = [(frame.opened.name, saved)]
    taken = {frame.opened.run.path}
    if frame.beside is not None:
        taken.add(frame.beside.run.path)
        other = matching(frame.beside.run.path, saved, frame.beside.run.step)
        if other is None:
            run = shlex.quote(shown_name(frame.beside.run.path))
            st.info(markup.plain(
                f"{frame.beside.name} has no result on these pairs by this protocol; score it and reload: "
                f"workbench blimp {run}{_data(saved)}"
            ))  # fmt: skip
        else:
            columns.append((frame.beside.name, other))
    runs = catalogue.find_runs(frame.asked.root, frame.asked.family)
    found = {
        name: other
        for name, path in runs.items()
        if path not in taken and (other := matching(path, saved)) is not None
    }
    if found:
        _choice("also", list(found))
        names = st.multiselect(
            "More models",
            list(found),
            key="also",
            placeholder=f"{len(found)} more with results on the same pairs",
            help="Runs of the catalogue that were scored on the same pairs by the same protocol, each at its "
            "newest result.",
        )
        address.write(also=",".join(names) or None)
        columns += [(name, found[name]) for name in names]
    return columns


def _choice(key: str, options: list[str]) -> None:
    """The state of a choice of several, from the address; what is no option (any more) is passed over."""
    if key not in st.session_state:
        st.session_state[key] = st.query_params.get(key, "")[: address.LONGEST].split(",")
    st.session_state[key] = [name for name in st.session_state[key] if name in options]


def _source(frame: Frame, results: list[Saved], saved: Saved) -> sources.Source | None:
    """The set of pairs as the sidebar knows it; None if its sentences are not at hand."""
    known = sources.sources(results, frame.opened.run.step, frame.asked.data)
    found = next((source for source in known if source.key == saved.pairs), None)
    return found if found is not None and sources.readable(found) else None


def _data(saved: Saved) -> str:
    if saved.source == "embedded":
        return ""
    return " --data " + ("nyu-mll/blimp" if saved.source == "blimp" else shlex.quote(saved.pairs))


def _empty(opened: Opened) -> None:
    st.markdown(
        "This run has not been scored yet. The embedded pairs take seconds, and all of BLiMP some minutes:"
    )
    run = shlex.quote(shown_name(opened.run.path))
    st.code(f"workbench blimp {run}\nworkbench blimp {run} --data nyu-mll/blimp", language="bash")
    st.markdown("Then reload this page.")

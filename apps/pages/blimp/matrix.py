"""Which components decide which paradigms, and the pairs that one of them explains."""

from typing import Any, cast

import streamlit as st

from apps.answers import matrix_rows, paradigm_effects, sources
from apps.answers.sources import Source
from apps.charts.component_matrix import component_matrix
from apps.frame import address, waiting
from apps.frame.downloads import downloads
from apps.frame.told import fragment
from apps.look import markup
from apps.pages.blimp import pairs
from apps.pages.blimp.board import NO_SENTENCES, Board, shown

ROWS = {"paradigms": "Paradigms of the phenomenon", "every": "All paradigms", "phenomena": "Phenomena"}
UNDERWAY = "paradigms that are being measured"


@fragment
def show(board: Board) -> None:
    """Draw the matrix of what is known, the way to the rest, and the chosen cell's pairs."""
    opened = board.frame.opened
    st.subheader(f"Which components of {markup.plain(opened.name)} decide which paradigms", anchor=False)
    with st.container(horizontal=True):
        rows = address.one_of("rows", "Rows", ROWS)
        method = address.one_of(
            "method",
            "Method",
            paradigm_effects.METHODS,
            help="Direct contribution: what a component writes for the readout. Mean "
            "ablation: what the margin loses when its output is replaced by its mean over training stories.",
        )
    phenomena = dict(sources.read_result(board.saved).paradigms.phenomenon.items())
    paradigm = st.session_state["para"]
    wanted = [
        name for name, kind in phenomena.items() if rows != "paradigms" or kind == st.session_state["phen"]
    ]
    source = board.source or _without_sentences(board)
    measuring = board.source is not None and _wait(board, source, method)
    alone = board.source is not None and method == "direct" and not measuring
    if alone and not paradigm_effects.at_hand(opened, source, paradigm):
        with st.spinner(f"Measuring the components on {shown(paradigm)} …", show_time=True):
            paradigm_effects.measured(opened, source, paradigm)
    frame = matrix_rows.known(opened, source, wanted, method)
    lacking = matrix_rows.missing(opened, source, wanted, method)
    if board.source is None and frame.empty:
        st.caption(f"{NO_SENTENCES} The components need the sentences too.")
        return
    place = st.container()
    if lacking and not measuring:
        _measure(board, source, lacking, len(wanted), method)
    if frame.empty:
        return
    by = "phenomenon" if rows == "phenomena" else "paradigm"
    table = matrix_rows.by_phenomenon(frame, phenomena) if rows == "phenomena" else frame
    with place:
        _chart(board, source, table, by, method)
    if by == "paradigm" and board.source is not None:
        _explained(board, source, frame, method)


def _without_sentences(board: Board) -> Source:
    """The set of pairs as far as it is known; a summary may have been made on it elsewhere."""
    saved = board.saved
    return Source(saved.pairs, sources.pairs_name(saved.pairs, saved.source), None, saved)


def _chart(board: Board, source: Source, table: Any, by: str, method: str) -> None:
    palette, state = board.frame.palette, st.session_state
    key = f"matrix-{hash((board.frame.opened.key, by, method, tuple(table[by].unique()), palette.name))}"
    known = set(zip(table[by], table.component, strict=True))

    def picked() -> None:
        cells = state[key]["selection"].get("cell", [])
        row, component = (cells[0].get(by), cells[0].get("component")) if cells else (None, None)
        if (row, component) in known:
            if by == "phenomenon":
                state["phen"], state["rows"] = row, "paradigms"
                address.forget("para")
            else:
                state["mrow"], state["mcol"] = row, component

    mine = cast("tuple[str, str]", (state.get("mrow"), state.get("mcol")))
    st.altair_chart(
        component_matrix(table, by, palette, mine if by == "paradigm" and mine in known else None),
        key=key,
        on_select=picked,
        selection_mode="cell",
        alt=f"Mean effect of each component by {by}, nats",
    )
    ends = [(palette.good, "helps the grammatical sentences"), (palette.bad, "helps the ungrammatical ones")]
    limit = float(table.effect.abs().max())
    note = (
        f"Strongest colour: {limit:.2f} nats, mean over "
        f"{markup.plain(str(paradigm_effects.kind_of(board.frame.opened, source, method)))}. "
        "Pale: the interval holds 0."
    )
    st.html(markup.key(ends, note))
    downloads(f"{board.frame.opened.name}-components-{method}-{by}", table)


def _wait(board: Board, source: Source, method: str) -> bool:
    """Whether paradigms are being measured; then their progress is drawn, with a way to end it."""
    opened, state = board.frame.opened, st.session_state
    key, names = state.get(UNDERWAY, (None, ()))
    if key != (opened.key, source.key, method):
        return False

    def end() -> None:
        state.pop(UNDERWAY, None)
        matrix_rows.end(opened, source, names, method)

    work = matrix_rows.begin(opened, source, names, method)
    what = f"Measuring {len(names)} paradigms, {paradigm_effects.kind_of(opened, source, method)}"
    if not waiting.waited(work, what, end, "measure-cancel"):
        return True
    end()
    return False


def _measure(board: Board, source: Source, lacking: list[str], count: int, method: str) -> None:
    """The button that measures the rest."""
    if board.source is None:
        st.caption(f"{len(lacking)} of {count} rows are missing. {NO_SENTENCES}")
        return
    opened = board.frame.opened
    took = markup.duration(matrix_rows.seconds(opened, method, len(lacking)))

    def begin() -> None:
        st.session_state[UNDERWAY] = (opened.key, source.key, method), tuple(lacking)

    st.button(
        f"Measure {len(lacking)} more paradigm{'s' if len(lacking) > 1 else ''} (about {took})",
        on_click=begin,
        key="measure-rest",
        help=f"On {paradigm_effects.kind_of(opened, source, method)}. What was measured is kept while the "
        "explorer runs.",
    )


def _explained(board: Board, source: Source, frame: Any, method: str) -> None:
    """The pairs of the chosen cell, those first that its component helps most."""
    opened, state = board.frame.opened, st.session_state
    names = list(dict.fromkeys(frame.paradigm))
    first = state["para"] if state["para"] in names else names[0]
    address.choice("mrow", names, first)
    heads = list(dict.fromkeys(frame.component))
    address.choice("mcol", heads, matrix_rows.strongest(frame, state["mrow"]) or heads[0])
    left, right, _ = st.columns([4, 2, 3])
    row = left.selectbox("Pairs of", names, key="mrow", format_func=shown, help="Or click a cell above.")
    component = right.selectbox("explained by", heads, key="mcol", help="Or click a cell above.")
    assert row is not None
    assert component is not None
    address.write(mrow=row, mcol=component)
    if not paradigm_effects.is_measured(opened, source, row, method):
        seconds = markup.duration(matrix_rows.seconds(opened, method, 1))
        if not st.button(f"Measure its pairs (about {seconds})", key="measure-cell"):
            return
    with st.spinner("Measuring …", show_time=True):
        found = paradigm_effects.measured(opened, source, row, method).explained(component, row, method)
    place = pairs.table(found, board, f"explained-{opened.key}-{row}-{component}-{method}")
    with st.container(horizontal=True, vertical_alignment="center"):
        pairs.explain_button(board, found.iloc[place], row, "explain-with-head", component)
        downloads(f"{opened.name}-{component}-{row}-{method}", found)

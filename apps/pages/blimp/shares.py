"""Phenomena x models, and the paradigms of the chosen one, with intervals and the line of chance."""

from typing import TYPE_CHECKING, cast

import streamlit as st

from apps.answers import beside, sources
from apps.charts.shares import shares
from apps.frame import address
from apps.frame.downloads import downloads
from apps.look import markup
from apps.pages.blimp.board import Board, shown

if TYPE_CHECKING:
    import pandas as pd

TITLES = {"accuracy": "right %", "low": "from", "high": "to"}
LOOKED_AT = "paradigm of the sidebar when the page was last drawn"


def show(board: Board) -> None:
    """Draw the overall figure, the phenomena, and below them the chosen one's paradigms."""
    _overall(board)
    result = sources.read_result(board.saved)
    _follow_sidebar(board, result.paradigms)
    left, right = st.columns([1, 1], gap="large")
    with left:
        kinds = beside.shares(board.columns, "phenomenon")
        mine = cast("pd.DataFrame", kinds[kinds.model == board.columns[0][0]])
        worst_first = list(mine.sort_values("accuracy").phenomenon)
        address.choice("phen", worst_first, worst_first[0])
        phenomenon = st.selectbox(
            "Phenomenon",
            worst_first,
            key="phen",
            format_func=shown,
            on_change=address.forget,
            args=("para",),
            help="A click on a row of the chart chooses it too. Worst first.",
        )
        assert phenomenon is not None
        _chart(board, kinds, "phenomenon", "phen", phenomenon)
    with right:
        each = beside.shares(board.columns, "paradigm", phenomenon)
        mine = cast("pd.DataFrame", each[each.model == board.columns[0][0]])
        names = list(mine.sort_values("accuracy").paradigm)
        address.choice("para", names, names[0])
        paradigm = st.selectbox(
            "Paradigm", names, key="para", format_func=shown,
            help="A click on a row of the chart chooses it too. Its pairs stand below.",
        )  # fmt: skip
        assert paradigm is not None
        _chart(board, each, "paradigm", "para", paradigm)
    address.write(phen=phenomenon, para=paradigm)
    ends = [("good", "above chance"), ("bad", "below chance"), ("muted", "interval contains chance")]
    palette = board.frame.palette
    st.html(markup.key(
        [(getattr(palette, name), words) for name, words in ends],
        "Dashed: chance, 50 %. Click a phenomenon, then a paradigm.",
    ))  # fmt: skip
    with st.expander("The same as tables"):
        _table(kinds, "phenomenon", f"{board.saved.path.stem}-phenomena")
        everything = beside.shares(board.columns, "paradigm")
        _table(everything, "paradigm", f"{board.saved.path.stem}-paradigms")
        st.caption(
            "Intervals are Wilson's, 95 %, about drawing other pairs of the same kind; training again with "
            "another seed moves a small model's overall figure by about a point."
        )


def _overall(board: Board) -> None:
    frame = beside.overall(board.columns)
    with st.container(horizontal=True):
        for row in frame.to_dict("records"):
            step = "last checkpoint" if row["checkpoint"] is None else f"checkpoint {row['checkpoint']:,}"
            st.metric(
                markup.plain(row["model"]),
                f"{row['accuracy']:.1%} right",
                help=f"Mean over {row['paradigms']} paradigms, {row['n']:,} pairs, {row['ties']:,} ties; "
                "95 % interval about drawing other pairs. Chance is 50 %.",
                delta=f"{row['low']:.1%} – {row['high']:.1%} · {step}",
                delta_color="off",
                delta_arrow="off",
                border=True,
            )
    if board.saved.source == "embedded":
        st.caption(
            "These pairs are the workbench's own, in the vocabulary of its stories. They are not BLiMP."
        )


def _follow_sidebar(board: Board, paradigms: "pd.DataFrame") -> None:
    """Another paradigm chosen in the sidebar is looked at here too."""
    wanted = board.frame.wanted
    uid = None if wanted is None or wanted.source is None else wanted.uid
    if uid is None or wanted is None or wanted.source is None or wanted.source.key != board.saved.pairs:
        return
    state = st.session_state
    fresh = LOOKED_AT not in state and "para" in st.query_params
    if state.get(LOOKED_AT) != uid and not fresh and uid in paradigms.index:
        state["phen"], state["para"] = paradigms.loc[uid, "phenomenon"], uid
    state[LOOKED_AT] = uid


def _chart(board: Board, frame: "pd.DataFrame", by: str, state: str, selected: str) -> None:
    rows = frame[frame.model == board.columns[0][0]][by]
    key = f"shares-{by}-{hash((board.columns, *rows, board.frame.palette.name))}"
    options = set(frame[by])

    def picked() -> None:
        found = st.session_state[key]["selection"].get("row", [])
        value = found[0].get(by) if found else None
        if value in options:
            if state == "phen" and value != st.session_state.get("phen"):
                address.forget("para")
            st.session_state[state] = value

    st.altair_chart(
        shares(frame, by, board.frame.palette, selected),
        key=key,
        on_select=picked,
        selection_mode="row",
        alt=f"Accuracy by {by} and model, with 95 % intervals and the line of chance",
    )


def _table(frame: "pd.DataFrame", by: str, file_name: str) -> None:
    shown = frame.assign(**{name: 100 * frame[name] for name in TITLES})
    columns = {name: st.column_config.NumberColumn(title, format="%.1f") for name, title in TITLES.items()}
    columns["n"] = st.column_config.NumberColumn("pairs", format="localized")
    st.dataframe(
        shown,
        hide_index=True,
        column_order=["model", by, *TITLES, "n", "ties"],
        column_config=columns,
        height=min(35 * (len(frame) + 1) + 3, 320),
    )
    downloads(file_name, frame)

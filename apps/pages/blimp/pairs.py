"""The pairs of the chosen paradigm by margin: failing ones, and those that tell two models apart."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from apps.answers import beside
from apps.frame import address, journey
from apps.frame.downloads import downloads
from apps.look import markup
from apps.pages.blimp.board import NO_SENTENCES, Board, shown

if TYPE_CHECKING:
    import pandas as pd

MOST = 500
"""Rows of the table; the download has all."""


def show(board: Board) -> None:
    """Draw the filter, the table and the way to the first page."""
    paradigm = st.session_state["para"]
    frame = beside.pairs_of(board.saved, board.second, paradigm, board.frame.asked.data)
    st.subheader(f"Pairs of {markup.plain(shown(paradigm))}, worst margin first", anchor=False)
    names = [name for name, _ in board.columns[:2]]
    filters = {"wrong": f"{names[0]} wrong", "all": "All pairs"}
    if board.second is not None:
        filters = {key: label.format(*names) for key, label in beside.FILTERS.items()}
    parts = {key: beside.chosen(frame, key) for key in filters}
    which = address.one_of(
        "which",
        "Which",
        {key: f"{words} ({len(parts[key]):,})" for key, words in filters.items()},
        "wrong",
        help="Failing: the model finds the ungrammatical sentence more probable. Of two models: joined by "
        "paradigm and pair.",
    )
    some = parts[which]
    if some.empty:
        st.markdown("There is no such pair in this paradigm. Choose another filter, or another paradigm.")
        return
    place = table(some.head(MOST), board, f"pairs-{board.saved.path.stem}-{paradigm}-{which}")
    with st.container(horizontal=True, vertical_alignment="center"):
        explain_button(board, some.iloc[place], paradigm, "explain-pair")
        downloads(f"{board.saved.path.stem}-{paradigm}-{which}", some)
    if len(some) > MOST:
        st.caption(f"The first {MOST} of {len(some):,} pairs; the download has all.")


SENTENCES = ("sentence_good", "sentence_bad")


def table(frame: "pd.DataFrame", board: Board, key: str) -> int:
    """Pairs with a choice of one row; returns its place, the first where none was chosen."""
    columns: dict[str, Any] = {
        "pair_id": st.column_config.NumberColumn("pair", width=60),
        "margin": st.column_config.NumberColumn(
            "margin, nats",
            format="%+.2f",
            width=110,
            help="Score of the grammatical sentence minus that of the other; below 0 the model is wrong. "
            "In results that ship it is rounded to 1 part in 128.",
        ),
        "effect": st.column_config.NumberColumn(
            "effect, nats", format="%+.3f", width=110, help="What the component adds to the margin."
        ),
        "share": st.column_config.NumberColumn(
            "of margin", format="percent", width=90, help="The effect as a part of the margin."
        ),
        "decides": st.column_config.CheckboxColumn(
            "decides", width=80, help="The decision would turn without this effect."
        ),
        "sentence_good": st.column_config.TextColumn("grammatical", width=330),
        "sentence_bad": st.column_config.TextColumn("ungrammatical", width=330),
    }
    if board.second is not None:
        columns["margin_b"] = st.column_config.NumberColumn(
            f"margin of {board.columns[1][0]}", format="%+.2f", width=130
        )
    shown = ["pair_id", "effect", "share", "decides"] if "effect" in frame.columns else ["pair_id"]
    order = [name for name in (*shown, "margin", "margin_b", *SENTENCES) if name in frame.columns]
    event: Any = st.dataframe(
        frame,
        hide_index=True,
        column_order=order,
        column_config=columns,
        height=min(35 * (len(frame) + 1) + 3, 300),
        on_select="rerun",
        selection_mode="single-row",
        key=key,
    )
    rows = event["selection"]["rows"]
    return rows[0] if rows and rows[0] < len(frame) else 0


def explain_button(board: Board, row: Any, paradigm: str, key: str, head: str | None = None) -> None:
    """In a row of its own: a button that opens the first page on a pair, perhaps with a component chosen."""
    pair = int(row["pair_id"])
    if board.source is None:
        st.caption(NO_SENTENCES)
        return
    choices: dict[str, Any] = dict(look="pair", pairs=board.source.key, paradigm=paradigm, pair=pair)
    if head is not None:
        choices["head"] = head
    st.button(
        f"Explain pair {pair}" + (f" with {head}" if head else ""),
        key=key,
        type="primary",
        on_click=journey.go,
        args=("explain",),
        kwargs=choices,
        help="Opens the first page on the chosen row; the first row where none is chosen.",
    )
    if "sentence_good" in row:
        st.caption(f"✓ {markup.plain(row['sentence_good'])}  \n✗ {markup.plain(row['sentence_bad'])}")

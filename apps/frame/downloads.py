"""A table or a figure as a file: CSV, JSON, SVG, PNG. Files are made when they are asked for."""

import json
from typing import TYPE_CHECKING, Any

import streamlit as st

if TYPE_CHECKING:
    import pandas as pd


def downloads(name: str, table: "pd.DataFrame | None" = None, chart: Any = None) -> None:
    """A menu with one button for each kind of file.

    Args:
        name: of the files, and of the buttons' keys: one of its kind on a page.
        table: offered as CSV and JSON (a list of rows).
        chart: an Altair chart or what makes one, offered as SVG and PNG.
    """
    file = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)[
        -80:
    ]  # ends differ
    with st.popover("Download", icon=":material/download:"):
        if table is not None:
            _button("Table as CSV", lambda: table.to_csv(index=False), f"{file}.csv", "text/csv")
            rows = lambda: table.to_json(orient="records", force_ascii=False, indent=1)  # noqa: E731
            _button("Table as JSON", rows, f"{file}.json", "application/json")
        if chart is not None:
            _button("Figure as SVG", lambda: _drawn(chart, "svg"), f"{file}.svg", "image/svg+xml")
            _button("Figure as PNG", lambda: _drawn(chart, "png"), f"{file}.png", "image/png")


def _button(label: str, data: Any, file: str, mime: str) -> None:
    st.download_button(label, data, file, mime, key=f"download-{file}", on_click="ignore", width="stretch")


def _drawn(chart: Any, kind: str) -> str | bytes:
    """The chart as a file, on white; sizes that the page would fill are set."""
    import vl_convert

    made: Any = chart if hasattr(chart, "to_json") else chart()
    spec = json.loads(made.to_json()) | {"background": "white"}
    if spec.get("width", "container") == "container":
        spec["width"] = 760
    if kind == "svg":
        return vl_convert.vegalite_to_svg(spec)
    return vl_convert.vegalite_to_png(spec, scale=2)

"""The component map and the sums, with the chosen head's attention below. A click reruns only this part."""

import hashlib

import pandas as pd
import streamlit as st

from apps.answers import explain
from apps.answers.catalogue import Opened
from apps.answers.explain import Subject, View
from apps.charts.component_map import component_map
from apps.frame import address
from apps.frame.downloads import downloads
from apps.frame.told import fragment
from apps.look import markup
from apps.look.palette import Palette
from apps.pages.explain import attention
from apps.pages.explain.attention import PICKED, pick


@fragment
def show(opened: Opened, subject: Subject, palette: Palette, explanation: str) -> None:
    """Draw everything about the components of one subject."""
    st.subheader(
        "What speaks for which sentence" if len(subject.views) > 1 else "What made this token likely",
        anchor=False,
    )
    view = _choose_view(subject)
    heads = explain.head_labels(subject.components)
    if heads:
        _preselect(heads, explain.strongest_head(subject.components, view.values))
    st.html(markup.equation(explain.groups(subject, view), (view.total_name, view.total)))
    left, right = st.columns([3, 2], gap="large")
    with left:
        _map(subject, view, heads, palette)
    with right:
        st.html(markup.ranking(explain.top(subject, view)))
    st.caption(explanation)
    _table(opened, subject, view)
    if heads:
        attention.show(opened, subject, heads, palette)
    else:
        attention.none()


def _preselect(heads: list[str], strongest: str) -> None:
    """The strongest head, until the reader picks one (or the address names one); then that one stays."""
    if "head" not in st.session_state and st.query_params.get("head") in heads:
        st.session_state["head"] = st.query_params["head"]
        st.session_state[PICKED] = True
    if not st.session_state.get(PICKED) or st.session_state.get("head") not in heads:
        st.session_state["head"] = strongest
        st.session_state[PICKED] = False


def _choose_view(subject: Subject) -> View:
    views = {view.key: view for view in subject.views}
    if len(views) == 1:
        return subject.views[0]
    address.choice("at", list(views), subject.views[0].key)
    chosen = st.segmented_control(
        "Quantity",
        list(views),
        key="at",
        format_func=lambda key: views[key].label,
        required=True,
        label_visibility="collapsed",
    )
    address.write(at=None if chosen == subject.views[0].key else chosen)
    return views[chosen or subject.views[0].key]


def _map(subject: Subject, view: View, heads: list[str], palette: Palette) -> None:
    rows = explain.cells(subject, view)
    digest = hashlib.sha256(f"{subject.key}|{view.key}|{palette.name}".encode()).hexdigest()[:12]
    key = f"map-{digest}"

    def picked() -> None:
        cells = st.session_state[key]["selection"].get("cell", [])
        label = cells[0].get("component") if cells else None
        if label in heads:
            st.session_state["head"] = label
            pick()
        elif label is not None:
            advice = " Choose a head." if heads else ""
            st.toast(f"{label}: an MLP reads only its own position and has no attention.{advice}")

    st.altair_chart(
        component_map(rows, palette, st.session_state["head"] if heads else None),
        key=key,
        on_select=picked,
        selection_mode="cell",
        alt="Contributions of heads and MLPs by layer",
    )
    ends = [(palette.good, f"helps {subject.helps}"), (palette.bad, f"helps {subject.hurts}")]
    st.html(markup.key(ends, "Nats. Click a head." if heads else "Nats."))


def _table(opened: Opened, subject: Subject, view: View) -> None:
    with st.expander(f"All {len(subject.components)} contributions as a table"):
        frame = pd.DataFrame({
            "component": [component.label for component in subject.components],
            "what": [explain.describe(component) for component in subject.components],
            **{each.label: each.values for each in subject.views},
        })  # fmt: skip
        numbers = {
            each.label: st.column_config.NumberColumn(f"{each.label}, nats", format="%+.4f")
            for each in subject.views
        }
        st.dataframe(frame, hide_index=True, column_config=numbers, height=320)
        for each in subject.views:
            parts = float(each.values.sum())
            uniform = f" + uniform {markup.number(each.uniform, 4)}" if each.uniform else ""
            st.caption(markup.plain(
                f"{each.label}: sum of contributions {markup.number(parts, 4)}{uniform} = {each.total_name} "
                f"{markup.number(each.total, 4)}; rounding {each.rest:.1e}."
            ))  # fmt: skip
        downloads(f"{opened.name}-contributions", frame)

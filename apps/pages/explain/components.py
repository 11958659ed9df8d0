"""The component map and the sums, with the chosen component below. A click reruns only this part."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from apps.answers import explain, switched_off
from apps.answers.explain import View
from apps.answers.wanted import Wanted
from apps.charts.component_map import component_map
from apps.frame import address, waiting
from apps.frame.downloads import downloads
from apps.frame.drawn import painted
from apps.frame.picks import picks
from apps.frame.told import fragment
from apps.look import markup
from apps.look.grid import component_grid
from apps.look.palette import Palette
from apps.pages.explain import attention, effect, mlp
from apps.pages.explain.side import HOWS, Side

AUTO = "component chosen by the page"
STOPPED = "ablation of each component stopped"
CHOICE = {
    "direct": "What each component adds to the output itself.",
    "mean": "Effect: the whole model's value minus the value when the component's output is replaced by "
    "its mean over training stories; later components react to that.",
    "zero": "Effect: the whole model's value minus the value when its output is replaced by zeros.",
}


@fragment
def show(sides: tuple[Side, ...], palette: Palette, explanation: str, wanted: Wanted | None = None) -> None:
    """Draw everything about the components of one subject, of one model or of two side by side."""
    subject = sides[0].subject
    several = len(subject.views) > 1
    title = "Contributions to the difference" if several else "Contributions to the log-probability"
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.subheader(title, anchor=False, width="content")
        key = _choose_view(sides[0])
        how = _choose_measure(explanation)
    views = [side.view(key) for side in sides]
    for side, view in zip(sides, views, strict=True):
        _preselect(side, view)
    known = [_values(side, view, how) for side, view in zip(sides, views, strict=True)]
    values = [values for values in known if values is not None]
    if len(values) < len(sides):
        return
    limit = max((float(np.nanmax(np.abs(row))) for row in map(_mapped, sides, values) if len(row)), default=0)
    places = st.columns([3, 2] if len(sides) == 1 else [1, 1], gap="large")
    for place, side, view, row in zip(places, sides, views, values, strict=False):
        with place:
            if len(sides) > 1:
                st.caption(f"**{markup.plain(side.opened.name)}**")
            _map(side, view, how, row, limit, palette)
    if len(sides) == 1:
        with places[1]:
            st.html(markup.ranking(_top(sides[0], values[0])))
    ends = [(palette.good, f"helps {subject.helps}"), (palette.bad, f"helps {subject.hurts}")]
    st.html(markup.key(ends, "Nats. Click a head or an MLP."))
    painted()
    later: list[Callable[[], None]] = []
    for side, view in zip(sides, views, strict=True):
        _chosen(side, view, palette, wanted, later, len(sides) > 1)
    for fill in later:
        fill()
    for side, view, row in zip(sides, views, values, strict=True):
        more = {} if how == "direct" else {f"{HOWS[how]}: {view.label}": row}

        def figure(side: Side = side, row: np.ndarray = row) -> Any:
            return component_map(explain.cells(side.subject, row), limit)

        _table(side, len(sides) > 1, explanation, more, figure)


def _chosen(
    side: Side,
    view: View,
    palette: Palette,
    wanted: Wanted | None,
    later: list[Callable[[], None]],
    several: bool,
) -> None:
    """The component that was clicked: its effect, then what it reads or which of its neurons matter."""
    parts = explain.part_labels(side.subject.components)
    if not parts:
        attention.none()
        return
    with st.container(border=several):
        later += effect.show(side, view, parts, wanted)
        component = explain.find(side.subject.components, st.session_state[side.state])
        if component.kind == "head":
            attention.show(side, component, palette)
        else:
            mlp.show(side, view, component)
            if not explain.head_labels(side.subject.components):
                attention.none()


def _preselect(side: Side, view: View) -> None:
    """The strongest head, until the reader picks a component (or the address or another page names one);
    then that one stays."""
    parts, state = explain.part_labels(side.subject.components), st.session_state
    if not parts:
        return
    if side.state not in state and st.query_params.get(side.state) in parts:
        state[side.state] = st.query_params[side.state]
        state[side.picked] = True
    auto = f"{AUTO} {side.state}"
    if state.get(side.state) in parts and state[side.state] != state.get(auto):
        state[side.picked] = True
    if not state.get(side.picked) or state.get(side.state) not in parts:
        state[side.state] = state[auto] = explain.strongest_head(side.subject.components, view.values)
        state[side.picked] = False
    address.write(**{side.state: state[side.state] if state[side.picked] else None})


def _choose_view(side: Side) -> str:
    views = {view.key: view for view in side.subject.views}
    first = side.subject.views[0].key
    if len(views) == 1:
        return first
    return address.one_of(
        "at",
        "Quantity",
        {key: view.label for key, view in views.items()},
        help="The difference at the first token that differs, or over the whole sentences.",
    )


def _choose_measure(explanation: str) -> str:
    return address.one_of(
        "measure", "Measure", HOWS, help=f"{explanation}\n\nMean ablation. {CHOICE['mean']}"
    )


def _values(side: Side, view: View, how: str) -> np.ndarray | None:
    """The values of the map; None while they are being computed, or if that was cancelled."""
    if how == "direct":
        return view.values
    stopped = (side.opened.key, side.subject.key, how)
    if st.session_state.get(STOPPED) == stopped:
        st.button("Ablate each component", on_click=lambda: st.session_state.pop(STOPPED, None))
        return None

    def cancel() -> None:
        switched_off.cancel_effects(side.opened, side.subject, how)
        st.session_state[STOPPED] = stopped

    work = switched_off.begin_effects(side.opened, side.subject, how)
    what = f"{HOWS[how]} of each component of {side.opened.name}"
    if waiting.waited(work, what, cancel, f"cancel-{side.state}-{how}"):
        return switched_off.effects_of(work.result, side.subject, view)
    return None


def _mapped(side: Side, values: np.ndarray) -> np.ndarray:
    """Those of the components that stand on the map."""
    return values[[component.layer is not None for component in side.subject.components]]


def _top(side: Side, values: np.ndarray) -> list[tuple[str, float, str]]:
    return explain.top(side.subject, values)


def _map(side: Side, view: View, how: str, values: np.ndarray, limit: float, palette: Palette) -> None:
    subject = side.subject
    rows = explain.cells(subject, values)
    parts = explain.part_labels(subject.components)
    if rows:
        digest = hashlib.sha256(
            f"{side.state}|{subject.key}|{view.key}|{how}|{palette.name}".encode()
        ).hexdigest()[:12]
        name = f"map-{digest}"

        def picked(label: str) -> None:
            if label in parts:
                st.session_state[side.state] = label
                st.session_state[side.picked] = True

        chosen = st.session_state[side.state] if parts else None
        label = f"{HOWS[how]}: nats of heads and MLPs by layer"
        st.html(component_grid(rows, palette, name, chosen, limit, label))
        picks(name, picked)
    if how == "direct":
        st.html(markup.equation(explain.groups(subject, view), (view.total_name, view.total)))
    else:
        st.caption(f"{CHOICE[how]} Effects of single components do not sum to the whole.")


def _table(
    side: Side, several: bool, explanation: str, more: dict[str, np.ndarray], figure: Callable[[], Any]
) -> None:
    """The contributions; the table is made once it is opened, for its library is large."""
    opened, subject = side.opened, side.subject
    who = f" of {markup.plain(opened.name)}" if several else ""
    label = f"All {len(subject.components)} contributions{who} as a table"
    with st.expander(label, key=f"contributions-{side.state}", on_change="rerun") as place:
        st.caption(explanation)
        for each in subject.views:
            parts = float(each.values.sum())
            uniform = f" + uniform {markup.number(each.uniform, 4)}" if each.uniform else ""
            st.caption(markup.plain(
                f"{each.label}: sum of contributions {markup.number(parts, 4)}{uniform} = {each.total_name} "
                f"{markup.number(each.total, 4)}; rounding {each.rest:.1e}."
            ))  # fmt: skip
        if not place.open:
            return
        frame = pd.DataFrame({
            "component": [component.label for component in subject.components],
            "what": [explain.describe(component) for component in subject.components],
            **{each.label: each.values for each in subject.views},
            **more,
        })  # fmt: skip
        numbers = {
            label: st.column_config.NumberColumn(f"{label}, nats", format="%+.4f")
            for label in (*(each.label for each in subject.views), *more)
        }
        st.dataframe(frame, hide_index=True, column_config=numbers, height=320)
        chart = figure if explain.part_labels(subject.components) else None
        downloads(f"{opened.name}-{side.state}-contributions", frame, chart)

"""The component map, the sums, and the attention of the chosen head. A click reruns only this part."""

import hashlib

import pandas as pd
import streamlit as st

from apps import address, charts, explain, markup
from apps.bundle import bundle, bundle_url
from apps.catalogue import Opened
from apps.explain import Subject, View
from apps.palette import Palette

PICKED = "head picked by the reader"
MOST_HEADS, MOST_TOKENS = 16, 32
"""What CircuitsVis paints in a second or two."""


@st.fragment
def show(opened: Opened, subject: Subject, palette: Palette, explanation: str) -> None:
    """Draw everything about the components of one subject."""
    st.subheader(
        "What speaks for which sentence" if len(subject.views) > 1 else "What made this token likely",
        anchor=False,
    )
    view = _choose_view(subject)
    heads = explain.head_labels(subject.components)
    _preselect(heads, explain.strongest_head(subject.components, view.values))
    st.html(markup.equation(explain.groups(subject, view), (view.total_name, view.total)))
    left, right = st.columns([3, 2], gap="large")
    with left:
        _map(subject, view, palette)
    with right:
        st.html(markup.ranking(explain.top(subject, view)))
    st.caption(explanation)
    _table(opened, subject, view)
    _attention(opened, subject, heads, palette)


def _preselect(heads: list[str], strongest: str) -> None:
    """The strongest head, until the reader picks one (or the address names one); then that one stays."""
    if not st.session_state.get(PICKED) and st.query_params.get("head") in heads:
        st.session_state["head"] = st.query_params["head"]
        st.session_state[PICKED] = True
    if not st.session_state.get(PICKED) or st.session_state.get("head") not in heads:
        st.session_state["head"] = strongest
        st.session_state[PICKED] = False


def _pick() -> None:
    st.session_state[PICKED] = True


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


def _map(subject: Subject, view: View, palette: Palette) -> None:
    rows = explain.cells(subject, view)
    head = st.session_state["head"]
    digest = hashlib.sha256(f"{subject.key}|{view.key}|{palette.name}".encode()).hexdigest()[:12]
    key = f"map-{digest}"

    def picked() -> None:
        cells = st.session_state[key]["selection"].get("cell", [])
        label = cells[0].get("component") if cells else None
        if label in explain.head_labels(subject.components):
            st.session_state["head"] = label
            _pick()
        elif label is not None:
            st.toast(f"{label}: an MLP reads only its own position and has no attention. Choose a head.")

    st.altair_chart(
        charts.component_map(rows, palette, head),
        key=key,
        on_select=picked,
        selection_mode="cell",
        alt="Contributions of heads and MLPs by layer",
    )
    ends = [(palette.good, f"helps {subject.helps}"), (palette.bad, f"helps {subject.hurts}")]
    st.html(markup.key(ends, "Nats. Click a head to see its attention."))


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
        st.download_button(
            "Contributions as CSV",
            frame.to_csv(index=False),
            f"{_file_name(opened)}-contributions.csv",
            "text/csv",
            on_click="ignore",
        )


def _attention(opened: Opened, subject: Subject, heads: list[str], palette: Palette) -> None:
    st.subheader("What the head attends to", anchor=False)
    choose, skip, _ = st.columns([2, 3, 3], vertical_alignment="bottom")
    head = choose.selectbox(
        "Head",
        heads,
        key="head",
        on_change=_pick,
        help="The strongest head is chosen first; a click in the map above chooses another.",
    )
    address.switch("nobos")
    hide = skip.toggle(
        "Leave out the first token",
        key="nobos",
        help="Many heads rest on ‹bos›; without it the rest of the pattern shows.",
    )
    address.write(head=head if st.session_state.get(PICKED) else None, nobos="1" if hide else None)
    component = explain.find(subject.components, head)
    assert component.layer is not None
    assert component.head is not None
    patterns = [explain.attention(opened, reading.ids, component.layer) for reading in subject.readings]
    skipped = [pattern[component.head][:, int(hide) :] for pattern in patterns]
    top = max((float(part.max()) for part in skipped if part.size), default=1.0)
    for column, reading, pattern in zip(st.columns(len(patterns)) if len(patterns) > 1 else [st.container()],
                                        subject.readings, patterns, strict=True):  # fmt: skip
        with column:
            start = _window(reading.label, len(reading.ids), reading.place)
            part = slice(start, start + charts.LARGEST)
            shown = explain.read_tokens(opened, reading.ids[part])
            st.markdown(f"**{head}** on the {reading.label} sentence" if len(patterns) > 1 else f"**{head}**")
            st.altair_chart(
                charts.attention_map(
                    shown,
                    pattern[component.head][part, part],
                    palette,
                    reading.place - start,
                    top,
                    hide and not start,
                ),
                alt=f"Attention of {head}",
            )
    _layer(opened, subject, component.layer, palette)


def _window(label: str, length: int, place: int) -> int:
    """Where the shown window begins; a slider where the row does not fit."""
    if length <= charts.LARGEST:
        return 0
    last = length - charts.LARGEST
    first = min(last, max(0, place - charts.LARGEST + 8))
    start = st.slider(f"First token shown ({label})", 0, last, first)
    return min(max(start, place - charts.LARGEST + 1, 0), place)


def _layer(opened: Opened, subject: Subject, layer: int, palette: Palette) -> None:
    st.subheader(f"All heads of layer {layer}", anchor=False)
    count = opened.model.config.n_heads
    longest = max(len(reading.ids) for reading in subject.readings)
    if count > MOST_HEADS or longest > MOST_TOKENS:
        st.info(
            f"CircuitsVis is shown up to {MOST_HEADS} heads and {MOST_TOKENS} tokens; here are {count} heads "
            f"and {longest} tokens. The map above shows one head at a time."
        )
        return
    address_of = bundle_url()
    for column, reading in zip(st.columns(2), subject.readings, strict=False):
        page = markup.attention_page(
            explain.read_tokens(opened, reading.ids),
            explain.attention(opened, reading.ids, layer),
            [f"L{layer}H{head}" for head in range(count)],
            palette,
            None if address_of is None else f"{_base()}/{address_of}",
            b"" if address_of else bundle(),
            opened.model.config.attention == "causal",
        )
        with column:
            if len(subject.readings) > 1:
                st.caption(f"On the {reading.label} sentence")
            st.iframe(
                page,
                height=markup.attention_page_height(count),
                alt=f"CircuitsVis: attention of all heads of layer {layer} on the {reading.label}",
            )


def _base() -> str:
    path = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{path}" if path else ""


def _file_name(opened: Opened) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in opened.name)[:60]

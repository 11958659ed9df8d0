"""The neurons that matter, by a measure of the reader's choice; a click on a row opens one below."""

import hashlib
from typing import TYPE_CHECKING

import streamlit as st

from apps.answers import neurons
from apps.answers.catalogue import Opened
from apps.frame import address, waiting
from apps.frame.downloads import downloads
from apps.frame.frame import Frame
from apps.frame.told import fragment
from apps.look import markup
from apps.look.tokens import visible
from apps.pages.heads import neuron

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10
SORTS = {
    "pair": "Contribution",
    "peak": "Sharpness",
    "label": "Label",
}
MEANINGS = {
    "pair": "What a neuron writes for log p(first) − log p(second) of whole sentences (of a text: for its "
    "log-probability): its activation times its row of W_out as the readout sees it, norms frozen. All "
    "layers.",
    "peak": "Its largest activation in standard deviations above its mean, over the stories searched: how "
    "sharply it picks its passages. One layer.",
    "label": "A word, a part of speech or a place that it fires on: chosen on half of the stories, tested "
    "on the others against two untrained copies. AUC is the chance that it is more active on a token with "
    "the label than on one without. One layer.",
}  # fmt: skip


def show(frame: Frame) -> None:
    """Draw the finder and the neuron's page, or say why there is none."""
    if not neurons.mlp_layers(frame.opened.model.config):
        st.markdown(
            "This model has no MLPs, so it has no neurons: all it does between tokens and logits, its heads "
            "do. "
            "Look at those, or choose a model with MLPs on the left."
        )
        return
    _finder(frame)


@fragment
def _finder(frame: Frame) -> None:
    opened = frame.opened
    found = neurons.strongest(opened, frame.wanted, frame.text)
    chosen = _preselect(opened, found)
    title, choose = st.columns([3, 2], vertical_alignment="center")
    title.subheader("Neuron finder", anchor=False)
    options = {key: words for key, words in SORTS.items() if key != "pair" or found is not None}
    with choose:
        by = address.one_of(
            "nsort",
            "Sorted by",
            options,
            help="\n\n".join(f"**{words}**: {MEANINGS[key]}" for key, words in options.items()),
        )
    layer = _choose(opened, chosen)
    if by == "pair":
        assert found is not None
        _table(opened, "pair", _named(opened, found.head(SHOWN)), found)
    elif by == "peak":
        _sharp(opened, layer)
    else:
        _labelled(opened, layer)
    neuron.show(frame, st.session_state["neuron"])


def _preselect(opened: Opened, found: "pd.DataFrame | None") -> str:
    """The neuron of the address or the reader's; else the strongest on the pair, else the first."""
    config, state = opened.model.config, st.session_state
    if "neuron" not in state and "neuron" in st.query_params:
        state["neuron"] = st.query_params["neuron"]
        state["neuron picked"] = True
    part = neurons.part_of(config, str(state.get("neuron", "")))
    if part is None and state.get("neuron picked") and state.get("neuron"):
        width = config.mlp_width
        layers = ", ".join(f"L{layer}" for layer in neurons.mlp_layers(config))
        asked = str(state["neuron"])[:30]
        st.info(markup.plain(
            f"There is no neuron {asked} here; they are called L1N37 and run from N0 to N{width - 1} in "
            f"{layers}."
        ))  # fmt: skip
    if part is None or not state.get("neuron picked"):
        first = f"L{neurons.mlp_layers(config)[0]}N0"
        state["neuron"] = str(found.neuron.iloc[0]) if found is not None and len(found) else first
        state["neuron picked"] = False
    else:
        state["neuron"] = part.label
    address.write(neuron=state["neuron"] if state["neuron picked"] else None)
    return state["neuron"]


def pick(label: str) -> None:
    """Choose a neuron: another pair keeps it."""
    st.session_state["neuron"] = label
    st.session_state["neuron picked"] = True


def _choose(opened: Opened, chosen: str) -> int:
    """Layer and number."""
    config, state = opened.model.config, st.session_state
    part = neurons.part_of(config, chosen)
    assert part is not None
    state["nlayer"], state["nunit"] = part.layer, part.unit

    def moved() -> None:
        pick(f"L{state['nlayer']}N{state['nunit']}")

    with st.container(horizontal=True, vertical_alignment="bottom"):
        layer = st.selectbox(
            "Layer", neurons.mlp_layers(config), key="nlayer", on_change=moved, width=110,
            format_func=lambda one: f"L{one}", help="The neuron's block.",
        )  # fmt: skip
        st.number_input(
            f"Neuron, 0 to {config.mlp_width - 1:,}", 0, config.mlp_width - 1, step=1, key="nunit",
            on_change=moved, width=170, help="An entry of the MLP's hidden layer behind its activation.",
        )  # fmt: skip
    return int(layer)


def _named(opened: Opened, frame: "pd.DataFrame") -> "pd.DataFrame":
    """With the tokens that each neuron promotes and suppresses."""
    told = [neurons.promoted(opened, label) for label in frame.neuron]
    return frame.assign(
        promotes=["  ".join(visible(one.text) for one in each.promoted[:5]) for each in told],
        suppresses=["  ".join(visible(one.text) for one in each.suppressed[:5]) for each in told],
    )


def _table(opened: Opened, kind: str, shown: "pd.DataFrame", whole: "pd.DataFrame") -> None:
    """Rows to choose from."""
    rows_shown = hashlib.sha256(f"{opened.key}{list(shown.neuron)}".encode()).hexdigest()[:12]
    key = f"neurons-{kind}-{rows_shown}"
    labels = list(shown.neuron)

    def picked() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows:
            pick(labels[rows[0]])

    columns = {
        "neuron": st.column_config.TextColumn("neuron", width=80),
        "whole": st.column_config.NumberColumn("nats", format="%+.3f", help=MEANINGS["pair"]),
        "here": st.column_config.NumberColumn("at the difference, nats", format="%+.3f", help="At the first "
        "token that differs."),
        "peak": st.column_config.NumberColumn("sharpness", format="%.1f", help=MEANINGS["peak"]),
        "largest": st.column_config.NumberColumn("largest", format="%.2f", help="Its largest activation."),
        "active": st.column_config.NumberColumn("above 0", format="percent", help="Share of tokens."),
        "auc": st.column_config.NumberColumn("AUC", format="%.3f", help=MEANINGS["label"]),
        "low": st.column_config.NumberColumn("from", format="%.3f", help="95 % interval."),
        "high": st.column_config.NumberColumn("to", format="%.3f", help="95 % interval."),
        "precision": st.column_config.NumberColumn("precision", format="%.2f", help="Share that have the "
        "label of its strongest tokens, as many as have it."),
        "label": st.column_config.TextColumn("label", help="None where none holds on held-out stories."),
        "best": st.column_config.TextColumn("best", help="The best one, whether it holds or not."),
        "promotes": st.column_config.TextColumn("promotes", help="Tokens whose logits an active neuron "
        "raises most, by its weights alone."),
        "suppresses": st.column_config.TextColumn("suppresses", help="Those that it lowers most."),
    }  # fmt: skip
    st.dataframe(
        shown, hide_index=True, key=key, on_select=picked, selection_mode="single-row",
        column_config={name: columns[name] for name in shown.columns if name in columns},
        column_order=[name for name in shown.columns if name in columns],
        height=35 * (len(shown) + 1) + 3,
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center"):
        downloads(f"{opened.name}-neurons-{kind}", whole)
        st.caption(
            f"The first {len(shown)} of {len(whole):,}. Click the box of a row to open its neuron below."
        )


def _sharp(opened: Opened, layer: int) -> None:
    tokens = neuron.asked_tokens()
    found = neurons.known_examples(opened, layer, tokens)
    if found is None:
        st.caption("The table comes when the stories below are read.")
        return
    frame = neurons.sharpest(found)
    _table(opened, "peak", _named(opened, frame.head(SHOWN)), frame)
    st.caption(f"Layer {layer}, over {found.tokens:,} tokens of embedded stories.")


def _labelled(opened: Opened, layer: int) -> None:
    work = neurons.known_labels(opened, layer)
    if work is None:
        speed = neurons.rate(opened, layer)
        reading = 3 * neurons.LABELLED * neurons.A_STORY
        told = "" if speed is None else f", over {max(1, round(reading / speed))} s"

        def begin() -> None:
            neurons.begin_labels(opened, layer)

        st.button(
            f"Look for labels of layer {layer}{told}",
            on_click=begin,
            help=f"{neurons.LABELLED} stories through the model and two untrained copies, and a test of each "
            "neuron against each label.",
        )
        return
    what = f"Looking for labels of layer {layer} on {neurons.LABELLED} stories"
    if not waiting.waited(work, what, lambda: neurons.cancel_labels(opened, layer), "cancel-labels"):
        return
    frame = neurons.labelled(work.result)
    held = int(frame.label.notna().sum())
    _table(opened, "label", _named(opened, frame.head(SHOWN)), frame)
    st.caption(
        f"{held} of {len(frame)} neurons of layer {layer} have a label that holds on held-out stories; of an "
        f"untrained copy's, {work.result.alpha:.0%} would."
    )

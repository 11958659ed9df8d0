"""All about one neuron: what it is worth, where it fires, and what it writes."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from apps.answers import ablate, neurons
from apps.answers.catalogue import Opened
from apps.answers.heads import pair_subject, text_readings
from apps.charts.histogram import histogram
from apps.frame import address, waiting
from apps.frame.downloads import downloads
from apps.frame.drawn import still
from apps.frame.frame import Frame
from apps.frame.told import told
from apps.look import markup
from apps.look.passages import Shown, passages, words
from workbench.data.tokenizer import token_texts
from workbench.interp.neurons.card import passage_frame

if TYPE_CHECKING:
    from apps.look.palette import Palette
    from workbench.interp.neurons.examples import NeuronExamples

CARD: Any = {"border": True, "delta_color": "off", "delta_arrow": "off"}
STOPPED = "neuron search stopped"
KINDS = {"top": "Strongest", "random": "Random", "quantiles": "By quantile"}


def show(frame: Frame, label: str) -> None:
    """Draw the card, part by part; one that fails leaves the others standing."""
    opened = frame.opened
    part = neurons.part_of(opened.model.config, label)
    assert part is not None
    layer, _ = part.place
    st.subheader(f"Neuron {label}", anchor=False)
    tokens = asked_tokens()
    found = _found(opened, layer, tokens)
    with told():
        _figures(frame, label, found)
    with told():
        _writes(opened, label)
    with told():
        _on_subject(frame, label, found)
    with told():
        _examples(opened, label, layer, tokens, found, frame.palette)


def asked_tokens() -> int:
    """How many tokens are searched for passages; in the address."""
    address.choice("ntokens", list(neurons.TOKENS), neurons.TOKENS[0])
    chosen = int(st.session_state["ntokens"])
    address.write(ntokens=None if chosen == neurons.TOKENS[0] else chosen)
    return chosen


def _found(opened: Opened, layer: int, tokens: int) -> "NeuronExamples | None":
    """The examples if they are there; else the search begins, unless the reader ended it."""
    found = neurons.known_examples(opened, layer, tokens)
    if found is None and st.session_state.get(STOPPED) != (opened.key, layer, tokens):
        waiting.patient(neurons.begin_examples(opened, layer, tokens))
        found = neurons.known_examples(opened, layer, tokens)
    return found


def _figures(frame: Frame, label: str, found: "NeuronExamples | None") -> None:
    """Its worth on the pair and for the loss, and how active it is."""
    opened, wanted = frame.opened, frame.wanted
    ranked = neurons.strongest(opened, wanted, frame.text)
    with st.container(horizontal=True):
        if ranked is not None:
            row = ranked[ranked.neuron == label].iloc[0]
            st.metric(
                "On this pair, direct" if wanted is not None else "On this text, direct",
                f"{markup.number(float(row.whole), 3)} nats",
                help="Its direct contribution to the difference of the whole sentences (of a text: to its "
                "log-probability), norms frozen.",
                delta=f"{int(row.name) + 1:,} of {len(ranked):,} by size",
                **CARD,
            )
        if wanted is not None:
            off, total = neurons.off_on_pair(opened, wanted, label), neurons.pair_total(opened, wanted)
            st.metric(
                "Zero ablation",
                f"{markup.number(off.effect, 3)} nats",
                help="Effect on the difference of the two sentences: the whole model's value minus the value "
                "with the neuron at zero at every position; all later components react to that.",
                delta=f"{markup.number(off.without, 3)} without it, {markup.number(total, 3)} with it",
                **CARD,
            )
        if found is not None:
            mine = neurons.figures(found, label)
            st.metric(
                "Above 0",
                f"{mine.active:.1%}",
                help=f"Share of the {mine.tokens:,} tokens of embedded stories that were searched; under it "
                "its "
                "largest activation, mean and standard deviation there.",
                delta=f"max {mine.max:.2f}, mean {markup.number(mine.mean)}, s.d. {mine.std:.2f}",
                **CARD,
            )
        _loss(opened, label)


def _loss(opened: Opened, label: str) -> None:
    """What the loss does without it: a few seconds, so only when asked for."""
    work = neurons.known_loss(opened, label)
    if work is not None and work.done and work.error is None:
        change = work.result.loss_intervals[0]
        st.metric(
            "Loss without it",
            f"{markup.number(change.mean, 5)} nats",
            help=f"How much the loss a token rises on {neurons.HELD_OUT} validation stories when the neuron "
            f"is replaced by its mean over {ablate.reference(opened).label}; 95 % interval over stories.",
            delta=f"{markup.number(change.low, 5)} to {markup.number(change.high, 5)}, n = "
            f"{neurons.HELD_OUT}",
            **CARD,
        )
        return
    part = neurons.part_of(opened.model.config, label)
    assert part is not None
    if work is None:
        speed = neurons.rate(opened, part.place[0])
        amount = (2 * neurons.HELD_OUT + ablate.reference(opened).count) * neurons.A_STORY
        seconds = "" if speed is None else f" (about {max(1, round(amount / speed))} s)"

        def begin() -> None:
            neurons.begin_loss(opened, label)

        with st.container(border=True, width=230):
            st.caption("Loss without it")
            st.button(f"Measure{seconds}", on_click=begin, key="measure-loss")
        return
    with st.container(width=330):
        waiting.waited(work, "Measuring the loss", lambda: neurons.cancel_loss(opened, label), "cancel-loss")


def _writes(opened: Opened, label: str) -> None:
    found = neurons.promoted(opened, label)
    up, down = st.columns(2, gap="large")
    note = (
        "Logits for a unit of activation, from the weights alone, norms without their denominators, centred "
        "over the vocabulary (Geva et al. 2022): they rank tokens."
    )
    for place, title, scored in ((up, "Promotes", found.promoted), (down, "Suppresses", found.suppressed)):
        with place:
            st.markdown(f"**{title}**", help=note)
            st.html(words([(one.text, one.score) for one in scored]))
    downloads(f"{opened.name}-{label}-tokens", found.to_frame())


def _on_subject(frame: Frame, label: str, found: "NeuronExamples | None") -> None:
    """How active it is along the pair's sentences, or the text."""
    opened = frame.opened
    if frame.wanted is not None:
        readings = pair_subject(opened, frame.wanted).readings
    elif frame.text is not None:
        readings = text_readings(opened, frame.text)
    else:
        return
    lines, largest = [], 0.0 if found is None else neurons.figures(found, label).max
    for reading in readings:
        values = neurons.along(opened, reading.ids, label)
        names = token_texts(opened.tokenizer, reading.ids)
        place = reading.place if frame.wanted is not None else None
        lines.append(Shown(f"{float(values.max()):.2f}", names, values.tolist(), place))
        largest = max(largest, float(values.max()))
    what = "On the pair: grammatical sentence first" if len(lines) > 1 else "On the text"
    st.markdown(
        f"**{what}**",
        help="In front its largest activation there; the darker a token, the more active the neuron. Framed: "
        "where the token that differs is read off.",
    )
    st.html(passages(lines, largest, frame.palette))


def _examples(
    opened: Opened, label: str, layer: int, tokens: int, found: "NeuronExamples | None", palette: "Palette"
) -> None:
    st.markdown(
        "**Where it fires**",
        help="Passages of embedded stories; in front the activation at the framed token. Strongest passages "
        "alone mislead (Bolukbasi et al. 2021), so random tokens and some of every strength stand beside "
        "them.",
    )
    if found is None:
        _search(opened, layer, tokens)
        return
    everything = neurons.passages(opened, label, tokens)
    kind = address.one_of("nkind", "Which passages", KINDS)
    largest = neurons.figures(found, label).max
    groups: dict[str, list[Shown]] = {}
    for one in everything:
        of = one.kind if one.kind in KINDS else "quantiles"
        if of == kind:
            heading = "" if one.kind in KINDS else f"between quantiles {one.kind} of the tokens"
            line = Shown(f"{one.value:.2f}", one.tokens, one.values.tolist(), one.place)
            groups.setdefault(heading, []).append(line)
    for heading, lines in groups.items():
        if heading:
            st.caption(heading)
        st.html(passages(lines, largest, palette))
    with st.container(horizontal=True, vertical_alignment="center"):
        downloads(f"{opened.name}-{label}-passages", passage_frame(everything))
        _more(opened, layer, tokens, found.tokens)
    with st.expander("How often it is how active"):
        bins = neurons.histogram(found, label)
        chart = histogram(bins, palette)
        still(chart, f"Histogram of the activations of {label}")
        downloads(f"{opened.name}-{label}-histogram", bins, chart)


def _search(opened: Opened, layer: int, tokens: int) -> None:
    state = st.session_state
    if state.get(STOPPED) == (opened.key, layer, tokens):
        st.button("Search stories", on_click=lambda: state.pop(STOPPED, None), key="search-again")
        return

    def cancel() -> None:
        neurons.cancel_examples(opened, layer, tokens)
        if tokens != neurons.TOKENS[0]:
            state["ntokens"] = neurons.TOKENS[0]
        else:
            state[STOPPED] = (opened.key, layer, tokens)

    what = f"Reading {tokens:,} tokens for layer {layer}"
    if waiting.waited(neurons.begin_examples(opened, layer, tokens), what, cancel, "cancel-examples"):
        st.rerun(scope="app")


def _more(opened: Opened, layer: int, tokens: int, read: int) -> None:
    more = neurons.TOKENS[-1]
    if tokens == more:
        st.caption(f"Of {read:,} tokens of embedded stories.")
        return
    speed = neurons.rate(opened, layer)
    seconds = "" if speed is None else f" (about {max(1, round(more / speed))} s)"

    def ask() -> None:
        st.session_state["ntokens"] = more

    st.button(f"Search {more:,} tokens{seconds}", on_click=ask, key="search-more")
    st.caption(f"So far {read:,} tokens of embedded stories were searched.")

"""What neurons are worth on the chosen pair, fire on and write, as the library has it; no widget in here."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import streamlit as st

from apps.answers import ablate, explain, switched_off
from apps.answers.background import Tick, Work, works
from apps.answers.catalogue import Opened
from apps.answers.heads import own_copy, pair_subject
from apps.answers.wanted import Wanted
from workbench.interp.components import Component, find_components
from workbench.interp.neurons.tokens import NeuronTokens

if TYPE_CHECKING:
    import pandas as pd

    from workbench.interp.ablation import AblationResult
    from workbench.interp.neurons.card import Passage
    from workbench.interp.neurons.examples import NeuronExamples
    from workbench.interp.neurons.labels import NeuronLabels

TOKENS = (5_000, 100_000)
"""Tokens of embedded training stories that are searched for passages: at once, and when asked for more."""
HELD_OUT, LABELLED = 50, 200
"""Stories that the loss is measured on, that means come from, and that labels are tested on."""
WIDE = 1024
"""Neurons of a layer beyond which fewer places are drawn for random and quantile examples."""
NAMED = 10
"""Tokens promoted and suppressed."""
A_STORY = 180
"""Tokens of an embedded story, about."""


def mlp_layers(config: Any) -> list[int]:
    """Blocks that have an MLP."""
    return [layer for layer, kind in enumerate(config.blocks) if "m" in kind]


def part_of(config: Any, label: str) -> Component | None:
    """The neuron of that name; None if the model has none."""
    from workbench.errors import InputError

    try:
        found = find_components(config, label)
    except InputError:
        return None
    return found[0] if len(found) == 1 and found[0].kind == "neuron" else None


def strongest(opened: Opened, wanted: Wanted | None, text: str | None) -> "pd.DataFrame | None":
    """All neurons by their direct contribution to the pair's difference (`whole`; `here` at the first token
    that differs), or to a text's log-probability (`whole`), nats; the largest of either sign first. None
    where there is neither."""
    if wanted is not None:
        return _of_pair(opened, opened.key, wanted.good, wanted.bad, wanted.protocol, wanted.pll)
    return None if text is None else _of_text(opened, opened.key, text)


@st.cache_resource(max_entries=16, show_spinner="Attributing to neurons …")
def _of_pair(_opened: Opened, key: str, good: str, bad: str, protocol: str, pll: str) -> "pd.DataFrame":
    from workbench.interp.attribution import attribute_pair

    with _opened.lock:
        found = attribute_pair(_opened.model, good, bad, protocol=protocol, pll=pll, neurons=True)
    return _ranked(found.components, whole=found.whole, here=found.at_place)


@st.cache_resource(max_entries=16, show_spinner="Attributing to neurons …")
def _of_text(_opened: Opened, key: str, text: str) -> "pd.DataFrame":
    from workbench.interp.attribution import attribute_text

    with _opened.lock:
        found = attribute_text(_opened.model, text, neurons=True)
    return _ranked(found.components, whole=found.contributions.sum(0))


def _ranked(components: Iterable[Any], **values: np.ndarray) -> "pd.DataFrame":
    import pandas as pd

    mine = [(at, part) for at, part in enumerate(components) if part.kind == "neuron"]
    at = [index for index, _ in mine]
    frame = pd.DataFrame(
        {
            "neuron": [part.label for _, part in mine],
            "layer": [part.layer for _, part in mine],
            **{name: column[at] for name, column in values.items()},
        }
    )
    return frame.sort_values("whole", key=np.abs, ascending=False, kind="stable").reset_index(drop=True)


def promoted(opened: Opened, label: str) -> NeuronTokens:
    """The tokens that a neuron promotes and suppresses, by its weights alone."""
    return _promoted(opened, opened.key, label)


@st.cache_resource(max_entries=2048, show_spinner=False)
def _promoted(_opened: Opened, key: str, label: str) -> NeuronTokens:
    from workbench.interp.neurons.tokens import promoted_tokens

    part = find_components(_opened.model.config, label)[0]
    with _opened.lock:
        return promoted_tokens(_opened.model, *part.place, min(NAMED, _opened.model.config.d_vocab))


def begin_examples(opened: Opened, layer: int, tokens: int) -> Work:
    """Search stories in the background; the work's result is a `NeuronExamples` of that layer."""
    return works().begin(
        _examples_key(opened, layer, tokens), lambda tick: search(opened, layer, tokens, tick)
    )


def known_examples(opened: Opened, layer: int, tokens: int) -> "NeuronExamples | None":
    """What was found, if that is done."""
    work = works().get(_examples_key(opened, layer, tokens))
    return None if work is None else work.result


def cancel_examples(opened: Opened, layer: int, tokens: int) -> None:
    """End the search."""
    works().cancel(_examples_key(opened, layer, tokens))


def rate(opened: Opened, layer: int) -> float | None:
    """Tokens read a second, as measured in a search; None before the first one."""
    for tokens in TOKENS:
        work = works().get(_examples_key(opened, layer, tokens))
        if work is not None and work.seconds:
            return work.result.tokens / work.seconds
    return None


def _examples_key(opened: Opened, layer: int, tokens: int) -> tuple[str, str, int, int]:
    return "neuron examples", opened.key, layer, tokens


def search(opened: Opened, layer: int, tokens: int, tick: Tick = lambda share: None) -> "NeuronExamples":
    """`neuron_examples` of one layer on embedded training stories."""
    from workbench.data.embedded.stories import stories
    from workbench.interp.neurons.examples import SAMPLE, neuron_examples

    model = own_copy(opened)
    return neuron_examples(
        model,
        stories(max(100, tokens // 50), split="train"),
        layers=[layer],
        tokens=tokens,
        sample=SAMPLE if model.config.mlp_width <= WIDE else SAMPLE // 4,
        progress=lambda fraction, message: tick(fraction),
    )


def passages(opened: Opened, label: str, tokens: int) -> "tuple[Passage, ...]":
    """The neuron's examples as text: `top`, `random` and of each quantile; the search must be done."""
    part = find_components(opened.model.config, label)[0]
    found = known_examples(opened, part.place[0], tokens)
    assert found is not None
    return _passages(opened, opened.key, label, tokens, found)


@st.cache_resource(max_entries=128, show_spinner=False)
def _passages(
    _opened: Opened, key: str, label: str, tokens: int, _found: "NeuronExamples"
) -> "tuple[Passage, ...]":
    from workbench.interp.neurons.card import neuron_passages

    part = find_components(_opened.model.config, label)[0]
    with _opened.lock:
        return neuron_passages(_opened.model, _found, part)


class Figures(NamedTuple):
    """A neuron's activations over the text that was searched."""

    mean: float
    std: float
    active: float
    """Share of tokens above 0."""
    max: float
    tokens: int


def figures(found: "NeuronExamples", label: str) -> Figures:
    """Its statistics."""
    at = found.part(label)
    mean, std, active, largest = (
        float(table[at]) for table in (found.mean, found.std, found.active, found.max)
    )
    return Figures(mean, std, active, largest, found.tokens)


def histogram(found: "NeuronExamples", label: str) -> "pd.DataFrame":
    """One row a bin that is not empty: low, high, tokens."""
    import pandas as pd

    counts = found.histogram[found.part(label)]
    edges = found.edges
    frame = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "tokens": counts})
    there = np.flatnonzero(counts)
    return frame.iloc[there[0] : there[-1] + 1].reset_index(drop=True)


def along(opened: Opened, ids: tuple[int, ...], label: str) -> np.ndarray:
    """Its activations along a row of tokens, [pos]."""
    return _along(opened, opened.key, ids, label)


@st.cache_resource(max_entries=256, show_spinner=False)
def _along(_opened: Opened, key: str, ids: tuple[int, ...], label: str) -> np.ndarray:
    from workbench.evals.scoring import ready
    from workbench.interp.neurons.card import activations_along
    from workbench.interp.neurons.examples import Row

    part = find_components(_opened.model.config, label)[0]
    with _opened.lock, ready(_opened.model) as network:
        return activations_along(network, Row(np.array(ids), None), part)


def off_on_pair(opened: Opened, wanted: Wanted, label: str) -> switched_off.Switched:
    """The difference of the two sentences with the neuron at zero."""
    subject = pair_subject(opened, wanted)
    view = next(each for each in subject.views if each.token is None)
    return switched_off.switched_off(opened, subject, view, label, "zero")


def pair_total(opened: Opened, wanted: Wanted) -> float:
    """The difference itself."""
    return explain.explain_pair(opened, wanted.good, wanted.bad, wanted.protocol, wanted.pll).difference


def known_loss(opened: Opened, label: str) -> Work | None:
    """The measurement of what the loss does without the neuron, if it was begun."""
    return works().get(("neuron loss", opened.key, label))


def begin_loss(opened: Opened, label: str) -> Work:
    """Measure it in the background; the work's result is an `AblationResult`."""
    return works().begin(("neuron loss", opened.key, label), lambda tick: measure_loss(opened, label))


def cancel_loss(opened: Opened, label: str) -> None:
    """Forget it."""
    works().cancel(("neuron loss", opened.key, label))


def measure_loss(opened: Opened, label: str) -> "AblationResult":
    """`ablation_effect` by the mean, on embedded validation stories."""
    from workbench.data.embedded.stories import stories
    from workbench.interp.ablation import ablation_effect

    return ablation_effect(
        own_copy(opened),
        label,
        how="mean",
        text=stories(HELD_OUT, split="validation"),
        reference=ablate.reference(opened),
        measure=("loss",),
    )


def known_labels(opened: Opened, layer: int) -> Work | None:
    """The search for labels of a layer, if it was begun."""
    return works().get(("neuron labels", opened.key, layer))


def begin_labels(opened: Opened, layer: int) -> Work:
    """Look for labels in the background; the work's result is a `NeuronLabels`."""
    return works().begin(
        ("neuron labels", opened.key, layer), lambda tick: measure_labels(opened, layer, tick)
    )


def cancel_labels(opened: Opened, layer: int) -> None:
    """End it."""
    works().cancel(("neuron labels", opened.key, layer))


def measure_labels(
    opened: Opened, layer: int, tick: Tick = lambda share: None, stories_read: int = LABELLED
) -> "NeuronLabels":
    """`label_neurons` of one layer on embedded validation stories."""
    from workbench.data.embedded.stories import stories
    from workbench.interp.neurons.labels import label_neurons

    return label_neurons(
        own_copy(opened),
        stories(stories_read, split="validation"),
        layers=[layer],
        progress=lambda fraction, message: tick(fraction),
    )


def sharpest(found: "NeuronExamples") -> "pd.DataFrame":
    """The neurons of a search by their largest activation in standard deviations above the mean: neuron,
    peak, largest, active, mean, std; 0 for one that never moves."""
    frame = found.to_frame().rename(columns={"component": "neuron", "max": "largest", "neuron": "unit"})
    moving = frame["std"] > 0
    frame["peak"] = ((frame.largest - frame["mean"]) / frame["std"].where(moving)).fillna(0.0)
    columns = ["neuron", "peak", "largest", "active", "mean", "std"]
    frame = frame.sort_values("peak", ascending=False, kind="stable")
    return cast("pd.DataFrame", frame[columns]).reset_index(drop=True)


def labelled(found: "NeuronLabels") -> "pd.DataFrame":
    """The neurons by their labels, those that hold and then the sharpest first: neuron, label, best, auc,
    low, high, precision, p, excess."""
    frame = found.to_frame().drop(columns="neuron").rename(columns={"component": "neuron"})
    frame = frame.assign(held=frame.label.notna()).sort_values(
        ["held", "excess"], ascending=False, kind="stable"
    )
    columns = ["neuron", "label", "best", "auc", "low", "high", "precision", "p", "excess"]
    return cast("pd.DataFrame", frame[columns]).reset_index(drop=True)

"""Everything about one neuron: statistics, passages, tokens, label and ablation, as data, as text for a
terminal and as HTML."""

import dataclasses
import unicodedata
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from workbench.data.tokenizer import token_texts
from workbench.errors import InputError, shown
from workbench.evals.scoring import ready
from workbench.html_page import document
from workbench.interp.ablation import AblationResult, ablation_effect
from workbench.interp.components import Component, find_components
from workbench.interp.neurons.examples import (
    EDGES,
    NeuronExamples,
    NeuronName,
    Row,
    neuron_examples,
    parse_neuron,
)
from workbench.interp.neurons.labels import NeuronLabels, label_neurons
from workbench.interp.neurons.tokens import TokenScore, promoted_tokens
from workbench.result import Result
from workbench.runs.run import ModelLike, open_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from workbench.model.transformer import HookedTransformer

BEFORE, AFTER = 20, 10
"""Tokens shown on either side of the one that a passage is about."""


class Passage(NamedTuple):
    """A position in the text and the neuron's activations around it."""

    kind: str
    """`top`, `random`, or the quantiles that the activation lies between."""
    value: float
    row: int
    pos: int
    place: int
    """Index of the position among the tokens shown."""
    tokens: tuple[str, ...]
    values: Float[np.ndarray, " token"]
    """Activation at each of them."""


class Label(NamedTuple):
    """The best automatic label."""

    name: str
    holds: bool
    auc: float
    low: float
    high: float
    p: float


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NeuronCard(Result):
    """One neuron."""

    layer: int
    neuron: int
    model: str
    """The run and its step, or `model`."""
    tokens: int
    """Tokens that the statistics and passages come from."""
    mean: float
    std: float
    active: float
    """Fraction of tokens with an activation above 0."""
    max: float
    histogram: Int[np.ndarray, " bin"]
    passages: tuple[Passage, ...]
    promoted: tuple[TokenScore, ...]
    """Tokens whose logits the neuron raises, by its weights."""
    suppressed: tuple[TokenScore, ...]
    label: Label | None
    """None if labels were not computed."""
    ablation: AblationResult | None

    edges = EDGES

    @property
    def name(self) -> str:
        """Such as `L2N17`."""
        return f"L{self.layer}N{self.neuron}"

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per token shown: kind, passage, row, pos, token, activation, here (True at the token
        that the passage is about)."""
        return passage_frame(self.passages)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values for JSON."""
        names = ("layer", "neuron", "model", "tokens", "mean", "std", "active", "max")
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        values |= {"histogram": self.histogram.tolist(), "edges": self.edges[1:-1].tolist()}
        values["label"] = None if self.label is None else self.label._asdict()
        for name in ("promoted", "suppressed"):
            values[name] = [score._asdict() for score in getattr(self, name)]
        if self.ablation is not None:
            values["ablation"] = self.ablation.how
            values["loss_change"] = self.ablation.loss_intervals[0]._asdict()
            if self.ablation.pairs is not None:
                values["accuracy_change"] = self.ablation.accuracy_intervals[0]._asdict()
        return values

    def to_text(self, colour: bool = False) -> str:
        """Return the card for a terminal.

        The token that a passage is about is in brackets; others where the neuron reaches at least half of its
        largest activation are in parentheses.

        Args:
            colour: mark both by ANSI colours instead.
        """
        lines = [f"{self.name} of {visible(self.model)}"]
        lines += [f"{name + ':':<12}{value}" for name, value in _facts(self)]
        for kind, passages in groupby(self.passages, lambda passage: passage.kind):
            lines += ["", _heading(kind)]
            lines += [f"{one.value:8.3f}  " + "".join(_marked(self, one, colour)) for one in passages]
        return "\n".join(lines)

    def to_html(self, whole: bool = True) -> str:
        """Return a self-contained page without scripts, or with `whole=False` its body alone."""
        facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(self))
        parts = [f"<h2>{self.name} <small>of {escape(visible(self.model))}</small></h2><dl>{facts}</dl>"]
        parts.append(_histogram_svg(self))
        for kind, passages in groupby(self.passages, lambda passage: passage.kind):
            parts.append(f"<h3>{escape(_heading(kind))}</h3>")
            for one in passages:
                tokens = "".join(_span(self, one, at) for at in range(len(one.tokens)))
                parts.append(f'<p><span class="v">{one.value:.3f}</span>{tokens}</p>')
        section = f'<section class="neuron-card">{"".join(parts)}</section>'
        if whole:
            return document(self.name, _STYLE, section)
        return f"<style>{_STYLE}</style>{section}"

    def _repr_html_(self) -> str:
        return self.to_html(whole=False)

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the histogram of the neuron's activations and return the figure."""
        from workbench.plots.neurons import plot_histogram

        strongest = [passage.value for passage in self.passages if passage.kind == "top"]
        title = f"{self.name}: {self.tokens:,} tokens, strongest passages marked"
        return plot_histogram(self.histogram, self.edges, strongest, title=title, ax=ax)


def neuron_card(
    model: ModelLike,
    neuron: NeuronName,
    text: Any = None,
    *,
    stories: Sequence[str] | None = None,
    examples: NeuronExamples | None = None,
    labels: NeuronLabels | bool = True,
    pairs: Any = False,
    how: str = "mean",
    before: int = BEFORE,
    after: int = AFTER,
    count: int = 10,
    seed: int = 0,
    **options: Any,
) -> NeuronCard:
    """Collect statistics, passages, promoted tokens, label and ablation effect of one neuron.

    Args:
        model: a run, a `HookedTransformer` or the name of a run.
        neuron: `"L2N17"`, `(2, 17)` or a `Component`.
        text: searched for passages; see `neuron_examples`.
        stories: texts for labels and for the loss of the ablation; if not given, see `label_neurons` and
            `ablation_effect`.
        examples: the result of `neuron_examples`, if it is available.
        labels: the result of `label_neurons`; True to compute it, False for no label.
        pairs: measure the ablation on minimal pairs too: True for the embedded ones, or as for `blimp`.
        how: `mean`, `zero` or `resample` ablation.
        before: tokens shown before the one that a passage is about.
        after: tokens shown after it.
        count: tokens promoted and suppressed.
        seed: of everything random.
        **options: of `neuron_examples`.

    Raises:
        InputError: no such neuron, or as these functions.
    """
    run, network, tokenizer = open_model(model)
    component = parse_neuron(neuron) or neuron
    named = find_components(network.config, component)
    if len(named) != 1 or named[0].kind != "neuron":
        raise InputError(f"A card is of one neuron, such as L0N17; found {shown(neuron)!r}.")
    layer, unit = named[0].place
    if examples is None:
        examples = neuron_examples(model, text, layers=[layer], seed=seed, **options)
    at = examples.part(named[0])
    label = None
    if labels is True and tokenizer is not None:
        labels = label_neurons(model, stories, layers=[layer], seed=seed)
    if isinstance(labels, NeuronLabels):
        label = _label(labels, layer, unit)
    loss_text = text if stories is None and tokenizer is None else stories
    ablation = ablation_effect(
        model,
        named[0],
        how=how,
        text=loss_text,
        reference=None if tokenizer is not None else loss_text,
        seed=seed,
        pairs=None if pairs is True else pairs or None,
        measure=("loss",) if pairs is False else ("loss", "pairs"),
    )
    tokens = promoted_tokens(network, layer, unit, count)
    return NeuronCard(
        layer=layer,
        neuron=unit,
        model="model" if run is None else str(run),
        tokens=examples.tokens,
        mean=float(examples.mean[at]),
        std=float(examples.std[at]),
        active=float(examples.active[at]),
        max=float(examples.max[at]),
        histogram=examples.histogram[at],
        passages=neuron_passages(model, examples, named[0], before, after),
        promoted=tokens.promoted,
        suppressed=tokens.suppressed,
        label=label,
        ablation=ablation,
    )


@torch.no_grad()
def neuron_passages(
    model: ModelLike, examples: NeuronExamples, neuron: NeuronName, before: int = BEFORE, after: int = AFTER
) -> tuple[Passage, ...]:
    """Return the examples of a neuron as text, with its activation at each token shown.

    Args:
        model: the run or `HookedTransformer` that `examples` was computed from.
        examples: of that neuron's layer.
        neuron: `"L2N17"`, `(2, 17)` or a `Component`.
        before: tokens shown before the one that a passage is about.
        after: tokens shown after it.

    Raises:
        InputError: the neuron was not read.
    """
    _, network, tokenizer = open_model(model)
    at, unit = examples.part(neuron)
    component = Component(examples.layers[at], "neuron", unit)
    activations: dict[int, np.ndarray] = {}
    passages = []
    with ready(network) as network:
        for example in examples.examples(component):
            row = examples.rows[example.row]
            if example.row not in activations:
                activations[example.row] = activations_along(network, row, component)
            first, last = max(0, example.pos - before), example.pos + after + 1
            ids = row.tokens.tolist()
            texts = (list(map(str, ids)) if tokenizer is None else token_texts(tokenizer, ids))[first:last]
            values = activations[example.row][first:last]
            passages.append(Passage(*example, place=example.pos - first, tokens=tuple(texts), values=values))
    return tuple(passages)


@torch.no_grad()
def activations_along(model: "HookedTransformer", row: Row, neuron: Component) -> Float[np.ndarray, " pos"]:
    """Return the activations of a neuron along a row of tokens."""
    tokens = torch.from_numpy(row.tokens).long()[None].to(model.device)
    segments = None if row.segments is None else torch.from_numpy(row.segments).long()[None].to(model.device)
    kept: list[torch.Tensor] = []
    with model.hooks(fwd_hooks=[(neuron.hook_name, lambda x, hook: kept.append(x[0, :, neuron.unit]))]):
        model.stream(tokens, segments=segments)
    return kept[0].double().cpu().numpy()


def passage_frame(passages: Sequence[Passage]) -> "pd.DataFrame":
    """Return one row per token shown: kind, passage, row, pos, token, activation, here."""
    import pandas as pd

    rows = [
        (one.kind, number, one.row, one.pos - one.place + at, token, float(value), at == one.place)
        for number, one in enumerate(passages)
        for at, (token, value) in enumerate(zip(one.tokens, one.values, strict=True))
    ]
    return pd.DataFrame(rows, columns=["kind", "passage", "row", "pos", "token", "activation", "here"])


def _label(labels: NeuronLabels, layer: int, unit: int) -> Label:
    at = labels.index(layer), unit
    numbers = (float(table[at]) for table in (labels.auc, labels.low, labels.high, labels.p))
    return Label(labels.features[labels.feature[at]], bool(labels.passed[at]), *numbers)


# Views of a card. Text of a corpus is untrusted until `visible` and `escape` have processed it.


_STYLE = """
.neuron-card{font:15px/1.5 system-ui,sans-serif;color:#1c2733;max-width:60rem;margin:0 auto}
.neuron-card h2{margin:.2em 0}.neuron-card h3{margin:1.2em 0 .2em;font-size:1em}
.neuron-card dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em 1em;margin:.5em 0}
.neuron-card dt{color:#5b6b7b}.neuron-card dd{margin:0}
.neuron-card p{margin:.25em 0;overflow-wrap:anywhere}.neuron-card .v{color:#5b6b7b;margin-right:.7em;
font-variant-numeric:tabular-nums}.neuron-card .here{outline:1px solid #33526e;border-radius:2px}
.neuron-card .tok{white-space:pre-wrap}
"""
_HEIGHT, _BAR = 60, 8


def visible(text: str) -> str:
    """Return text without control and formatting characters; a line break shows as ⏎."""
    text = text.replace("\n", "⏎").replace("\t", " ")
    return "".join(letter for letter in text if unicodedata.category(letter)[0] != "C")


def _facts(card: NeuronCard) -> Iterator[tuple[str, str]]:
    yield (
        "activation",
        f"mean {card.mean:.3f}, standard deviation {card.std:.3f}, largest {card.max:.3f}, above 0 at "
        f"{100 * card.active:.1f} % of {card.tokens:,} tokens",
    )
    if card.label is not None:
        label = card.label
        test = f"AUC {label.auc:.3f} [{label.low:.3f}, {label.high:.3f}] on held-out stories, p {label.p:.1g}"
        prefix = "" if label.holds else "none holds; the best is "
        yield "label", f"{prefix}{visible(label.name)} ({test})"
    for name, scores in (("promotes", card.promoted), ("suppresses", card.suppressed)):
        yield name, " · ".join(f"{visible(one.text)!r} {one.score:+.2f}" for one in scores)
    if card.ablation is not None:
        yield "ablation", _effect(card.ablation)


def _effect(ablation: AblationResult) -> str:
    loss = ablation.loss_intervals[0]
    text = f"loss {loss.mean:+.5f} nats/token [{loss.low:+.5f}, {loss.high:+.5f}]"
    if ablation.pairs is not None:
        change = ablation.accuracy_intervals[0]
        text += (
            f", accuracy on pairs {100 * change.mean:+.2f} points "
            f"[{100 * change.low:+.2f}, {100 * change.high:+.2f}]"
        )
    return f"{text} ({ablation.how} ablation)"


def _heading(kind: str) -> str:
    names = {"top": "top passages", "random": "random tokens"}
    return names.get(kind, f"between quantiles: {kind} of the tokens")


def _marked(card: NeuronCard, passage: Passage, colour: bool) -> Iterator[str]:
    for at, (token, value) in enumerate(zip(passage.tokens, passage.values, strict=True)):
        text, strength, here = visible(token), _strength(card, float(value)), at == passage.place
        text = text if at else text.lstrip()
        if colour:
            shade = f"48;5;{232 + round(4 + 14 * strength)}" if strength > 0.05 else ""
            style = ";".join(filter(None, ["1;4" if here else "", shade]))
            yield f"\x1b[{style}m{text}\x1b[0m" if style else text
        elif here or strength >= 0.5:
            word, (left, right) = text.lstrip(), "[]" if here else "()"
            yield f"{text[: len(text) - len(word)]}{left}{word}{right}"
        else:
            yield text


def _span(card: NeuronCard, passage: Passage, at: int) -> str:
    value = float(passage.values[at])
    strength = _strength(card, value)
    style = f' style="background:rgba(230,126,34,{0.85 * strength:.2f})"' if strength > 0.02 else ""
    here = " here" if at == passage.place else ""
    text = escape(visible(passage.tokens[at]), quote=True)
    return f'<span class="tok{here}"{style} title="{value:.3f}">{text}</span>'


def _strength(card: NeuronCard, value: float) -> float:
    """Return the activation as a fraction of the neuron's largest, 0 to 1."""
    return min(1.0, max(0.0, value / card.max)) if card.max > 0 else 0.0


def _histogram_svg(card: NeuronCard) -> str:
    """Return the histogram as SVG; heights are logarithms of counts."""
    filled = np.flatnonzero(card.histogram)
    first, last = int(filled[0]), int(filled[-1]) + 1
    counts, edges = card.histogram[first:last], card.edges[first : last + 1]
    heights = np.log1p(counts)
    heights = heights / max(1.0, float(heights.max())) * _HEIGHT
    bars = "".join(
        f'<rect x="{_BAR * at}" y="{_HEIGHT - height:.1f}" width="{_BAR - 1}" height="{height:.1f}" '
        f'fill="#7ba0c4"><title>{low:g} to {high:g}: {count:,} tokens</title></rect>'
        for at, (height, count, low, high) in enumerate(
            zip(heights, counts, edges[:-1], edges[1:], strict=True)
        )
    )
    width = _BAR * len(counts)
    return (
        f'<svg width="{width}" height="{_HEIGHT}" viewBox="0 0 {width} {_HEIGHT}" role="img" '
        f'aria-label="histogram of activations, two bins an octave, counts as logarithms">{bars}</svg>'
    )

"""All that is known of one neuron on one card."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from workbench.errors import InputError, shown
from workbench.evals.scoring import opened, ready
from workbench.interp.ablation.effect import ablation_effect
from workbench.interp.ablation.result import AblationResult
from workbench.interp.neurons.examples import neuron_examples
from workbench.interp.neurons.examples_result import NeuronExamples, Row
from workbench.interp.neurons.labels import label_neurons
from workbench.interp.neurons.labels_result import NeuronLabels
from workbench.interp.neurons.tally import EDGES
from workbench.interp.neurons.tokens import Scored, promoted_tokens
from workbench.interp.parts import find_parts

if TYPE_CHECKING:
    import pandas as pd

BEFORE, AFTER = 20, 10
"""Tokens shown on either side."""


class Passage(NamedTuple):
    """A place in the text with what the neuron does around it."""

    kind: str
    """`top`, `random`, or between which quantiles."""
    value: float
    row: int
    pos: int
    place: int
    """Which of the shown tokens it is about."""
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


@dataclasses.dataclass(frozen=True)
class NeuronCard:
    """One neuron."""

    layer: int
    neuron: int
    model: str
    """The run and its step, or `model`."""
    tokens: int
    """Tokens that the statistics and the passages come from."""
    mean: float
    std: float
    active: float
    """Share of tokens above 0."""
    max: float
    histogram: Int[np.ndarray, " bin"]
    passages: tuple[Passage, ...]
    promoted: tuple[Scored, ...]
    """Tokens whose logits the neuron raises, by its weights."""
    suppressed: tuple[Scored, ...]
    label: Label | None
    """None if none was looked for."""
    ablation: AblationResult | None

    edges = EDGES

    @property
    def name(self) -> str:
        """Such as `L2N17`."""
        return f"L{self.layer}N{self.neuron}"

    def to_frame(self) -> "pd.DataFrame":
        """One row a shown token: kind, passage, row, pos, token, activation, here (it is what the passage
        is about)."""
        import pandas as pd

        rows = [
            (one.kind, number, one.row, one.pos - one.place + at, token, float(value), at == one.place)
            for number, one in enumerate(self.passages)
            for at, (token, value) in enumerate(zip(one.tokens, one.values, strict=True))
        ]
        return pd.DataFrame(rows, columns=["kind", "passage", "row", "pos", "token", "activation", "here"])

    def to_dict(self) -> dict[str, Any]:
        """The numbers, as plain values."""
        plain = ("layer", "neuron", "model", "tokens", "mean", "std", "active", "max")
        found: dict[str, Any] = {name: getattr(self, name) for name in plain}
        found |= {"histogram": self.histogram.tolist(), "edges": self.edges[1:-1].tolist()}
        found["label"] = None if self.label is None else self.label._asdict()
        for name in ("promoted", "suppressed"):
            found[name] = [one._asdict() for one in getattr(self, name)]
        if self.ablation is not None:
            found["ablation"] = self.ablation.how
            found["loss_change"] = self.ablation.loss_intervals[0]._asdict()
            if self.ablation.pairs is not None:
                found["accuracy_change"] = self.ablation.accuracy_intervals[0]._asdict()
        return found

    def to_text(self, colour: bool = False) -> str:
        """For a terminal. The token that a passage is about stands in brackets, others where the neuron is at
        least half as strong as at its strongest in parentheses.

        Args:
            colour: shades instead, as ANSI codes.
        """
        from workbench.interp.neurons.card_views import card_text

        return card_text(self, colour)

    def to_html(self, whole: bool = True) -> str:
        """A page that needs nothing else and runs nothing, or with `whole=False` its body alone."""
        from workbench.interp.neurons.card_views import card_html

        return card_html(self, whole)

    def plot(self, ax: Any = None) -> Any:
        """Histogram of its activations; needs matplotlib.

        Returns:
            The matplotlib axes.
        """
        from workbench.plots.neurons import plot_histogram

        return plot_histogram(self, ax)


def neuron_card(
    model: Any,
    neuron: Any,
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
    """Everything about one neuron.

    Args:
        model: a run or a `HookedTransformer`.
        neuron: `"L2N17"` or a `Part`.
        text: where passages are looked for; see `neuron_examples`.
        stories: texts that labels are tested and the ablation's loss is measured on; see `label_neurons` and
            `ablation_effect` for what is taken if none are given.
        examples: what `neuron_examples` found, if it ran already.
        labels: what `label_neurons` found; True to look for one, False for none.
        pairs: measure the ablation on minimal pairs too: True for the embedded ones, or as `blimp` takes it.
        how: `mean`, `zero` or `resample` ablation.
        before: tokens shown before the token that a passage is about.
        after: tokens shown behind.
        count: tokens promoted and suppressed.
        seed: of everything drawn.
        **options: for `neuron_examples`.

    Raises:
        InputError: no such neuron, or as those functions.
    """
    run, network, tokenizer = opened(model)
    parts = find_parts(network.config, neuron)
    if len(parts) != 1 or parts[0].kind != "neuron":
        raise InputError(f"a card is of one neuron, such as L0N17; found {shown(neuron)!r}.")
    part = parts[0]
    if examples is None:
        examples = neuron_examples(model, text, layers=[part.layer], seed=seed, **options)
    at = examples.part(part)
    label = None
    if labels is True and tokenizer is not None:
        labels = label_neurons(model, stories, layers=[part.layer], seed=seed)
    if isinstance(labels, NeuronLabels):
        label = _label(labels, part.layer, part.unit)
    with_pairs = pairs is not False
    told = text if stories is None and tokenizer is None else stories
    ablation = ablation_effect(
        model,
        part,
        how=how,
        text=told,
        reference=None if tokenizer is not None else told,
        seed=seed,
        pairs=None if pairs is True else pairs or None,
        measure=("loss", "pairs") if with_pairs else ("loss",),
    )
    written = promoted_tokens(network, part.layer, part.unit, count)
    return NeuronCard(
        layer=part.layer,
        neuron=part.unit,
        model="model" if run is None else str(run),
        tokens=examples.tokens,
        mean=float(examples.mean[at]),
        std=float(examples.std[at]),
        active=float(examples.active[at]),
        max=float(examples.max[at]),
        histogram=examples.histogram[at],
        passages=neuron_passages(model, examples, part, before, after),
        promoted=written.promoted,
        suppressed=written.suppressed,
        label=label,
        ablation=ablation,
    )


@torch.no_grad()
def neuron_passages(
    model: Any, found: NeuronExamples, part: Any, before: int = BEFORE, after: int = AFTER
) -> tuple[Passage, ...]:
    """The examples of a neuron as text, with its activation at each shown token.

    Args:
        model: a run or a `HookedTransformer`: the one that `found` is of.
        found: where to look.
        part: the neuron, a `Part`.
        before: tokens shown before the token that a passage is about.
        after: tokens shown behind.

    Raises:
        InputError: the neuron was not read.
    """
    _, network, tokenizer = opened(model)
    known: dict[int, np.ndarray] = {}
    passages = []
    with ready(network) as network:
        for one in found.examples(part):
            row = found.rows[one.row]
            if one.row not in known:
                known[one.row] = activations_along(network, row, part)
            first, last = max(0, one.pos - before), one.pos + after + 1
            ids = [int(token) for token in row.tokens[first:last]]
            texts = tuple(str(i) if tokenizer is None else tokenizer.decode([i]) for i in ids)
            passages.append(
                Passage(*one, place=one.pos - first, tokens=texts, values=known[one.row][first:last])
            )
    return tuple(passages)


@torch.no_grad()
def activations_along(network: Any, row: Row, part: Any) -> Float[np.ndarray, " pos"]:
    """The activations of a neuron (a `Part`) along a row of tokens."""
    kept: list[np.ndarray] = []

    def keep(x: torch.Tensor, hook: Any) -> None:
        kept.append(x[0, :, part.unit].double().cpu().numpy())

    tokens, segments = (
        None if field is None else torch.from_numpy(field).long()[None].to(network.device)
        for field in (row.tokens, row.segments)
    )
    with network.hooks(fwd_hooks=[(part.hook_name, keep)]):
        network.stream(tokens, segments=segments)
    return kept[0]


def _label(found: NeuronLabels, layer: int, neuron: int) -> Label:
    if layer not in found.layers:
        raise InputError(f"block {layer} was not labelled; these were: {', '.join(map(str, found.layers))}.")
    at = found.layers.index(layer), neuron
    numbers = (float(table[at]) for table in (found.auc, found.low, found.high, found.p))
    return Label(found.features[found.feature[at]], bool(found.passed[at]), *numbers)

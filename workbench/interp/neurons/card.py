"""All that is known of one neuron on one card."""

import dataclasses
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.data.tokenizer import token_text, token_texts
from workbench.errors import InputError, shown
from workbench.evals.scoring import opened, ready
from workbench.interp.ablation import AblationResult, ablation_effect
from workbench.interp.components import Component, find_components
from workbench.interp.neurons.attribution import WithoutDenominators, mlp_paths
from workbench.interp.neurons.examples import EDGES, NeuronExamples, Row, neuron_examples, neuron_layers
from workbench.interp.neurons.labels import NeuronLabels, label_neurons

if TYPE_CHECKING:
    import pandas as pd


# The tokens that a neuron promotes, suppresses and reads, from its weights alone.
#
# Geva et al. 2022 (arXiv:2203.14680): a neuron adds its row of `W_out` to the residual stream, and the
# unembedding turns that into logits: `(W_out[i] * gain) @ W_U`, centred as the norms centre it, and over the
# vocabulary, for a softmax does not see a common shift. Scores are logits for a unit of activation and a
# denominator of one in each norm: they rank tokens, and say nothing without the activation.


SCORES_AT_ONCE = 2**24
"""Scores [neuron, d_vocab] held at once."""


class Scored(NamedTuple):
    """A token and what a neuron gives it."""

    token: int
    text: str
    score: float


@dataclasses.dataclass(frozen=True)
class NeuronTokens:
    """The tokens at both ends of one neuron's list."""

    layer: int
    neuron: int
    side: str
    """`output`: promoted and suppressed. `input`: tokens whose embeddings excite and inhibit it."""
    promoted: tuple[Scored, ...]
    """Highest score first."""
    suppressed: tuple[Scored, ...]
    """Lowest score first."""

    def to_frame(self) -> "pd.DataFrame":
        """One row a token: end (promoted or suppressed), rank, token, text, score."""
        import pandas as pd

        rows = [
            (end, rank, *scored)
            for end, those in (("promoted", self.promoted), ("suppressed", self.suppressed))
            for rank, scored in enumerate(those)
        ]
        return pd.DataFrame(rows, columns=["end", "rank", "token", "text", "score"])


@dataclasses.dataclass(frozen=True)
class AllNeuronTokens:
    """The same for every neuron of some layers, as arrays."""

    layers: Int[np.ndarray, " layer"]
    promoted: Int[np.ndarray, "layer neuron rank"]
    promoted_scores: Float[np.ndarray, "layer neuron rank"]
    suppressed: Int[np.ndarray, "layer neuron rank"]
    suppressed_scores: Float[np.ndarray, "layer neuron rank"]
    texts: dict[int, str]
    """Of every token that is named."""

    def of(self, layer: int, neuron: int) -> NeuronTokens:
        """One neuron's.

        Raises:
            InputError: it is not among them.
        """
        if layer not in self.layers or not 0 <= neuron < self.promoted.shape[1]:
            have = ", ".join(f"L{one}" for one in self.layers)
            raise InputError(
                f"L{layer}N{neuron} is not there; there are N0 to N{self.promoted.shape[1] - 1} of {have}."
            )
        at = (int(np.flatnonzero(self.layers == layer)[0]), neuron)
        ends = [
            tuple(
                Scored(int(t), self.texts[int(t)], float(s)) for t, s in zip(ids[at], scores[at], strict=True)
            )
            for ids, scores in (
                (self.promoted, self.promoted_scores),
                (self.suppressed, self.suppressed_scores),
            )
        ]
        return NeuronTokens(layer, neuron, "output", *ends)

    def to_frame(self) -> "pd.DataFrame":
        """One row a neuron: layer, neuron, promoted and suppressed tokens as lists of text."""
        import pandas as pd

        words = np.vectorize(self.texts.__getitem__, otypes=[object])
        count = self.promoted.shape[1]
        return pd.DataFrame(
            {
                "layer": np.repeat(self.layers, count),
                "neuron": np.tile(np.arange(count), len(self.layers)),
                "promoted": list(words(self.promoted).reshape(-1, self.promoted.shape[2])),
                "suppressed": list(words(self.suppressed).reshape(-1, self.suppressed.shape[2])),
            }
        )


@torch.no_grad()
def promoted_tokens(
    model: Any, layer: int, neuron: int, count: int = 10, among: Sequence[int] | None = None
) -> NeuronTokens:
    """The tokens whose logits a neuron raises and lowers most.

    Denominators of norms are left out. In a post-norm model all norms behind the neuron count with their
    gains; a masked model's head counts with the slope that its activation has where the normed stream is
    zero; a weighted residual stream with its learned weight. With several hidden layers (mlp_depth) the
    neurons are the last one's.

    Args:
        model: a `HookedTransformer`.
        layer: its block.
        neuron: its number there.
        count: tokens at each end.
        among: only these tokens: those of a corpus, for the vectors of tokens that training never met stand
            at both ends of many lists.

    Raises:
        InputError: a neuron or token that is not there, or a count that is not 1 to the number of tokens.
    """
    ids = _checked(model, layer, neuron, count, among)
    vector = model.blocks[layer].mlp.W_out[neuron].double()
    return _ends(model, layer, neuron, "output", _readers(model)[layer] @ vector, count, ids)


@torch.no_grad()
def all_promoted_tokens(
    model: Any,
    layers: Sequence[int] | None = None,
    count: int = 10,
    among: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AllNeuronTokens:
    """`promoted_tokens` of every neuron, many in one product.

    Args:
        model: a `HookedTransformer`.
        layers: only these blocks.
        count: tokens at each end.
        among: only these tokens.
        progress: told the neurons done and their number.

    Raises:
        InputError: a block without an MLP, or tokens or a count as `promoted_tokens`.
    """
    chosen = neuron_layers(model.config, layers)
    ids = _checked(model, chosen[0], 0, count, among)
    readers, width = _readers(model), model.config.mlp_width
    size = max(1, SCORES_AT_ONCE // model.config.d_vocab)
    wide = torch.promote_types(model.dtype, torch.float32)
    parts: list[list[Tensor]] = []
    done = 0
    for layer in chosen:
        reader = readers[layer][ids].to(wide)
        for rows in model.blocks[layer].mlp.W_out.to(wide).split(size):
            scores = rows @ reader.T
            high, low = scores.topk(count), scores.topk(count, largest=False)
            parts.append([ids[high.indices], high.values, ids[low.indices], low.values])
            done += len(rows)
            if progress is not None:
                progress(done, len(chosen) * width)
    high, highs, low, lows = (
        torch.cat(column).view(len(chosen), width, count).cpu().numpy() for column in zip(*parts, strict=True)
    )
    named = np.unique(np.concatenate([high.ravel(), low.ravel()])).tolist()
    texts = {token: token_text(model.tokenizer, token) for token in named}
    return AllNeuronTokens(np.array(chosen), high, highs.astype(float), low, lows.astype(float), texts)


@torch.no_grad()
def input_tokens(
    model: Any, layer: int, neuron: int, count: int = 10, among: Sequence[int] | None = None
) -> NeuronTokens:
    """The tokens whose embeddings, read where the neuron reads, raise and lower its `hook_pre` most.

    The direct path alone, `(W_E * gain) @ W_in`, centred as above: what attention and earlier MLPs make of a
    token is left out, so it says most in the first blocks. In a gated MLP `W_gate` stands for `W_in`, for it
    decides whether the neuron fires.

    Args:
        model: a `HookedTransformer`.
        layer: its block.
        neuron: its number there.
        count: tokens at each end.
        among: only these tokens.

    Raises:
        InputError: as `promoted_tokens`, or a neuron that does not read the residual stream (mlp_depth > 1).
    """
    ids = _checked(model, layer, neuron, count, among)
    if model.config.mlp_depth > 1:
        raise InputError(
            f"L{layer}N{neuron} reads other neurons, for mlp_depth is {model.config.mlp_depth}; no token's "
            "embedding stands before it."
        )
    block, embed = model.blocks[layer], model.embed
    weight = (block.mlp.W_in if block.mlp.W_gate is None else block.mlp.W_gate)[:, neuron].double()
    if model.config.norm_place == "post":
        norm = block.ln1 if block.kind == "am" else None
    else:
        norm = block.ln2
    weight = _before(norm, weight)
    if embed.up_weight is not None:
        weight = weight @ embed.up_weight.double()
    scores = embed.W_E.double() @ _before(embed.norm, weight)
    return _ends(model, layer, neuron, "input", scores - scores.mean(), count, ids)


def _before(norm: Any, weight: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
    """Weights behind a norm as weights before it, its denominator left out."""
    if norm is None:
        return weight
    weight = weight * norm.w.double()
    return weight - weight.mean() if hasattr(norm, "b") else weight


def _readers(model: Any) -> dict[int, Float[Tensor, "d_vocab d_model"]]:
    """By layer: what a vector that its MLP writes is multiplied with to give centred logits; float64."""
    weight = model.readout_weight.double()
    kept = WithoutDenominators(model)
    return {layer: path.direction for layer, path in mlp_paths(model, kept, weight - weight.mean(0))}


def _ends(
    model: Any,
    layer: int,
    neuron: int,
    side: str,
    scores: Float[Tensor, " d_vocab"],
    count: int,
    ids: Int[Tensor, " token"],
) -> NeuronTokens:
    ends = []
    for largest in (True, False):
        end = scores[ids].topk(count, largest=largest)
        tokens = ids[end.indices].tolist()
        texts = [token_text(model.tokenizer, token) for token in tokens]
        ends.append(tuple(map(Scored, tokens, texts, end.values.tolist())))
    return NeuronTokens(layer, neuron, side, *ends)


def _checked(
    model: Any, layer: int, neuron: int, count: int, among: Sequence[int] | None
) -> Int[Tensor, " token"]:
    """The tokens to choose from."""
    find_components(model.config, Component(layer, "neuron", neuron))
    every = torch.arange(model.config.d_vocab, device=model.device)
    if among is not None:
        every = torch.as_tensor(among, device=model.device).long().unique()
        if len(every) and not 0 <= int(every[0]) <= int(every[-1]) < model.config.d_vocab:
            low, high = int(every[0]), int(every[-1])
            raise InputError(f"tokens run from {low} to {high}; the vocabulary has {model.config.d_vocab}.")
    if not 1 <= count <= len(every):
        what = "the vocabulary" if among is None else "the tokens given"
        raise InputError(f"{shown(count)} tokens at each end: choose 1 to {len(every)}, {what}.")
    return every


# A neuron's card as text for a terminal and as a page. Text of a corpus is hostile until it passes here.


_STYLE = """
.neuron-card{font:15px/1.5 system-ui,sans-serif;color:#1c2733;max-width:60rem;margin:0 auto}
.neuron-card h2{margin:.2em 0}.neuron-card h3{margin:1.2em 0 .2em;font-size:1em}
.neuron-card dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em 1em;margin:.5em 0}
.neuron-card dt{color:#5b6b7b}.neuron-card dd{margin:0}
.neuron-card p{margin:.25em 0;overflow-wrap:anywhere}.neuron-card .v{color:#5b6b7b;margin-right:.7em;
font-variant-numeric:tabular-nums}.neuron-card .here{outline:1px solid #33526e;border-radius:2px}
.neuron-card .tok{white-space:pre-wrap}.neuron-card code{background:#eef2f5;padding:0 .25em;border-radius:3px;
white-space:pre}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_HEIGHT, _BAR = 60, 8
_SHADES = (230, 229, 223, 222, 221, 215, 214, 208)
"""Of the terminal's 256 colours, pale to orange."""


def card_text(card: "NeuronCard", colour: bool) -> str:
    """See `NeuronCard.to_text`."""
    lines = [f"{card.name} of {visible(card.model)}"]
    lines += [f"{name + ':':<12}{value}" for name, value in _facts(card)]
    kind = None
    for one in card.passages:
        if one.kind != kind:
            kind = one.kind
            lines += ["", _heading(kind)]
        lines.append(f"{one.value:8.3f}  " + "".join(_marked(card, one, colour)))
    return "\n".join(lines)


def card_html(card: "NeuronCard", whole: bool) -> str:
    """See `NeuronCard.to_html`."""
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(card))
    parts = [f"<h2>{card.name} <small>of {escape(visible(card.model))}</small></h2><dl>{facts}</dl>"]
    parts.append(_bars(card))
    kind = None
    for one in card.passages:
        if one.kind != kind:
            kind = one.kind
            parts.append(f"<h3>{escape(_heading(kind))}</h3>")
        tokens = "".join(_span(card, one, at) for at in range(len(one.tokens)))
        parts.append(f'<p><span class="v">{one.value:.3f}</span>{tokens}</p>')
    body = f'<style>{_STYLE}</style><section class="neuron-card">{"".join(parts)}</section>'
    if not whole:
        return body
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{card.name}</title></head><body>{body}</body></html>\n"
    )


def visible(text: str) -> str:
    """Text without control and formatting characters; a line break shows as ⏎."""
    text = text.replace("\n", "⏎").replace("\t", " ")
    return "".join(letter for letter in text if unicodedata.category(letter)[0] != "C")


def _facts(card: "NeuronCard") -> Iterator[tuple[str, str]]:
    yield (
        "activation",
        f"mean {card.mean:.3f}, standard deviation {card.std:.3f}, largest {card.max:.3f}, above 0 at "
        f"{100 * card.active:.1f} % of {card.tokens:,} tokens",
    )
    if card.label is not None:
        label = card.label
        test = f"AUC {label.auc:.3f} [{label.low:.3f}, {label.high:.3f}] on held-out stories, p {label.p:.1g}"
        yield (
            "label",
            f"{visible(label.name)} ({test})"
            if label.holds
            else (f"none holds; the best is {visible(label.name)} ({test})"),
        )
    for name, tokens in (("promotes", card.promoted), ("suppresses", card.suppressed)):
        yield name, " · ".join(f"{visible(one.text)!r} {one.score:+.2f}" for one in tokens)
    if card.ablation is not None:
        yield "without it", _effect(card)


def _effect(card: "NeuronCard") -> str:
    found = card.ablation
    assert found is not None
    change = found.loss_intervals[0]
    told = f"loss {change.mean:+.5f} nats a token [{change.low:+.5f}, {change.high:+.5f}]"
    if found.pairs is not None:
        pairs = found.accuracy_intervals[0]
        told += (
            f", pairs right {100 * pairs.mean:+.2f} points [{100 * pairs.low:+.2f}, {100 * pairs.high:+.2f}]"
        )
    return f"{told} ({found.how} ablation)"


def _heading(kind: str) -> str:
    named = {"top": "strongest passages", "random": "random tokens"}
    return named.get(kind, f"between quantiles: {kind} of the tokens")


def _marked(card: "NeuronCard", one: "Passage", colour: bool) -> Iterator[str]:
    for at, (token, value) in enumerate(zip(one.tokens, one.values, strict=True)):
        text, strength = visible(token), _strength(card, float(value))
        text = text if at else text.lstrip()
        if colour:
            shade = 232 + round(4 + 14 * strength) if strength > 0.05 else None
            style = ";".join(
                filter(None, ["1;4" if at == one.place else "", f"48;5;{shade}" if shade else ""])
            )
            yield f"\x1b[{style}m{text}\x1b[0m" if style else text
        elif at == one.place:
            yield _around(text, "[]")
        else:
            yield _around(text, "()") if strength >= 0.5 else text


def _around(text: str, marks: str) -> str:
    """Marks around a token, behind the spaces that it begins with."""
    word = text.lstrip()
    return f"{text[: len(text) - len(word)]}{marks[0]}{word}{marks[1]}"


def _span(card: "NeuronCard", one: "Passage", at: int) -> str:
    value = float(one.values[at])
    strength = _strength(card, value)
    style = f' style="background:rgba(230,126,34,{0.85 * strength:.2f})"' if strength > 0.02 else ""
    here = " here" if at == one.place else ""
    text = escape(visible(one.tokens[at]), quote=True)
    return f'<span class="tok{here}"{style} title="{value:.3f}">{text}</span>'


def _strength(card: "NeuronCard", value: float) -> float:
    """0 to 1, as a share of the neuron's largest activation."""
    return min(1.0, max(0.0, value / card.max)) if card.max > 0 else 0.0


def _bars(card: "NeuronCard") -> str:
    """The histogram as SVG: heights are logarithms of counts."""
    import numpy as np

    there = np.flatnonzero(card.histogram)
    first, last = int(there[0]), int(there[-1]) + 1
    edges = card.edges[first : last + 1]
    heights = np.log1p(card.histogram[first:last])
    heights = heights / max(1.0, float(heights.max())) * _HEIGHT
    bars = "".join(
        f'<rect x="{_BAR * at}" y="{_HEIGHT - height:.1f}" width="{_BAR - 1}" height="{height:.1f}" '
        'fill="#7ba0c4">'
        f"<title>{low:g} to {high:g}: {count:,} tokens</title></rect>"
        for at, (height, count, low, high) in enumerate(
            zip(heights, card.histogram[first:last], edges[:-1], edges[1:], strict=True)
        )
    )
    width = _BAR * len(heights)
    return (
        f'<svg width="{width}" height="{_HEIGHT}" viewBox="0 0 {width} {_HEIGHT}" role="img" '
        f'aria-label="histogram of activations, two bins an octave, counts as logarithms">{bars}</svg>'
    )


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

        return card_text(self, colour)

    def to_html(self, whole: bool = True) -> str:
        """A page that needs nothing else and runs nothing, or with `whole=False` its body alone."""

        return card_html(self, whole)

    def plot(self, ax: Any = None) -> Any:
        """Draw the histogram of the neuron's activations and return the figure."""
        from workbench.plots.neurons import plot_histogram

        strongest = [passage.value for passage in self.passages if passage.kind == "top"]
        title = f"{self.name}: {self.tokens:,} tokens, strongest passages marked"
        return plot_histogram(self.histogram, self.edges, strongest, title=title, ax=ax)


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
        neuron: `"L2N17"` or a `Component`.
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
    parts = find_components(network.config, neuron)
    if len(parts) != 1 or parts[0].kind != "neuron":
        raise InputError(f"a card is of one neuron, such as L0N17; found {shown(neuron)!r}.")
    part = parts[0]
    layer, unit = part.place
    if examples is None:
        examples = neuron_examples(model, text, layers=[layer], seed=seed, **options)
    at = examples.part(part)
    label = None
    if labels is True and tokenizer is not None:
        labels = label_neurons(model, stories, layers=[layer], seed=seed)
    if isinstance(labels, NeuronLabels):
        label = _label(labels, layer, unit)
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
    written = promoted_tokens(network, layer, unit, count)
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
        part: the neuron, a `Component`.
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
            ids = row.tokens.tolist()
            texts = tuple(token_texts(tokenizer, ids)[first:last])
            passages.append(
                Passage(*one, place=one.pos - first, tokens=texts, values=known[one.row][first:last])
            )
    return tuple(passages)


@torch.no_grad()
def activations_along(network: Any, row: Row, part: Any) -> Float[np.ndarray, " pos"]:
    """The activations of a neuron (a `Component`) along a row of tokens."""
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

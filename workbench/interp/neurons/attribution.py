"""Attribution of a metric to neurons.

| method | score of a neuron |
|---|---|
| contribution | what it writes for the readout, everything after it frozen (direct logit attribution) |
| gradient | gradient x (activation - baseline) |
| integrated | the same with the mean gradient along the way: the scores of a layer sum to its effect |
| conductance | gradient x change of the neuron, summed while the input goes from a baseline to the run's |
| ablation | the metric minus the metric with the neuron at its baseline: exact, one run each |

A neuron is an entry of `mlp.hook_post`; in an MLP of several hidden layers (mlp_depth), of the last one's. A
score above 0 means that the neuron raises the metric.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.console import OnProgress, progress_bar
from workbench.errors import InputError, nearest
from workbench.evals.scoring import ready
from workbench.interp.components import SITES, hook_layer
from workbench.interp.contributions import log_prob_directions, record_outputs
from workbench.interp.engine import CachedRun, Cells, Edit, Sweep, activation_gradients, replaced
from workbench.interp.metrics import (
    Function,
    LogitDifference,
    LogProb,
    Metric,
    SentenceLogProb,
    choose_metric,
)
from workbench.interp.neurons.examples import neuron_layers
from workbench.interp.neurons.tokens import mlp_paths
from workbench.interp.patching import SomePairs, plan
from workbench.interp.prompts import labels, prompt_pair
from workbench.interp.texts import TextBatch, mean_activations, refuse_unscored, row_nats, text_batches
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BASELINES = ("zero", "mean", "other")
STEPS = {"integrated": 32, "conductance": 128}
NEURON = SITES["neuron"]
INPUT = "blocks.0.hook_resid_pre"
TOKENS_AT_ONCE = {"cpu": 2048}
"""Tokens in one backward pass, which keeps all their activations; a GPU takes 32 times as many."""

Scores: TypeAlias = dict[str, Float[Tensor, "pair pos neuron"]]
"""By hook point."""


class ScoredNeuron(NamedTuple):
    """A neuron, possibly at a position, and its mean score."""

    label: str
    """`L2N17`, as `workbench.interp.ablation` and `neuron_card` take it."""
    layer: int
    neuron: int
    pos: int | None
    value: float


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NeuronAttribution(Result):
    """Scores of neurons; above 0 the neuron raises the metric."""

    method: str
    baseline: str
    """What a neuron is compared with: `zero`, `mean` or `other`."""
    metric: str
    layers: Int[np.ndarray, " layer"]
    positions: Int[np.ndarray, " pos"] | None
    """None if the scores are of all positions together."""
    per_pair: Float[np.ndarray, "pair layer pos neuron"]
    """In the metric's unit; `pos` has one entry if the scores are of all positions together."""
    base: Float[np.ndarray, " pair"]
    """The metric of the run."""
    without: Float[np.ndarray, "layer pair"] | None
    """The metric with all neurons of a layer at their baseline; integrated gradients only."""
    tokens: tuple[str, ...]
    """Of the first prompt."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of `value`."""
        return ("layer", "neuron") if self.positions is None else ("layer", "pos", "neuron")

    @property
    def value(self) -> Float[np.ndarray, "..."]:
        """Mean over pairs, with one axis for each name in `axes`."""
        mean = self.per_pair.mean(0)
        return mean[:, 0] if self.positions is None else mean

    @property
    def rest(self) -> Float[np.ndarray, "layer pair"] | None:
        """The completeness error of integrated gradients: the effect of setting the neurons of a layer to
        their baseline, minus the sum of their scores. More steps make it smaller."""
        if self.without is None:
            return None
        return self.base - self.without - self.per_pair.sum((2, 3)).T

    def top(self, count: int = 10) -> list[ScoredNeuron]:
        """Return the neurons with the largest absolute scores, the largest first."""
        mean = self.per_pair.mean(0)
        order = np.argsort(-np.abs(mean), axis=None, kind="stable")[:count]
        neurons = []
        for at, pos, neuron in zip(*np.unravel_index(order, mean.shape), strict=True):
            layer = int(self.layers[at])
            position = None if self.positions is None else int(self.positions[pos])
            score = float(mean[at, pos, neuron])
            neurons.append(ScoredNeuron(f"L{layer}N{neuron}", layer, int(neuron), position, score))
        return neurons

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per neuron (and position): layer, pos, neuron, value, error (standard error over
        pairs)."""
        import pandas as pd

        pairs, layers, positions, width = self.per_pair.shape
        columns: dict[str, Any] = {"layer": np.repeat(self.layers, positions * width)}
        if self.positions is not None:
            columns["pos"] = np.tile(np.repeat(self.positions, width), layers)
        columns["neuron"] = np.tile(np.arange(width), layers * positions)
        error = self.per_pair.std(0, ddof=1).ravel() / pairs**0.5 if pairs > 1 else np.nan
        return pd.DataFrame(columns).assign(value=self.per_pair.mean(0).ravel(), error=error)

    def plot(self, ax: "Axes | None" = None, count: int = 20) -> "Figure":
        """Draw the strongest neurons, over positions or with standard errors, and return the figure.

        Args:
            ax: axes to draw into; a new figure if not set.
            count: number of neurons.
        """
        from workbench.plots.neurons import plot_attribution

        title = f"{self.method}, baseline {self.baseline}"
        return plot_attribution(
            self.to_frame(),
            self.tokens,
            metric=self.metric,
            title=title,
            pairs=len(self.base),
            count=count,
            ax=ax,
        )


def attribute_neurons(
    model: ModelLike,
    clean: Any,
    corrupted: Any = None,
    *,
    right: Any = None,
    wrong: Any = None,
    metric: Metric | Callable[[Tensor], Tensor] | str | None = None,
    method: str = "contribution",
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    by_position: bool = True,
    baseline: str | None = None,
    reference: Any = None,
    steps: int | None = None,
    progress: bool | OnProgress | None = None,
) -> NeuronAttribution:
    """Attribute the metric on the clean prompts to neurons.

    Args:
        model: a run, a `HookedTransformer` or the name of a run; half-precision weights are computed in
            float32.
        clean: prompts, or token ids [pair pos].
        corrupted: as many prompts of the same numbers of tokens, for the baseline `other`.
        right: the answer, a text of one token or an id, or one for each pair. With `wrong` it gives the
            default metric, the logit difference at the last token.
        wrong: the other answer.
        metric: see `workbench.interp.metrics.choose_metric`.
        method: one of `METHODS`, as above.
        layers: only these blocks.
        positions: only neurons at these positions.
        by_position: return a score for each position; otherwise their sum, and an ablation sets a neuron to
            its baseline at all positions together.
        baseline: what a neuron is compared with: `zero`; its `mean` over prompts and positions; its value in
            the `other`, corrupted run, which is the default if there is one. For conductance, the same of
            what the first block reads.
        reference: text for the mean instead of the prompts, see `texts.text_batches`.
        steps: gradients on the path of `integrated` (Gauss-Legendre nodes, default 32) and `conductance`
            (default 128; a zero input needs many, because norms change quickly near it).
        progress: see `progress_bar`.

    Raises:
        InputError: an unknown method or baseline, a model or block without MLP, `other` without corrupted
            prompts, fewer than one step, a metric without direct contributions, or as `patch`.
    """
    baseline = baseline or ("zero" if corrupted is None else "other")
    steps = STEPS.get(method, 1) if steps is None else steps
    _check_options(method, baseline, corrupted, reference, steps)
    parts: list[tuple[np.ndarray, ...]] = []
    with (
        progress_bar(progress, "Attributing to neurons") as on_progress,
        ready(as_model(model)) as network,
        torch.enable_grad(),
    ):
        layers = neuron_layers(network.config, layers)
        names = [NEURON.hook_name(layer) for layer in layers]
        sides = prompt_pair(network, clean, clean if corrupted is None else corrupted)
        metric = choose_metric(network, metric, right, wrong, sides[0])
        (tokens, mask), (others, _) = sides
        places = plan(network.config, NEURON, tokens.shape[1], True, [0], layers[:1], positions).pos
        chosen = torch.zeros_like(tokens, dtype=torch.bool)
        chosen[:, torch.from_numpy(places)] = True
        chosen = (chosen if mask is None else chosen & mask)[..., None]
        means = None
        if baseline == "mean":
            text = text_batches(
                network, [TextBatch(tokens, tokens, None, mask)] if reference is None else reference
            )
            means = mean_activations(network, [INPUT, *names], text)
            means = {name: mean.to(network.dtype) for name, mean in means.items()}
        groups = _pair_groups(metric, tokens)
        for index, some in enumerate(groups):
            rows = None if mask is None else mask[some]
            with torch.no_grad():
                run = CachedRun(network, tokens[some], rows, names)
                values = means or dict.fromkeys((INPUT, *names), run.streams[0].new_zeros(()))
                if baseline == "other":
                    donor = CachedRun(network, others[some], rows, names)
                    values = {INPUT: donor.streams[0], **donor.kept}

            def report(fraction: float, _: str, index: int = index) -> None:
                on_progress((index + fraction) / len(groups), "")

            comparison = Comparison(
                run=run,
                metric=metric if len(groups) == 1 else SomePairs.of(metric, some),
                baseline={name: torch.where(chosen[some], values[name], run.kept[name]) for name in names},
                start=values[INPUT].expand(run.streams[0].shape),
                chosen=chosen[some],
                steps=steps,
                by_position=by_position,
                on_progress=report,
            )
            scores = METHODS[method](comparison)
            parts.append(
                (
                    _numbers(torch.stack([scores[name] for name in names], 1)),
                    comparison.value,
                    comparison.without if method == "integrated" else np.empty((len(names), 0)),
                )
            )
    per_pair, base = (np.concatenate(column) for column in list(zip(*parts, strict=True))[:2])
    if method != "ablation" or by_position:
        per_pair = per_pair[:, :, places] if by_position else per_pair.sum(2, keepdims=True)
    return NeuronAttribution(
        method=method,
        baseline=baseline,
        metric=metric.name,
        layers=np.array(layers),
        positions=places if by_position else None,
        per_pair=per_pair,
        base=base,
        without=np.concatenate([part[2] for part in parts], 1) if method == "integrated" else None,
        tokens=tuple(labels(network, tokens)),
    )


def estimated_effects(
    model: ModelLike,
    means: Float[np.ndarray, "layer neuron"],
    text: Any = None,
    *,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "layer neuron"]:
    """Estimate the rise in loss, in nats per token, of the mean ablation of each neuron alone.

    A gate moves each neuron towards its mean, and one backward pass gives the gradients at all gates. The
    estimate is the loss's expansion to second order: the gradient at the gate (Molchanov et al. 2017,
    arXiv:1611.06440) and half its curvature, approximated by the mean square of the stories' gradients
    (Fisher pruning: Theis et al. 2018, arXiv:1801.05787). In a trained model the gradient alone says little,
    because training made it small. `ablation_effect` with `how="mean"` is exact, one neuron at a time.

    Args:
        model: a run, a `HookedTransformer` or the name of a run; half-precision weights are computed in
            float32.
        means: mean activation of each neuron, as `neuron_examples` returns it.
        text: what the loss is measured on; see `text_batches`.
        layers: the blocks of `means`; all with an MLP if not set.
        seed: of the tokens masked for a masked model.

    Raises:
        InputError: a block without neurons; a text without predicted tokens.
    """
    layers = neuron_layers(as_model(model).config, layers)
    batches = text_batches(model, text, seed)
    refuse_unscored(batches)
    total = torch.zeros(means.shape, dtype=torch.float64)
    with ready(as_model(model)) as network, torch.enable_grad():
        centres = torch.from_numpy(means).to(network.device, network.dtype)
        index = {NEURON.hook_name(layer): at for at, layer in enumerate(layers)}
        gates = centres[:, None]

        def gate(x: Tensor, hook: Any) -> Tensor:
            at = index[hook.name]
            return centres[at] + gates[at, :, None] * (x - centres[at])

        with network.hooks(fwd_hooks=[(name, gate) for name in index]):
            for batch in batches:
                size = (len(layers), len(batch.tokens), centres.shape[1])
                gates = centres.new_ones(size).requires_grad_()  # rows do not see each other
                slope = torch.autograd.grad(row_nats(network, batch).sum(), gates)[0].double().cpu()
                total += (slope.square() / 2 - slope).sum(1)
    return (total / sum(int(batch.counts.sum()) for batch in batches)).numpy()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A cached run of some pairs, and the baseline that its neurons are compared with."""

    run: CachedRun
    metric: Metric
    baseline: dict[str, Float[Tensor, "pair pos neuron"]]
    """By hook point: the run's activations with those at the chosen positions at their baseline."""
    start: Float[Tensor, "pair pos d_model"]
    """What the first block reads at the start of conductance's path."""
    chosen: Bool[Tensor, "pair pos 1"]
    steps: int
    by_position: bool
    on_progress: OnProgress

    @property
    def change(self) -> dict[str, Float[Tensor, "pair pos neuron"]]:
        """Activation minus baseline, by hook point."""
        return {name: self.run.kept[name] - values for name, values in self.baseline.items()}

    @property
    @torch.no_grad()
    def value(self) -> Float[np.ndarray, " pair"]:
        """The metric of the run."""
        return _numbers(self.metric.of_stream(self.run.model, self.run.streams[-1]))

    @property
    @torch.no_grad()
    def without(self) -> Float[np.ndarray, "layer pair"]:
        """The metric with all neurons of a layer at their baseline."""
        variants = [[Edit(name, values)] for name, values in self.baseline.items()]
        return _numbers(self.run.measure(variants, self.metric))


@torch.no_grad()
def contribution(comparison: Comparison) -> Scores:
    """Score neurons by their direct part of the metric; only positions that the metric reads have one.

    Neuron i at position t adds `a_i (W_out[i] * gain) . u / scale` to the quantity that u reads, with
    everything between frozen (`workbench.interp.contributions`); `W_out` is centred where the norm centres.
    Over the neurons of an MLP it sums to what the MLP adds, except for its bias (Elhage et al. 2021).

    Raises:
        InputError: the metric is neither a logit difference nor log-probabilities.
    """
    model, tokens, change = comparison.run.model, comparison.run.tokens, comparison.change
    metric, some = comparison.metric, slice(None)
    if isinstance(metric, SomePairs):
        metric, some = metric.whole, slice(metric.first, metric.first + len(tokens))
    rows = torch.arange(len(tokens), device=tokens.device)
    if isinstance(metric, LogitDifference | LogProb):
        places, targets = metric.reads[some].to(rows.device), metric.right[some].to(rows.device)
    elif isinstance(metric, SentenceLogProb):
        own, lengths = metric.tokens[some].to(rows.device), metric.lengths[some].to(rows.device)
        later = torch.arange(1, own.shape[1], device=rows.device)
        rows, places = (later < lengths[:, None]).nonzero().T
        targets = own[rows, places + 1]
    else:
        raise InputError(
            f"The metric {metric.name!r} has no direct contributions; choose a logit difference, "
            "log-probabilities, or another method."
        )
    mask = comparison.run.attention_mask
    options = {} if mask is None else {"attention_mask": mask}
    outputs = record_outputs(model, tokens, rows, places, neurons=False, **options)
    if isinstance(metric, LogitDifference):
        weight = model.readout_weight.detach().double()
        direction = weight[targets] - weight[metric.wrong[some].to(weight.device)]
    else:
        direction = log_prob_directions(model, outputs.final, targets)[0]
    scores = {name: torch.zeros_like(x, dtype=torch.float64) for name, x in change.items()}
    for layer, path in mlp_paths(model, outputs.activations, direction):
        name = NEURON.hook_name(layer)
        if name in change:
            slopes = path.direction @ model.blocks[layer].mlp.out_weight.double()  # type: ignore[union-attr]
            scores[name][rows, places] = change[name][rows, places].double() * slopes
    return scores


def gradient(comparison: Comparison) -> Scores:
    """Score neurons by the metric's gradient times their distance from the baseline."""
    change = comparison.change
    slopes, _ = _gradients(comparison.run, comparison.metric, list(change))
    return {name: slopes[name][0] * difference for name, difference in change.items()}


def integrated(comparison: Comparison) -> Scores:
    """Score neurons by integrated gradients, see `integrated_gradients`."""
    return integrated_gradients(
        comparison.run, comparison.metric, comparison.change, comparison.steps, comparison.on_progress
    )


def integrated_gradients(
    run: CachedRun,
    metric: Metric,
    change: Mapping[str, Float[Tensor, "pair pos neuron"]],
    steps: int,
    on_progress: OnProgress,
) -> Scores:
    """Integrate the gradient along a straight line from the baseline to the run, by Gauss-Legendre quadrature
    (Sundararajan et al. 2017, arXiv:1703.01365).

    All neurons of one layer move together, at all positions where `change` is not 0, and later layers are
    computed. So a layer's scores sum to the effect of patching the layer with its baseline.

    Args:
        run: keeps the activations of all layers of `change`.
        metric: what is attributed.
        change: by hook point, activation minus baseline.
        steps: nodes of the integral.
        on_progress: called after each chunk of gradients.
    """
    nodes, weights = (torch.from_numpy(half) / 2 for half in np.polynomial.legendre.leggauss(steps))
    pair = torch.arange(len(run.tokens), device=run.tokens.device)
    scores = {}
    for index, (name, difference) in enumerate(change.items()):
        total = torch.zeros_like(difference)
        for some in chunks(run, steps):
            away = (0.5 - nodes[some]).to(difference)  # 1 at the baseline, 0 in the run
            points = (run.kept[name] - away[:, None, None, None] * difference).requires_grad_()
            # One function for all variants, which `replay` runs at once, variant by variant: an edit for each
            # takes twice as long.
            values = points.flatten(0, 2)
            edit = Edit(name, lambda _, values=values: values)
            streams = run.replay([[edit]] * len(points), metric.reads).flatten(0, 1)
            value = metric(run.model, run.model.final(streams), pair.repeat(len(points)))
            (slopes,) = torch.autograd.grad(value.sum(), points)
            total += torch.einsum("s,s...->...", weights[some].to(difference), slopes)
            on_progress((index * steps + some.stop) / (len(change) * steps), "")
        scores[name] = total * difference
    return scores


def conductance(comparison: Comparison) -> Scores:
    """Score neurons by the metric's gradient times their change, summed while the input moves on a straight
    line from `start` to the run's own (Dhamdhere et al. 2018, arXiv:1805.12233; trapezoidal rule).

    The points of the path are the cubes of equal steps: near a zero input a norm changes within a thousandth
    of the path, which equal steps would miss.
    """
    run, names, steps = comparison.run, list(comparison.baseline), comparison.steps
    fractions = torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** 3
    input_ = run.streams[0]
    last: dict[
        str, tuple[Tensor, Tensor]
    ] = {}  # gradient and activation at the last point of the chunk before
    scores = {name: torch.zeros_like(values) for name, values in comparison.baseline.items()}
    for some in chunks(run, steps + 1):
        fraction = fractions[some].to(input_)[:, None, None, None]
        inputs = comparison.start + fraction * (input_ - comparison.start)
        slopes, neurons = _gradients(run, comparison.metric, names, inputs)
        for name in names:
            slope, neuron = slopes[name], neurons[name]
            if name in last:
                slope, neuron = torch.cat([last[name][0], slope]), torch.cat([last[name][1], neuron])
            scores[name] += ((slope[1:] + slope[:-1]) / 2 * neuron.diff(dim=0)).sum(0)
            last[name] = slope[-1:], neuron[-1:]
        comparison.on_progress(some.stop / (steps + 1), "")
    return {name: torch.where(comparison.chosen, values, 0.0) for name, values in scores.items()}


@torch.no_grad()
def ablation(comparison: Comparison) -> Scores:
    """Score neurons by the metric's change when each is set to its baseline alone, at one position or at all.

    Neurons that are at their baseline already score 0 and are not run. If not `by_position`, the scores have
    one position.
    """
    run, baseline = comparison.run, comparison.baseline
    differs, grids = {}, []
    for name, values in baseline.items():
        changed = values != run.kept[name]
        differs[name] = changed if comparison.by_position else changed.any(1, keepdim=True)
        pos, unit = differs[name].any(0).nonzero().T.cpu().numpy()
        pos = pos if comparison.by_position else np.full(len(pos), -1)
        grids.append((np.full(len(pos), hook_layer(name)), pos, unit))
    cells = Cells(*map(np.concatenate, zip(*grids, strict=True)))
    scores = {name: torch.zeros(changed.shape, dtype=torch.float64) for name, changed in differs.items()}
    if not len(cells):
        return scores
    measured = run.measure(Sweep(NEURON, cells, baseline), comparison.metric, comparison.on_progress)
    effects = torch.from_numpy(comparison.value) - measured.cpu()
    for name, table in scores.items():
        here = np.flatnonzero(cells.layer == hook_layer(name))
        table[:, np.maximum(cells.pos[here], 0), cells.unit[here]] = effects[here].T
        table *= differs[name].cpu()  # 0 for a pair in which nothing changed
    return scores


METHODS: dict[str, Callable[[Comparison], Scores]] = {
    "contribution": contribution,
    "gradient": gradient,
    "integrated": integrated,
    "conductance": conductance,
    "ablation": ablation,
}


def _gradients(
    run: CachedRun,
    metric: Metric,
    names: Sequence[str],
    inputs: Float[Tensor, "copy pair pos d_model"] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the metric's gradients at hook points and the activations there, [copy pair pos neuron], for
    copies of the pairs whose first block reads these inputs, or for the run itself."""
    pairs, copies = len(run.tokens), 1 if inputs is None else len(inputs)
    mask = None if run.attention_mask is None else run.attention_mask.repeat(copies, 1)
    # The inputs are whole embeddings: what is added to those of the tokens is in them.
    added = [name for name in ("hook_pos_embed", "hook_token_type_embed") if name in run.model.hook_dict]
    with replaced(run.model, {} if inputs is None else dict.fromkeys(added, torch.zeros_like)):
        result = activation_gradients(
            run.model,
            names,
            lambda stream: metric.of_stream(run.model, stream, pairs),
            run.tokens.repeat(copies, 1),
            None if inputs is None else inputs.flatten(0, 1),
            attention_mask=mask,
        )
    shape = (copies, pairs)
    gradients = {name: x.unflatten(0, shape) for name, x in result.gradients.items()}
    return gradients, {name: x.unflatten(0, shape) for name, x in result.activations.items()}


def chunks(run: CachedRun, copies: int) -> Iterator[slice]:
    """Yield slices of `copies` of all pairs that go through the model together."""
    size = max(1, tokens_at_once(run.tokens.device) // run.tokens.numel())
    for first in range(0, copies, size):
        yield slice(first, min(first + size, copies))


def tokens_at_once(device: torch.device) -> int:
    """Return `TOKENS_AT_ONCE` of a device."""
    return TOKENS_AT_ONCE.get(device.type, 32 * TOKENS_AT_ONCE["cpu"])


def _pair_groups(metric: Metric, tokens: Int[Tensor, "pair pos"]) -> list[slice]:
    """Return slices of pairs that go through the model together; a function of the logits needs all pairs."""
    pairs, length = tokens.shape
    size = pairs if isinstance(metric, Function) else max(1, tokens_at_once(tokens.device) // length)
    return [slice(first, first + size) for first in range(0, pairs, size)]


def _numbers(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()


def _check_options(method: str, baseline: str, corrupted: Any, reference: Any, steps: int) -> None:
    if method not in METHODS:
        raise InputError(f"Unknown method {method!r}. {nearest(method, METHODS)}")
    if baseline not in BASELINES:
        raise InputError(f"Unknown baseline {baseline!r}. {nearest(baseline, BASELINES)}")
    if baseline == "other" and corrupted is None:
        raise InputError("The baseline 'other' is the corrupted run: give corrupted prompts.")
    if reference is not None and baseline != "mean":
        raise InputError(f"A reference text is for the baseline 'mean'; {baseline!r} takes none.")
    if steps < 1:
        raise InputError(f"An integral takes 1 step or more; found {steps}.")

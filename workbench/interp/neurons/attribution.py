"""Which neurons make the answer: five ways to share a metric out among the neurons of the MLPs.

| method | a neuron's score |
|---|---|
| contribution | what it writes for the readout, everything behind it frozen (direct logit attribution) |
| gradient | gradient x (activation - baseline) |
| integrated | the same with the mean gradient on the way there: a layer's scores sum to that layer's effect |
| conductance | gradient x what the neuron does while the input goes from a baseline to the run's |
| ablation | the metric less the metric with the neuron at its baseline: exact, one run each |

A neuron is an entry of `mlp.hook_post`; in an MLP of several hidden layers (mlp_depth), of the last one's.
Signs agree: above 0, the neuron raises the metric.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError, nearest
from workbench.evals.scoring import opened, ready
from workbench.interp.components import SITES
from workbench.interp.contributions import (
    ComponentOutputs,
    log_prob_directions,
    record_outputs,
)
from workbench.interp.engine import CachedRun, Cells, Sweep
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
from workbench.interp.prompts import labels, prompts
from workbench.interp.texts import TextBatch, refuse_unscored, row_nats, text_batches
from workbench.model.mask import AttentionMask

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# What an attribution to neurons found.


class ScoredNeuron(NamedTuple):
    """A neuron, perhaps at a position, and its mean score."""

    label: str
    """Such as `L2N17`; `workbench.interp.ablation` and `parts` take it as it is."""
    layer: int
    neuron: int
    pos: int | None
    value: float


@dataclasses.dataclass(frozen=True)
class NeuronAttribution:
    """How much each neuron raises a metric; above 0 it helps."""

    method: str
    baseline: str
    """What a neuron is compared with: `zero`, `mean` or `other`."""
    metric: str
    layers: Int[np.ndarray, " layer"]
    positions: Int[np.ndarray, " pos"] | None
    """None if all positions are taken together."""
    per_pair: Float[np.ndarray, "pair layer pos neuron"]
    """In the metric's unit; `pos` has one entry if all positions are taken together."""
    base: Float[np.ndarray, " pair"]
    """The metric of the run."""
    without: Float[np.ndarray, "layer pair"] | None
    """The metric with all of a layer's neurons at their baseline; integrated gradients only."""
    tokens: tuple[str, ...]
    """Of the first prompt."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of `value`."""
        return ("layer", "neuron") if self.positions is None else ("layer", "pos", "neuron")

    @property
    def value(self) -> Float[np.ndarray, "..."]:
        """Mean over pairs, one axis for each name in `axes`."""
        mean = self.per_pair.mean(0)
        return mean[:, 0] if self.positions is None else mean

    @property
    def rest(self) -> Float[np.ndarray, "layer pair"] | None:
        """How far integrated gradients are from complete: what setting a layer's neurons to their baseline
        takes from the metric, less the sum of their scores. More steps make it smaller."""
        if self.without is None:
            return None
        return self.base - self.without - self.per_pair.sum((2, 3)).T

    def top(self, count: int = 10) -> list[ScoredNeuron]:
        """The strongest, either sign, the largest first."""
        mean = self.per_pair.mean(0)
        order = np.argsort(-np.abs(mean), axis=None, kind="stable")[:count]
        found = []
        for layer, pos, neuron in zip(*np.unravel_index(order, mean.shape), strict=True):
            number = int(self.layers[layer])
            place = None if self.positions is None else int(self.positions[pos])
            score = float(mean[layer, pos, neuron])
            found.append(ScoredNeuron(f"L{number}N{neuron}", number, int(neuron), place, score))
        return found

    def to_frame(self) -> "pd.DataFrame":
        """One row a neuron (and position): layer, pos, neuron, value, standard error over pairs."""
        import pandas as pd

        pairs, layers, places, width = self.per_pair.shape
        columns: dict[str, Any] = {"layer": np.repeat(self.layers, places * width)}
        if self.positions is not None:
            columns["pos"] = np.tile(np.repeat(self.positions, width), layers)
        columns["neuron"] = np.tile(np.arange(width), layers * places)
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


# What every neuron is worth for the loss, estimated: one backward pass instead of a model for each.
#
# A gate moves each neuron towards its mean. The loss that closing it would cost is the slope at the gate
# (Molchanov et al. 2017, arXiv:1611.06440) and half its curvature, for which the mean square of the
# stories' slopes stands (Fisher pruning: Theis et al. 2018, arXiv:1801.05787); in a trained model the slope
# alone says little, because training made it small. `ablation_effect` with `how="mean"` is the truth, a
# neuron at a time.


def estimated_effects(
    model: Any,
    means: Float[np.ndarray, "layer neuron"],
    text: Any = None,
    *,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "layer neuron"]:
    """The rise in loss, in nats a token, that replacing each neuron alone by its mean would cause.

    Args:
        model: a run or a `HookedTransformer`; half-precision weights are computed in float32.
        means: of each neuron, as `neuron_examples` gives them.
        text: what the loss is measured on; see `text_batches`.
        layers: the blocks that `means` is of; all with an MLP if not set.
        seed: of the tokens hidden from a masked model.

    Raises:
        InputError: a block without neurons; nothing to be predicted in the text.
    """
    network = opened(model)[1]
    chosen = neuron_layers(network.config, layers)
    batches = text_batches(model, text, seed)
    refuse_unscored(batches)
    total = torch.zeros(means.shape, dtype=torch.float64)
    with ready(network) as network, torch.enable_grad():
        centres = torch.from_numpy(means).to(network.device, network.dtype)
        index = {SITES["neuron"].hook_name(layer): at for at, layer in enumerate(chosen)}
        gates = centres[:, None]

        def gate(x: Tensor, hook: Any) -> Tensor:
            at = index[hook.name]
            return centres[at] + gates[at, :, None] * (x - centres[at])

        with network.hooks(fwd_hooks=[(name, gate) for name in index]):
            for batch in batches:
                size = (len(chosen), len(batch.tokens), centres.shape[1])
                gates = centres.new_ones(size).requires_grad_()  # rows do not see each other
                slope = torch.autograd.grad(row_nats(network, batch).sum(), gates)[0].double().cpu()
                total += (slope.square() / 2 - slope).sum(1)
    return (total / sum(int(batch.counts.sum()) for batch in batches)).numpy()


# Neurons' share of a metric, by its gradients.
#
# Gradient x activation; integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365) over the neurons of
# one layer at a time; conductance (Dhamdhere et al. 2018, arXiv:1805.12233), whose path is that of the input.


Scores = dict[int, Float[Tensor, "pair pos neuron"]]
"""By layer."""
Progress = Callable[[int, int], None]
NEURON = SITES["neuron"]
TOKENS_AT_ONCE = {"cpu": 2048}
"""Tokens that a gradient is taken through together, for all that it needs is kept meanwhile; a GPU takes 32
times as many."""


def gradient(base: CachedRun, metric: Metric, change: Mapping[int, Tensor]) -> Scores:
    """The metric's gradient at each neuron times its distance from the baseline.

    Args:
        base: the run.
        metric: what is attributed.
        change: by layer, activation minus baseline, [pair pos neuron].
    """
    _, slopes, _ = _slopes(base, metric, base.streams[0], list(change))
    return {layer: slopes[layer] * change[layer] for layer in change}


def integrated(
    base: CachedRun,
    metric: Metric,
    change: Mapping[int, Tensor],
    steps: int,
    progress: Progress = lambda done, total: None,
) -> tuple[Scores, Float[np.ndarray, "layer pair"]]:
    """Integrated gradients from the baseline to the run along a straight line, Gauss-Legendre.

    All neurons of one layer move together, at all positions where `change` is not 0; the rest of the network
    computes on. So a layer's scores sum to what patching that layer with its baseline takes from the metric.

    Args:
        base: the run; keeps the activations of all layers of `change`.
        metric: what is attributed.
        change: by layer, activation minus baseline, [pair pos neuron].
        steps: nodes of the integral.
        progress: told the gradients done and their number.

    Returns:
        The scores, and the metric with each layer at its baseline.
    """
    nodes, weights = (torch.from_numpy(half) / 2 for half in np.polynomial.legendre.leggauss(steps))
    scores, ends = {}, []
    for index, (layer, difference) in enumerate(change.items()):
        run = base.kept[NEURON.hook_name(layer)]
        total = torch.zeros_like(difference)
        for some in chunks(base, steps):
            away = (0.5 - nodes[some]).to(run)  # 1 at the baseline, 0 in the run
            moved = (run - away[:, None, None, None] * difference).flatten(0, 1).requires_grad_()
            value = _value_from(base, metric, layer, moved)
            (found,) = torch.autograd.grad(value.sum(), moved)
            weight = weights[some].to(run)
            total += torch.einsum("s,s...->...", weight, found.unflatten(0, (len(away), -1)))
            progress(index * steps + some.stop, len(change) * steps)
        with torch.no_grad():
            ends.append(_value_from(base, metric, layer, run - difference))
        scores[layer] = total * difference
    return scores, torch.stack(ends).double().cpu().numpy()


def conductance(
    base: CachedRun,
    metric: Metric,
    layers: Sequence[int],
    start: Float[Tensor, "pair pos d_model"],
    steps: int,
    progress: Progress = lambda done, total: None,
) -> Scores:
    """The metric's gradient at a neuron times what the neuron does, summed while the input goes a straight
    way from `start` to the run's own: the trapezoidal rule.

    The path's points are the cubes of equal steps: near a zero input a norm turns within a thousandth of the
    path, which equal steps would miss.

    Args:
        base: the run.
        metric: what is attributed.
        layers: of the neurons.
        start: what the first block reads at the path's beginning.
        steps: parts of the path, one less than gradients.
        progress: told the gradients done and their number.
    """
    shares = torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** 3
    input_ = base.streams[0]
    before: dict[int, tuple[Tensor, Tensor]] = {}  # gradient and activation at the chunk's last share
    scores: Scores = {}
    for some in chunks(base, steps + 1):
        share = shares[some].to(input_)[:, None, None, None]
        x = (start + share * (input_ - start)).flatten(0, 1)
        _, slopes, neurons = _slopes(base, metric, x, layers)
        for layer in layers:
            slope, neuron = (part[layer].unflatten(0, (len(share), -1)) for part in (slopes, neurons))
            if layer in before:
                slope, neuron = (
                    torch.cat([last, now]) for last, now in zip(before[layer], (slope, neuron), strict=True)
                )
            found = ((slope[1:] + slope[:-1]) / 2 * neuron.diff(dim=0)).sum(0)
            scores[layer] = scores[layer] + found if layer in scores else found
            before[layer] = slope[-1:], neuron[-1:]
        progress(some.stop, steps + 1)
    return scores


def chunks(base: CachedRun, copies: int) -> Iterator[slice]:
    """Copies of all pairs that go through the model at once."""
    size = max(1, tokens_at_once(base.tokens.device) // base.tokens.numel())
    for first in range(0, copies, size):
        yield slice(first, min(first + size, copies))


def tokens_at_once(device: torch.device) -> int:
    """Of `TOKENS_AT_ONCE`, for a device."""
    return TOKENS_AT_ONCE.get(device.type, 32 * TOKENS_AT_ONCE["cpu"])


def _slopes(
    base: CachedRun, metric: Metric, x: Float[Tensor, "row pos d_model"], layers: Sequence[int]
) -> tuple[Tensor, dict[int, Tensor], dict[int, Tensor]]:
    """The metric [row] for what the first block reads, its gradient at the neurons, and these."""
    kept: dict[str, Tensor] = {}
    names = {layer: NEURON.hook_name(layer) for layer in layers}
    hooks = [(name, lambda x, hook: kept.update({hook.name: x})) for name in names.values()]
    entry = x.detach().requires_grad_()
    value = _from_block(base, metric, 0, entry, [entry], hooks)
    neurons = [kept[names[layer]] for layer in layers]
    found = torch.autograd.grad(value.sum(), neurons, allow_unused=True)
    slopes = [torch.zeros_like(n) if g is None else g for n, g in zip(neurons, found, strict=True)]
    return (
        value.detach(),
        dict(zip(layers, slopes, strict=True)),
        {layer: neuron.detach() for layer, neuron in zip(layers, neurons, strict=True)},
    )


def _value_from(
    base: CachedRun, metric: Metric, layer: int, neurons: Float[Tensor, "row pos neuron"]
) -> Tensor:
    """The metric [row] with a layer's neurons replaced; rows are copies of all pairs."""
    copies = len(neurons) // len(base.tokens)
    x, *written = (part.repeat(copies, 1, 1) for part in (base.streams[layer], *base.written[: layer + 1]))
    return _from_block(base, metric, layer, x, written, [(NEURON.hook_name(layer), lambda x, hook: neurons)])


def _from_block(
    base: CachedRun, metric: Metric, first: int, x: Tensor, written: list[Tensor], hooks: list[Any]
) -> Float[Tensor, " row"]:
    """The metric of what goes on from in front of block `first`."""
    model, pairs = base.model, len(base.tokens)
    sight = _sight(base, len(x) // pairs)
    with model.hooks(fwd_hooks=hooks):
        for block in model.blocks[first:]:
            x = block(x, sight, None, written)
    pair = torch.arange(pairs, device=x.device).repeat(len(x) // pairs)
    if metric.reads is not None:
        x = x[torch.arange(len(x), device=x.device), metric.reads.to(x.device)[pair]][:, None]
    return metric(model, model.final(x), pair)


def _sight(base: CachedRun, copies: int) -> AttentionMask:
    """What whole rows see."""
    model, places = base.model, torch.arange(base.tokens.shape[1], device=base.tokens.device)[None]
    mask = model._mask(base.tokens, base.attention_mask, None)
    if mask is not None and len(mask) > 1:
        mask = mask.repeat(copies, 1, 1, 1)
    sight = AttentionMask(places, places, mask, base.causal, in_order=True)
    if model.position_bias is not None:
        sight.bias = model.position_bias(sight.distance, base.streams[0])
    return sight


# What each neuron writes for the readout: direct logit attribution of single neurons.
#
# Neuron i at position t adds `a_i (W_out[i] * gain) . u / scale` to the quantity u reads, with all that lies
# between frozen (see `interp.contributions`); `W_out` is centred where the norm centres. Over the neurons
# of an MLP it sums to what the MLP, but for its bias, adds (Elhage et al. 2021).


@torch.no_grad()
def contributions(
    model: Any,
    tokens: Int[Tensor, "pair pos"],
    metric: Metric,
    change: Mapping[int, Float[Tensor, "pair pos neuron"]],
    attention_mask: Tensor | None = None,
) -> dict[int, Float[Tensor, "pair pos neuron"]]:
    """Each neuron's direct part of the metric; only positions that the metric reads have one.

    Args:
        model: a `HookedTransformer` in eval mode.
        tokens: of the run.
        metric: a logit difference, or log-probabilities, which count from the uniform guess on.
        change: by layer, what is written with: activations, or their distance from a baseline.
        attention_mask: 1 at tokens, 0 at padding.

    Raises:
        InputError: another metric.
    """
    rows, places, targets = _readings(metric, tokens)
    options = {} if attention_mask is None else {"attention_mask": attention_mask}
    parts = record_outputs(model, tokens, rows, places, **options)
    found = {layer: torch.zeros_like(x, dtype=torch.float64) for layer, x in change.items()}
    for layer, path in mlp_paths(model, parts.activations, _directions(model, metric, parts, targets)):
        if layer in change:
            weight = path.direction @ model.blocks[layer].mlp.out_weight.double()
            found[layer][rows, places] = change[layer][rows, places].double() * weight
    return found


def _readings(metric: Metric, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row and place of each reading, in order, and the token read off there."""
    rows = torch.arange(len(tokens), device=tokens.device)
    metric, some = _whole(metric, len(tokens))
    if isinstance(metric, LogitDifference | LogProb):
        return rows, metric.reads[some].to(rows.device), metric.right[some].to(rows.device)
    if isinstance(metric, SentenceLogProb):
        own = metric.tokens[some].to(rows.device)
        later = torch.arange(1, own.shape[1], device=rows.device)
        rows, places = (later < metric.lengths[some].to(rows.device)[:, None]).nonzero().T
        return rows, places, own[rows, places + 1]
    raise InputError(
        f"a neuron has no direct contribution to the metric {metric.name!r}; choose a logit difference, "
        "log-probabilities, or another method."
    )


def _whole(metric: Metric, pairs: int) -> tuple[Metric, slice]:
    """The metric of all pairs, and which of them these are."""
    if isinstance(metric, SomePairs):
        return metric.whole, slice(metric.first, metric.first + pairs)
    return metric, slice(None)


def _directions(
    model: Any, metric: Metric, parts: ComponentOutputs, targets: Tensor
) -> Float[Tensor, "read width"]:
    metric, some = _whole(metric, len(parts.final))
    if isinstance(metric, LogitDifference):
        weight = model.readout_weight.detach().double()
        return weight[targets] - weight[metric.wrong[some].to(weight.device)]
    return log_prob_directions(model, parts.final, targets)[0]


# Each neuron at its baseline, one run each: the truth that other attributions are held against.


@torch.no_grad()
def ablations(
    base: CachedRun,
    metric: Metric,
    moved: Mapping[int, Float[Tensor, "pair pos neuron"]],
    value: Float[np.ndarray, " pair"],
    by_position: bool,
    progress: Progress = lambda done, total: None,
) -> dict[int, Float[Tensor, "pair pos_or_1 neuron"]]:
    """What the metric loses when a neuron goes to its baseline; by layer. Neurons that are there already
    score 0 and take no run.

    Args:
        base: the run.
        metric: what is attributed.
        moved: by layer, the activations at their baselines.
        value: the metric of the run.
        by_position: one position at a time; else a neuron goes at all of them together.
        progress: told the runs done and their number.
    """
    differs, grids = {}, []
    for layer, there in moved.items():
        mine = there != base.kept[NEURON.hook_name(layer)]
        differs[layer] = mine if by_position else mine.any(1, keepdim=True)
        pos, unit = differs[layer].any(0).nonzero().T.cpu().numpy()
        grids.append((np.full(len(pos), layer), pos if by_position else np.full(len(pos), -1), unit))
    cells = Cells(*map(np.concatenate, zip(*grids, strict=True)))
    found = {layer: torch.zeros(mine.shape, dtype=torch.float64) for layer, mine in differs.items()}
    if not len(cells):
        return found
    source = {NEURON.hook_name(layer): there for layer, there in moved.items()}

    def on_progress(fraction: float, _: str) -> None:
        progress(round(fraction * len(cells)), len(cells))

    measured = base.measure(Sweep(NEURON, cells, source), metric, on_progress).cpu()
    effects = torch.from_numpy(value) - measured
    for layer, table in found.items():
        here = np.flatnonzero(cells.layer == layer)
        table[:, np.maximum(cells.pos[here], 0), cells.unit[here]] = effects[here].T
        table *= differs[layer].cpu()  # a pair in which nothing changed
    return found


METHODS = ("contribution", "gradient", "integrated", "conductance", "ablation")
BASELINES = ("zero", "mean", "other")
INPUT = "blocks.0.hook_resid_pre"
STEPS = {"integrated": 32, "conductance": 128}


def attribute_neurons(
    model: Any,
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
    progress: Progress = lambda done, total: None,
) -> NeuronAttribution:
    """Each neuron's share of the metric on the clean prompts.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: prompts, or token ids [pair pos].
        corrupted: as many prompts of the same numbers of tokens, for the baseline `other`.
        right: the answer, a text of one token or an id, or one for each pair. With `wrong` it gives the
            default metric, the logit difference at the last token.
        wrong: the other answer.
        metric: see `workbench.interp.metrics.choose_metric`.
        method: one of `METHODS`, as above.
        layers: only these blocks.
        positions: only neurons at these positions.
        by_position: a score for each position; else their sum, and an ablation takes a neuron out everywhere.
        baseline: what a neuron is compared with: `zero`; its `mean` over prompts and positions; its value in
            the `other`, corrupted run, which is the default where there is one. Of conductance, the same of
            what the first block reads.
        reference: text for the mean instead of the prompts, as `texts.text_batches` takes it.
        steps: gradients on the path of `integrated` (Gauss-Legendre nodes, 32 if not set) and `conductance`
            (128; a zero input needs many, for norms turn quickly there).
        progress: told what is done and how much there is.

    Raises:
        InputError: an unknown method or baseline, a model or block without MLP, `other` without corrupted
            prompts, fewer than one step, a metric without a direct contribution, or as `patch`.
    """
    baseline = baseline or ("zero" if corrupted is None else "other")
    steps = STEPS.get(method, 1) if steps is None else steps
    _refuse(method, baseline, corrupted, reference, steps)
    with ready(model) as network, torch.enable_grad():
        chosen = list(neuron_layers(network.config, layers))
        tokens, others, mask = prompts(network, clean, clean if corrupted is None else corrupted)
        metric = choose_metric(network, metric, right, wrong, tokens, mask)
        places = plan(network.config, NEURON, tokens.shape[1], True, [0], chosen[:1], positions).pos
        at = torch.zeros_like(tokens, dtype=torch.bool)
        at[:, torch.from_numpy(places)] = True
        at = at if mask is None else at & mask
        means = None
        if baseline == "mean":
            own = TextBatch(tokens, tokens, None, mask)
            means = _means(network, chosen, [own] if reference is None else reference)
        parts = []
        groups = _groups(metric, tokens)
        for index, some in enumerate(groups):
            rest = None if mask is None else mask[some]
            run = _Run(network, tokens[some], rest, chosen, at[some])
            mine = metric if len(groups) == 1 else SomePairs.of(metric, some)
            told = lambda done, total, n=index: progress(n * total + done, len(groups) * total)  # noqa: E731
            run.against(baseline, others[some], means)
            parts.append(run.scores(method, mine, steps, by_position, told))
    scores, values, without = zip(*parts, strict=True)
    per_pair = np.concatenate(scores)
    if method != "ablation" or by_position:
        per_pair = per_pair[:, :, places] if by_position else per_pair.sum(2, keepdims=True)
    return NeuronAttribution(
        method=method,
        baseline=baseline,
        metric=metric.name,
        layers=np.array(chosen),
        positions=places if by_position else None,
        per_pair=per_pair,
        base=np.concatenate(values),
        without=np.concatenate(without, 1) if method == "integrated" else None,
        tokens=tuple(labels(network, tokens)),
    )


class _Run:
    """A run of some pairs, and what its neurons are compared with.

    `moved` are the activations with those at the chosen places `at` at their baseline, by layer, and `change`
    is what that takes away, [pair pos neuron]; `start` is where the input's path begins.
    """

    @torch.no_grad()
    def __init__(
        self, model: Any, tokens: Tensor, mask: Tensor | None, layers: list[int], at: Tensor
    ) -> None:
        self.layers, self.at = layers, at[..., None]
        self.names = {layer: NEURON.hook_name(layer) for layer in layers}
        self.base = CachedRun(model, tokens, mask, list(self.names.values()))

    @torch.no_grad()
    def against(self, baseline: str, others: Tensor, means: dict[str, Tensor] | None) -> None:
        """Set the baseline."""
        base = self.base
        if baseline == "other":
            donor = CachedRun(base.model, others, base.attention_mask, list(self.names.values()))
            there = {INPUT: donor.streams[0], **donor.kept}
        else:
            there = means or dict.fromkeys((INPUT, *base.kept), base.streams[0].new_zeros(()))
        self.start = there[INPUT].expand(base.streams[0].shape)
        kept = base.kept
        self.moved = {i: torch.where(self.at, there[name], kept[name]) for i, name in self.names.items()}
        self.change = {i: kept[name] - self.moved[i] for i, name in self.names.items()}

    def scores(
        self, method: str, metric: Metric, steps: int, by_position: bool, progress: Progress
    ) -> tuple[Float[np.ndarray, "pair layer pos neuron"], np.ndarray, np.ndarray | None]:
        """The scores; the metric of the run, and of the run without each layer's neurons."""
        base, change, without = self.base, self.change, None
        with torch.no_grad():
            value = metric.of_stream(base.model, base.streams[-1]).double().cpu().numpy()
        if method == "contribution":
            found = contributions(base.model, base.tokens, metric, change, base.attention_mask)
        elif method == "gradient":
            found = gradient(base, metric, change)
        elif method == "integrated":
            found, without = integrated(base, metric, change, steps, progress)
        elif method == "conductance":
            found = conductance(base, metric, self.layers, self.start, steps, progress)
            found = {layer: torch.where(self.at, score, 0.0) for layer, score in found.items()}
        else:
            found = ablations(base, metric, self.moved, value, by_position, progress)
        stacked = torch.stack([found[layer] for layer in self.layers], 1)
        return stacked.detach().double().cpu().numpy(), value, without


def _refuse(method: str, baseline: str, corrupted: Any, reference: Any, steps: int) -> None:
    if method not in METHODS:
        raise InputError(f"neurons are not attributed by {method!r}. {nearest(method, METHODS)}")
    if baseline not in BASELINES:
        raise InputError(f"no baseline is called {baseline!r}. {nearest(baseline, BASELINES)}")
    if baseline == "other" and corrupted is None:
        raise InputError("the baseline 'other' is the corrupted run: give corrupted prompts.")
    if reference is not None and baseline != "mean":
        raise InputError(f"a reference text is for the baseline 'mean'; {baseline!r} takes none.")
    if steps < 1:
        raise InputError(f"an integral takes 1 step or more; found {steps}.")


def _groups(metric: Metric, tokens: Int[Tensor, "pair pos"]) -> list[slice]:
    """Pairs that go through the model together; a function of the logits wants to see all."""
    pairs, length = tokens.shape
    size = pairs if isinstance(metric, Function) else max(1, tokens_at_once(tokens.device) // length)
    return [slice(first, first + size) for first in range(0, pairs, size)]


@torch.no_grad()
def _means(model: Any, layers: Sequence[int], text: Any) -> dict[str, Float[Tensor, " width"]]:
    """The mean of the neurons, and of what the first block reads, over the real tokens of a text."""
    names = [INPUT, *(NEURON.hook_name(layer) for layer in layers)]
    sums: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    count = 0
    with model.hooks(fwd_hooks=[(n, lambda x, hook: kept.update({hook.name: x})) for n in names]):
        for batch in text_batches(model, text):
            batch.read(model)
            real = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.real is None else batch.real
            for name, x in kept.items():
                total = x[real].sum(0, dtype=torch.float64)
                sums[name] = sums[name] + total if name in sums else total
            count += int(real.sum())
    return {name: (total / count).to(model.dtype) for name, total in sums.items()}

"""Neurons' share of a metric, by its gradients.

Gradient x activation; integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365) over the neurons of
one layer at a time; conductance (Dhamdhere et al. 2018, arXiv:1805.12233), whose path is that of the input.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.interp.patching.base_run import Base
from workbench.interp.patching.metrics import Metric
from workbench.interp.patching.sites import SITES
from workbench.model.sight import Sight

Scores = dict[int, Float[Tensor, "pair pos neuron"]]
"""By layer."""
Progress = Callable[[int, int], None]
NEURON = SITES["neuron"]
TOKENS_AT_ONCE = {"cpu": 2048}
"""Tokens that a gradient is taken through together, for all that it needs is kept meanwhile; a GPU takes 32
times as many."""


def gradient(base: Base, metric: Metric, change: Mapping[int, Tensor]) -> Scores:
    """The metric's gradient at each neuron times its distance from the baseline.

    Args:
        base: the run.
        metric: what is attributed.
        change: by layer, activation minus baseline, [pair pos neuron].
    """
    _, slopes, _ = _slopes(base, metric, base.streams[0], list(change))
    return {layer: slopes[layer] * change[layer] for layer in change}


def integrated(
    base: Base,
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
    base: Base,
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


def chunks(base: Base, copies: int) -> Iterator[slice]:
    """Copies of all pairs that go through the model at once."""
    size = max(1, tokens_at_once(base.tokens.device) // base.tokens.numel())
    for first in range(0, copies, size):
        yield slice(first, min(first + size, copies))


def tokens_at_once(device: torch.device) -> int:
    """Of `TOKENS_AT_ONCE`, for a device."""
    return TOKENS_AT_ONCE.get(device.type, 32 * TOKENS_AT_ONCE["cpu"])


def _slopes(
    base: Base, metric: Metric, x: Float[Tensor, "row pos d_model"], layers: Sequence[int]
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


def _value_from(base: Base, metric: Metric, layer: int, neurons: Float[Tensor, "row pos neuron"]) -> Tensor:
    """The metric [row] with a layer's neurons replaced; rows are copies of all pairs."""
    copies = len(neurons) // len(base.tokens)
    x, *written = (part.repeat(copies, 1, 1) for part in (base.streams[layer], *base.written[: layer + 1]))
    return _from_block(base, metric, layer, x, written, [(NEURON.hook_name(layer), lambda x, hook: neurons)])


def _from_block(
    base: Base, metric: Metric, first: int, x: Tensor, written: list[Tensor], hooks: list[Any]
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


def _sight(base: Base, copies: int) -> Sight:
    """What whole rows see."""
    model, places = base.model, torch.arange(base.tokens.shape[1], device=base.tokens.device)[None]
    mask = model._mask(base.tokens, base.attention_mask, None)
    if mask is not None and len(mask) > 1:
        mask = mask.repeat(copies, 1, 1, 1)
    sight = Sight(places, places, mask, base.causal, in_order=True)
    if model.position_bias is not None:
        sight.bias = model.position_bias(sight.distance, base.streams[0])
    return sight

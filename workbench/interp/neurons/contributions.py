"""What each neuron writes for the readout: direct logit attribution of single neurons.

Neuron i at position t adds `a_i (W_out[i] * gain) . u / scale` to the quantity u reads, with all that lies
between frozen (`workbench.interp.direct.paths`); `W_out` is centred where the norm centres. Over the neurons
of an MLP it sums to what the MLP, but for its bias, adds (Elhage et al. 2021; see `interp.direct.pair`).
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError
from workbench.interp.direct.readout import directions
from workbench.interp.direct.writers import Written, written
from workbench.interp.neurons.paths import mlp_paths
from workbench.interp.patching.metrics import LogitDifference, LogProb, Metric, SentenceLogProb
from workbench.interp.patching.pair_groups import SomePairs


@torch.no_grad()
def contributions(
    model: Any,
    tokens: Int[Tensor, "pair pos"],
    metric: Metric,
    change: Mapping[int, Float[Tensor, "pair pos neuron"]],
) -> dict[int, Float[Tensor, "pair pos neuron"]]:
    """Each neuron's direct part of the metric; only positions that the metric reads have one.

    Args:
        model: a `HookedTransformer` in eval mode.
        tokens: of the run.
        metric: a logit difference, or log-probabilities, which count from the uniform guess on.
        change: by layer, what is written with: activations, or their distance from a baseline.

    Raises:
        InputError: another metric.
    """
    rows, places, targets = _readings(metric, tokens)
    parts = written(model, tokens, rows, places)
    found = {layer: torch.zeros_like(x, dtype=torch.float64) for layer, x in change.items()}
    for layer, path in mlp_paths(model, parts.kept, _directions(model, metric, parts, targets)):
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


def _directions(model: Any, metric: Metric, parts: Written, targets: Tensor) -> Float[Tensor, "read width"]:
    metric, some = _whole(metric, len(parts.final))
    if isinstance(metric, LogitDifference):
        weight = model.readout_weight.detach().double()
        return weight[targets] - weight[metric.wrong[some].to(weight.device)]
    return directions(model, parts.final, targets)[0]

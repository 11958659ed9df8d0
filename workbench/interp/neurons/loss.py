"""What every neuron is worth for the loss, estimated: one backward pass instead of a model for each.

A gate moves each neuron towards its mean. The loss that closing it would cost is the slope at the gate
(Molchanov et al. 2017, arXiv:1611.06440) and half its curvature, for which the mean square of the stories'
slopes stands (Fisher pruning: Theis et al. 2018, arXiv:1801.05787); in a trained model the slope alone says
little, because training made it small. `ablation_effect` with `how="mean"` is the truth, a neuron at a time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.evals.scoring import opened, ready
from workbench.interp.neurons.rows import neuron_layers
from workbench.interp.patching.sites import SITES
from workbench.interp.texts import refuse_unscored, row_nats, text_batches


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

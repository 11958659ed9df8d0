"""Attribution patching: every patch of a sweep at once, to first order.

The effect of putting a donor's activation a' in place of a is about grad(metric) . (a' - a), so one forward
and one backward pass stand for the whole sweep (Nanda 2023; Syed et al. 2023, arXiv:2310.10348). With `steps`
the gradient is averaged while the embeddings go from this run's to the donor's, which mends saturated
gradients (integrated gradients as in EAP-IG: Hanna et al. 2024, arXiv:2403.17806).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.scoring import ready
from workbench.interp.metrics import Metric
from workbench.interp.patch_result import PatchResult
from workbench.interp.patching import Direction, plan, sweep_result
from workbench.interp.prompts import choose_metric, labels, prompts
from workbench.interp.resume import Cells
from workbench.interp.sites import Site, find_site, layers_with


def attribution_patch(
    model: Any,
    clean: Any,
    corrupted: Any,
    *,
    right: Any = None,
    wrong: Any = None,
    metric: Metric | Callable[[Tensor], Tensor] | None = None,
    site: str = "z",
    by_position: bool = True,
    layers: Sequence[int] | None = None,
    direction: Direction = "denoise",
    steps: int = 0,
) -> PatchResult:
    """The sweep of `workbench.interp.patching.patch`, estimated from gradients.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: as in `patch`, as are all others that it has.
        steps: 0 takes the gradient in the run that is patched; n takes the mean of n gradients on the way
            from it to the donor's embeddings.

    Returns:
        A `PatchResult` whose effects are the estimates.

    Raises:
        InputError: as `patch`, or a negative number of steps.
    """
    chosen = find_site(site)
    if steps < 0:
        raise InputError(f"steps must be 0 for the plain gradient, or more; found {steps}.")
    with ready(model) as network, torch.enable_grad():
        first, second, mask = prompts(network, clean, corrupted)
        metric = choose_metric(network, metric, right, wrong, first, mask)
        into, other = (second, first) if direction == "denoise" else (first, second)
        run = _Run(network, chosen, metric, mask)
        mine, theirs = run.keep(into), run.keep(other)
        gradients = run.gradients(mine, theirs, into, steps)
    cells = plan(network.config, chosen, into.shape[1], by_position, None, layers, None)
    estimates = {
        layer: _collapse(gradients[layer] * (theirs.sites[layer] - mine.sites[layer]), chosen, by_position)
        for layer in set(cells.layer.tolist())
    }
    ends = [one.value.double().cpu().numpy() for one in (mine, theirs)]
    per_pair = _table(estimates, cells) + ends[0]
    return sweep_result(chosen, cells, metric, per_pair, ends[0], ends[1], labels(model, into), direction)


class _Kept:
    """What a run leaves: embeddings, the site's activations by layer, and the metric."""

    def __init__(self, embedded: Tensor, sites: dict[int, Tensor], value: Tensor) -> None:
        self.embedded, self.sites, self.value = embedded, sites, value.detach()


class _Run:
    def __init__(self, model: Any, site: Site, metric: Metric, mask: Tensor | None) -> None:
        self.model, self.site, self.metric, self.mask = model, site, metric, mask
        self.layers = layers_with(model.config, site)

    def _forward(self, tokens: Tensor, embedded: Tensor | None) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
        """The metric, the embedded tokens (or those put in their place), and the site's activations."""
        kept: dict[str, Tensor] = {}

        def keep(x: Tensor, hook: Any) -> None:
            kept[hook.name] = x

        def replace(x: Tensor, hook: Any) -> Tensor:
            kept[hook.name] = x if embedded is None else embedded
            return kept[hook.name]

        entry = "blocks.0.hook_resid_pre"
        names = {self.site.hook_name(layer): layer for layer in self.layers}
        hooks = [(entry, replace), *((name, keep) for name in names if name != entry)]
        with self.model.hooks(fwd_hooks=hooks):
            stream = self.model.stream(tokens, attention_mask=self.mask)
        value = self.metric.of_stream(self.model, stream)
        return value, kept[entry], {layer: kept[name] for name, layer in names.items()}

    def keep(self, tokens: Tensor) -> _Kept:
        """A run without gradients."""
        with torch.no_grad():
            value, embedded, sites = self._forward(tokens, None)
        return _Kept(embedded, sites, value)

    def gradients(self, mine: _Kept, theirs: _Kept, tokens: Tensor, steps: int) -> dict[int, Tensor]:
        """The metric's gradient at each layer's activation, averaged over the steps."""
        shares = [0.0] if steps == 0 else [(step + 0.5) / steps for step in range(steps)]
        total: dict[int, Tensor] = {}
        for share in shares:
            embedded = torch.lerp(mine.embedded, theirs.embedded, share).requires_grad_()
            value, _, sites = self._forward(tokens, embedded)
            found = torch.autograd.grad(
                value.sum(), [sites[layer] for layer in self.layers], allow_unused=True
            )
            for layer, gradient in zip(self.layers, found, strict=True):
                gradient = torch.zeros_like(sites[layer]) if gradient is None else gradient
                total[layer] = total.get(layer, torch.zeros_like(gradient)) + gradient / len(shares)
        return total


def _collapse(product: Tensor, site: Site, by_position: bool) -> Float[Tensor, "pair pos unit"]:
    """Summed over all axes but pair, position (1 if all together) and unit (1 if there is none)."""
    if site.is_pattern:
        summed = product.sum(-1).transpose(1, 2)
    elif site.unit in ("head", "kv_head"):
        summed = product.sum(-1)
    elif site.unit == "neuron":
        summed = product
    else:
        summed = product.sum(-1, keepdim=True)
    return summed if by_position else summed.sum(1, keepdim=True)


def _table(estimates: dict[int, Tensor], cells: Cells) -> Float[np.ndarray, "cell pair"]:
    pairs = len(next(iter(estimates.values())))
    found = np.empty((len(cells), pairs))
    for layer, estimate in estimates.items():
        here = np.flatnonzero(cells.layer == layer)
        pos, unit = np.maximum(cells.pos[here], 0), np.maximum(cells.unit[here], 0)
        found[here] = estimate.detach().double().cpu().numpy()[:, pos, unit].T
    return found

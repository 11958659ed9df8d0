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
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError, shown
from workbench.evals.scoring import ready
from workbench.interp.patching.metric_choice import choose_metric
from workbench.interp.patching.metrics import Metric
from workbench.interp.patching.prompts import labels, prompts
from workbench.interp.patching.result import PatchResult
from workbench.interp.patching.resume import Cells
from workbench.interp.patching.sites import Site, find_site, layers_with
from workbench.interp.patching.sweep import Direction, plan, sweep_result

MOST_STEPS = 1000


def attribution_patch(
    model: Any,
    clean: Any,
    corrupted: Any,
    *,
    right: Any = None,
    wrong: Any = None,
    metric: Metric | Callable[[Tensor], Tensor] | str | None = None,
    site: str = "z",
    by_position: bool = True,
    layers: Sequence[int] | None = None,
    direction: Direction = "denoise",
    steps: int = 0,
) -> PatchResult:
    """The sweep of `workbench.interp.patching.sweep.patch`, estimated from gradients.

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
    with ready(model) as network:
        first, second, mask = prompts(network, clean, corrupted)
        into, other = (second, first) if direction == "denoise" else (first, second)
        metric = choose_metric(network, metric, right, wrong, into, mask, (first, mask))
        names = {layer: chosen.hook_name(layer) for layer in layers_with(network.config, chosen)}
        run = GradientRun(network, metric, mask, list(names.values()))
        (value, mine), (value_there, theirs) = run.keep(into), run.keep(other)
        gradients = run.gradients(into, mine[run.entry], theirs[run.entry], steps)
    cells = plan(network.config, chosen, into.shape[1], by_position, None, layers, None)
    estimates = {
        layer: _collapse(gradients[name] * (theirs[name] - mine[name]), chosen, by_position)
        for layer, name in names.items()
    }
    ends = [one.double().cpu().numpy() for one in (value, value_there)]
    per_pair = _table(estimates, cells) + ends[0]
    return sweep_result(chosen, cells, metric, per_pair, ends[0], ends[1], labels(model, into), direction)


class GradientRun:
    """Runs of which activations and the metric's gradients there are wanted.

    Args:
        model: a `HookedTransformer` in eval mode.
        metric: what is differentiated.
        mask: 1 at tokens, where some row is padded.
        names: hook points.
    """

    def __init__(self, model: Any, metric: Metric, mask: Tensor | None, names: Sequence[str]) -> None:
        self.model, self.metric, self.mask, self.names = model, metric, mask, tuple(names)
        self.entry = "hook_full_embed" if "hook_full_embed" in model.hook_dict else "hook_embed"

    def _forward(self, tokens: Tensor, embedded: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The metric, and activations by hook name, the embedding's among them."""
        kept: dict[str, Tensor] = {}

        def keep(x: Tensor, hook: Any) -> Tensor:
            x = x.clone()  # what else reads x has no part in it
            kept[hook.name] = x if embedded is None or hook.name != self.entry else embedded
            return kept[hook.name]

        names = dict.fromkeys((self.entry, *self.names))
        with self.model.hooks(fwd_hooks=[(name, keep) for name in names]):
            stream = self.model.stream(tokens, attention_mask=self.mask)
        return self.metric.of_stream(self.model, stream), kept

    @torch.no_grad()
    def keep(self, tokens: Int[Tensor, "pair pos"]) -> tuple[Float[Tensor, " pair"], dict[str, Tensor]]:
        """The metric and the activations of a plain run."""
        return self._forward(tokens)

    def gradients(
        self, tokens: Int[Tensor, "pair pos"], mine: Tensor, theirs: Tensor, steps: int
    ) -> dict[str, Tensor]:
        """The metric's gradient at each hook point: in the run itself, or the mean over steps of the way.

        Args:
            tokens: of the run.
            mine: its embeddings, as `keep` gave them under the name of `entry`.
            theirs: the embeddings at the end of the way.
            steps: 0 for the run itself.

        Raises:
            InputError: a negative number of steps, or more than 1,000.
        """
        if not 0 <= steps <= MOST_STEPS:
            raise InputError(
                f"steps must be 0 for the plain gradient, or up to {MOST_STEPS:,}; found {shown(steps)}."
            )
        shares = [0.0] if steps == 0 else [(step + 0.5) / steps for step in range(steps)]
        total: dict[str, Tensor] = {}
        for share in shares:
            embedded = torch.lerp(mine, theirs, share).requires_grad_()
            with torch.enable_grad():
                value, kept = self._forward(tokens, embedded)
                points = [kept[name] for name in self.names]
                found = torch.autograd.grad(value.sum(), points, allow_unused=True)
            for name, gradient in zip(self.names, found, strict=True):
                gradient = torch.zeros_like(kept[name]) if gradient is None else gradient / len(shares)
                total[name] = gradient if name not in total else total[name].add_(gradient)
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
    for layer in set(cells.layer.tolist()):
        estimate, here = estimates[layer], np.flatnonzero(cells.layer == layer)
        pos, unit = np.maximum(cells.pos[here], 0), np.maximum(cells.unit[here], 0)
        found[here] = estimate.detach().double().cpu().numpy()[:, pos, unit].T
    return found

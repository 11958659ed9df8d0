"""Edge attribution patching: every path between two components at once, to first order.

Syed et al. 2023 (EAP, arXiv:2310.10348): the metric's gradient at what a reader is given, times the change of
what it is given when one writer alone writes what it wrote in the other run. With `steps` the gradient is
averaged on the way from one run's embeddings to the other's (EAP-IG: Hanna et al. 2024, arXiv:2403.17806).
In a pre-norm model that change is the writer's own; where a norm lies between writer and reader, it is what
the norm makes of it. `workbench.interp.patching.paths` gives the exact effects of the same edges.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.evals.scoring import ready
from workbench.interp.direct.component import Component
from workbench.interp.patching.attribution import GradientRun
from workbench.interp.patching.base_run import Base
from workbench.interp.patching.direct_paths import needed, walk
from workbench.interp.patching.metric_choice import choose_metric
from workbench.interp.patching.metrics import Metric
from workbench.interp.patching.path_ends import Receiver, all_receivers, find_senders, reaches
from workbench.interp.patching.prompts import prompts
from workbench.interp.patching.resume import TOKENS_PER_BATCH
from workbench.interp.patching.sweep import Direction

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class EdgeAttribution:
    """The estimated effect of every edge and pair; NaN where there is no edge."""

    senders: tuple[Component, ...]
    receivers: tuple[Receiver, ...]
    direction: str
    metric: str
    steps: int
    per_pair: Float[np.ndarray, "receiver sender pair"]
    """In the metric's unit."""
    base: Float[np.ndarray, " pair"]
    """The metric of the run that would be patched."""
    other: Float[np.ndarray, " pair"]
    """The metric of the other run."""

    axes = ("receiver", "sender")
    """Names of the axes of `score`."""

    @property
    def score(self) -> Float[np.ndarray, "receiver sender"]:
        """Mean over pairs."""
        return self.per_pair.mean(-1)

    def to_frame(self) -> "pd.DataFrame":
        """One row an edge: sender, receiver, score, standard error over pairs."""
        import pandas as pd

        there = np.nonzero(~np.isnan(self.score))
        scores = self.per_pair[there]
        count = scores.shape[1]
        return pd.DataFrame(
            {
                "sender": np.array([one.label for one in self.senders], dtype=object)[there[1]],
                "receiver": np.array([one.label for one in self.receivers], dtype=object)[there[0]],
                "score": scores.mean(1),
                "error": scores.std(1, ddof=1) / count**0.5 if count > 1 else np.nan,
            }
        )

    def top(self, count: int = 20) -> "pd.DataFrame":
        """The edges that move the metric most, either way, the strongest first."""
        frame = self.to_frame()
        order = np.argsort(-frame["score"].abs().to_numpy(), kind="stable")[:count]
        return frame.iloc[order].reset_index(drop=True)

    def plot(self, ax: Any = None, count: int = 25) -> Any:
        """The strongest edges as a graph, the embedding below and the logits above; needs matplotlib.

        Args:
            ax: matplotlib axes; new ones if not set.
            count: how many edges.

        Returns:
            The axes.
        """
        from workbench.plots.edges import plot_edges

        return plot_edges(self, ax, count)


@torch.no_grad()
def edge_attribution(
    model: Any,
    clean: Any,
    corrupted: Any,
    *,
    right: Any = None,
    wrong: Any = None,
    metric: Metric | Callable[[Tensor], Tensor] | str | None = None,
    direction: Direction = "denoise",
    steps: int = 0,
) -> EdgeAttribution:
    """Score the edges from the embedding, each head and each MLP to each later head's q, k and v, each MLP
    and the logits, all positions together.

    The gradients of all readers' inputs are held at once, 3 n_heads + 1 residual streams a block.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: as in `workbench.interp.patching.sweep.patch`, as are corrupted, right, wrong, metric and
            direction.
        steps: 0 takes the gradient in the run that is patched; n takes the mean of n gradients on the way
            from it to the other run's embeddings.

    Raises:
        InputError: as `patch`, or a negative number of steps.
    """
    with ready(model) as network:
        config = network.config
        first, second, mask = prompts(network, clean, corrupted)
        into, other = (second, first) if direction == "denoise" else (first, second)
        metric = choose_metric(network, metric, right, wrong, into, mask, (first, mask))
        run = GradientRun(network, metric, mask, _inputs(network))
        embedded = [run.keep(tokens)[1][run.entry] for tokens in (into, other)]
        gradients = run.gradients(into, embedded[0], embedded[1], steps)
        base, donor = (Base(network, tokens, mask, needed(config)) for tokens in (into, other))
        ends = [metric.of_stream(network, one.streams[-1]).double().cpu().numpy() for one in (base, donor)]
        senders, receivers = find_senders(config), all_receivers(config)
        scores = _scores(base, donor, senders, receivers, gradients)
    return EdgeAttribution(senders, receivers, direction, metric.name, steps, scores, ends[0], ends[1])


def _input(model: Any, receiver: Receiver) -> str:
    """The hook point of what a receiver reads."""
    if receiver.kind == "logits":
        post = model.config.norm_place == "post"
        return f"blocks.{receiver.layer - 1}.hook_{'normalized_' if post else ''}resid_post"
    name = f"blocks.{receiver.layer}."
    return name + ("hook_mlp_in" if receiver.kind == "mlp" else f"attn.hook_{receiver.kind}_input")


def _inputs(model: Any) -> list[str]:
    return list(dict.fromkeys(_input(model, one) for one in all_receivers(model.config)))


def _scores(
    base: Base,
    donor: Base,
    senders: tuple[Component, ...],
    receivers: tuple[Receiver, ...],
    gradients: dict[str, Tensor],
) -> Float[np.ndarray, "receiver sender pair"]:
    model, (pairs, length) = base.model, base.tokens.shape
    found = np.full((len(receivers), len(senders), pairs), np.nan)
    size = max(1, TOKENS_PER_BATCH.get(base.tokens.device.type, 32 * 8192) // (pairs * length))
    for start in range(0, len(senders), size):
        chunk = senders[start : start + size]
        for place, x in walk(base, donor, [None, *chunk], length):
            streams = x.unflatten(0, (-1, pairs))
            change = streams[1:] - streams[:1]  # what nobody's change reaches is 0 to the bit
            for index, receiver in enumerate(receivers):
                if receiver.place != place:
                    continue
                gradient = gradients[_input(model, receiver)]
                gradient = gradient[:, :, receiver.head] if receiver.kind in "qkv" else gradient
                here = torch.einsum("npld,pld->np", change, gradient).double().cpu().numpy()
                there = [i for i, sender in enumerate(chunk) if reaches(model.config, sender, receiver)]
                found[index, [start + i for i in there]] = here[there]
    return found

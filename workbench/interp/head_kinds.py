"""Distance-based and semantic heads, as the TinyStories paper distinguishes them (Eldan & Li 2023,
arXiv:2305.07759, section 5), but as numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.console import OnProgress, progress_bar
from workbench.errors import InputError
from workbench.evals.scoring import ready
from workbench.interp.components import find_site, layers_with
from workbench.interp.texts import untrained_copy
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model
from workbench.stats import bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from workbench.model.transformer import HookedTransformer

# A head carries information where its attention A is not uniform over the visible keys, U: KL(A || U) nats a
# query. Two simple rules are fitted on some sequences, and the part of the KL that they explain is measured
# on others:
#
# - distance: attention is a function of the distance between query and key;
# - token: attention is a function of the key's token.
#
# A rule's weight for a distance (or a token) is the attention it receives relative to uniform attention; the
# rule's gain is the mean of log P(k | q) - log U(k | q) under A. Both are 0 for uniform attention, the gain
# never exceeds the head's KL, and it is negative where the rule misleads. What distance does not explain is
# semantic: it depends on what the tokens are, and beyond the key's token on the query.

LEAST_NATS = 0.1
"""Minimum KL(A || U), nats a query, for a head to have a kind."""
PRIOR = 1.0
"""Uniform queries added to the counts of each distance and token."""


@dataclass(frozen=True, eq=False, repr=False)
class HeadKinds(Result):
    """The divergence of each head from uniform attention and the gain of two rules; nats a query."""

    layers: Int[np.ndarray, " layer"]
    total: Float[np.ndarray, "sequence layer head"]
    """KL(A || U), the mean over the queries of each held-out sequence."""
    distance: Float[np.ndarray, "sequence layer head"]
    """The gain of the rule by distance."""
    token: Float[np.ndarray, "sequence layer head"]
    """The gain of the rule by the key's token."""
    untrained: Float[np.ndarray, "measure layer head"]
    """Means of the three for an untrained copy; NaN if there was none."""
    seed: int = 0

    axes = ("layer", "head")
    measures = ("total", "distance", "token")

    def of(self, measure: str) -> Float[np.ndarray, "layer head"]:
        """Return the mean of `total`, `distance` or `token` over sequences."""
        return getattr(self, measure).mean(0)

    @property
    def kinds(self) -> np.ndarray:
        """The kind of each head, [layer head]: `distance` if distance alone explains more than half of
        KL(A || U), `semantic` if less than a quarter, else `mixed`; `uniform` if KL(A || U) is under 0.1 nats
        or no more than an untrained head's."""
        total, distance = self.of("total"), self.of("distance")
        untrained = np.nan_to_num(self.untrained[0], nan=0.0).max(-1, keepdims=True)
        kinds = np.full(total.shape, "mixed", dtype=object)
        kinds[distance > total / 2] = "distance"
        kinds[distance < total / 4] = "semantic"
        kinds[total < np.fmax(LEAST_NATS, untrained)] = "uniform"
        return kinds

    def to_frame(self) -> "pd.DataFrame":
        """Return one row a head and measure: layer, head, kind, measure, nats, low, high, untrained."""
        import pandas as pd

        kinds, rows = self.kinds, []
        for index, name in enumerate(self.measures):
            values = getattr(self, name)
            for at, head in np.ndindex(values.shape[1:]):
                mean, low, high = bootstrap_mean(values[:, at, head], seed=self.seed)
                rows.append(
                    {
                        "layer": int(self.layers[at]), "head": head, "kind": kinds[at, head], "measure": name,
                        "nats": mean, "low": low, "high": high,
                        "untrained": float(self.untrained[index, at, head]),
                    }
                )  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw each head's KL from uniform attention and the gains of the two rules; return the figure."""
        from workbench.plots.heads import plot_head_kinds

        return plot_head_kinds(self.to_frame(), ax)


@torch.no_grad()
def head_kinds(
    model: ModelLike,
    sequences: Sequence[Sequence[int]],
    *,
    longest: int = 128,
    untrained: bool = True,
    seed: int = 0,
    progress: bool | OnProgress | None = None,
) -> HeadKinds:
    """Split the divergence of each head from uniform attention into distance, key's token and the rest.

    Rules are fitted on every other sequence and evaluated on those between.

    Args:
        model: causal or masked.
        sequences: token ids, BOS included; two or more.
        longest: tokens of each sequence that are read at most.
        untrained: compare with an untrained copy; doubles the work.
        seed: of the intervals.
        progress: see `workbench.console.progress_bar`.

    Raises:
        InputError: no attention in the model, or fewer than two sequences.
    """
    model = as_model(model)
    layers = layers_with(model.config, find_site("pattern"))
    rows = [torch.as_tensor(row[:longest]) for row in sequences if len(row) > 1]
    if len(rows) < 2:
        raise InputError("two sequences of two tokens or more are needed: one to fit on, one to evaluate on.")
    rows = rows[: len(rows) // 2 * 2]
    gains: list[np.ndarray] = []
    with ready(model) as network, progress_bar(progress, "Head kinds") as on_progress:
        networks = [network, untrained_copy(network)] if untrained else [network]
        done, count = 0, len(rows) * len(networks)
        for one in networks:
            rules = _Rules(one, layers, max(map(len, rows)))
            evaluated = []
            for fitting in (True, False):
                for row in rows[0 if fitting else 1 :: 2]:
                    gain = rules.read(row.to(one.device), fitting)
                    if gain is not None:
                        evaluated.append(gain)
                    done += 1
                    on_progress(done / count, f"{done:,} of {count:,} sequences")
            gains.append(np.stack(evaluated))
    copy = gains[1].mean(0) if untrained else np.full_like(gains[0][0], np.nan)
    total, distance, token = np.moveaxis(gains[0], 1, 0)
    return HeadKinds(np.array(layers), total, distance, token, copy, seed)


class _Rules:
    """Attention by distance and by key's token, summed over queries, next to that of uniform attention."""

    def __init__(self, model: "HookedTransformer", layers: Sequence[int], longest: int) -> None:
        self.model, self.layers, self.longest = model, layers, longest
        sizes = {"distance": 2 * longest + 1, "token": model.config.d_vocab}

        def prior(*shape: int) -> Tensor:
            return torch.full(shape, PRIOR, dtype=torch.float64, device=model.device)

        self.attended = {name: prior(len(layers), model.config.n_heads, size) for name, size in sizes.items()}
        self.uniform = {name: prior(len(layers), size) for name, size in sizes.items()}

    def read(self, row: Int[Tensor, " pos"], fitting: bool) -> Float[np.ndarray, "measure layer head"] | None:
        """Fit the rules to one sequence, or return the KL and the gains on it."""
        length = len(row)
        place = torch.arange(length, device=row.device)
        ids = {
            "distance": (place[:, None] - place + self.longest).flatten(),
            "token": row.expand(length, length).flatten(),
        }
        gains: list[Tensor] = []
        allowed = torch.empty(0)

        def mask(scores: Tensor, hook: Any) -> None:
            nonlocal allowed
            allowed = scores[0, 0] > -math.inf

        def read(pattern: Tensor, hook: Any) -> None:
            at = self.layers.index(int(hook.name.split(".")[1]))
            attention = pattern[0].double()
            uniform = allowed.double() / allowed.sum(-1, keepdim=True)
            if fitting:
                for name, index in ids.items():
                    self.attended[name][at].index_add_(1, index, attention.flatten(1))
                    self.uniform[name][at].index_add_(0, index, uniform.flatten())
                return
            logs = [torch.where(attention > 0, (attention / uniform).log(), 0.0)]
            for name, index in ids.items():
                ratio = self.attended[name][at] / self.uniform[name][at]
                weight = ratio[:, index].view_as(attention) * uniform
                rule = weight / weight.sum(-1, keepdim=True)
                logs.append(torch.where(allowed, (rule / uniform).log(), 0.0))
            # The first query of a causal model sees one key only: it has no information and is not counted.
            gains.append(torch.stack([(attention * log).sum((1, 2)) / (length - 1) for log in logs]))

        hooks: Any = [
            (f"blocks.{layer}.attn.hook_{name}", hook)
            for layer in self.layers
            for name, hook in (("attn_scores", mask), ("pattern", read))
        ]
        with self.model.hooks(fwd_hooks=hooks):
            self.model.stream(row[None])
        return None if fitting else torch.stack(gains, 1).cpu().numpy()

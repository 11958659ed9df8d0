"""Distance-based against semantic heads, as the TinyStories paper tells them apart (Eldan & Li 2023,
arXiv:2305.07759, section 5), but in numbers.

A head says something where its attention A is not uniform over the keys it may see, U: KL(A || U) nats a
query. How much of that two simple rules would say too is measured on other stories than they were counted on:

- distance: attention is a function of how far back the key is;
- token: attention is a function of which token the key is.

A rule's weight for a distance (or a token) is the attention that goes there over what uniform attention gives
it; the rule's gain is the mean of log P(k | q) - log U(k | q) under A. Both are 0 for uniform attention, the
rule's gain never exceeds the head's KL, and below 0 the rule misleads. What distance does not explain is
semantic: it hangs on what the tokens are, and beyond the key's token on what the query asks for.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.scoring import opened, ready
from workbench.interp.paired import mean_change
from workbench.interp.patching.sites import find_site, layers_with
from workbench.interp.untrained import untrained_copy

if TYPE_CHECKING:
    import pandas as pd

LEAST = 0.1
"""Nats a query that a head must be away from uniform attention to be called anything."""
KINDS = ("distance", "semantic", "mixed", "uniform")
PRIOR = 1.0
"""Uniform queries that stand for each distance and token before counting."""


@dataclasses.dataclass(frozen=True)
class HeadKinds:
    """How far each head is from uniform attention, and how much of that two rules explain; nats a query."""

    layers: Int[np.ndarray, " layer"]
    total: Float[np.ndarray, "sequence layer head"]
    """KL(A || U), the mean over the queries of each sequence that was held out."""
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
        """The mean of `total`, `distance` or `token` over sequences."""
        return getattr(self, measure).mean(0)

    @property
    def kinds(self) -> np.ndarray:
        """By [layer head]: `distance` if distance alone says more than half of KL(A || U), `semantic` if it
        says less than a quarter, else `mixed`; `uniform` if KL(A || U) is under 0.1 nats or no more than an
        untrained head's."""
        total, distance = self.of("total"), self.of("distance")
        copy = np.nan_to_num(self.untrained[0], nan=0.0).max(-1, keepdims=True)
        found = np.full(total.shape, "mixed", dtype=object)
        found[distance > total / 2] = "distance"
        found[distance < total / 4] = "semantic"
        found[total < np.fmax(LEAST, copy)] = "uniform"
        return found

    def to_frame(self) -> "pd.DataFrame":
        """One row a head and measure: layer, head, kind, measure, nats, low, high, untrained."""
        import pandas as pd

        kinds, rows = self.kinds, []
        for index, name in enumerate(self.measures):
            values = getattr(self, name)
            for at, head in np.ndindex(values.shape[1:]):
                change = mean_change(values[:, at, head], seed=self.seed)
                rows.append(
                    {
                        "layer": int(self.layers[at]), "head": head, "kind": kinds[at, head], "measure": name,
                        "nats": change.mean, "low": change.low, "high": change.high,
                        "untrained": float(self.untrained[index, at, head]),
                    }
                )  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self, ax: Any = None) -> Any:
        """A bar for each head: its KL and the two rules' gains; needs matplotlib. Returns the axes."""
        from workbench.plots.head_kinds import plot_kinds

        return plot_kinds(self, ax)


@torch.no_grad()
def head_kinds(
    model: Any,
    sequences: Sequence[Sequence[int]],
    *,
    longest: int = 128,
    untrained: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> HeadKinds:
    """Split what each head's attention says into distance, key's token and the rest.

    Rules are counted on every other sequence and judged on those between.

    Args:
        model: a run or a `HookedTransformer`, causal or masked.
        sequences: token ids, BOS included; two or more.
        longest: only the first so many tokens of each.
        untrained: an untrained copy beside it; twice the work.
        seed: of the intervals.
        progress: called with the sequences read and in all.

    Raises:
        InputError: no attention in the model, or fewer than two sequences.
    """
    network = opened(model)[1]
    layers = layers_with(network.config, find_site("pattern"))
    rows = [torch.as_tensor(row[:longest]) for row in sequences if len(row) > 1]
    if len(rows) < 2:
        raise InputError("two sequences of two tokens or more are needed: one to count on, one to judge on.")
    rows = rows[: len(rows) // 2 * 2]
    found, done = [], 0
    with ready(network) as network:
        for one in [network, *([untrained_copy(network)] if untrained else [])]:
            rules = _Rules(one, layers, max(map(len, rows)))
            gains = []
            for counting in (True, False):
                for row in rows[0 if counting else 1 :: 2]:
                    gains.append(rules.read(row.to(one.device), counting))
                    done += 1
                    if progress is not None:
                        progress(done, len(rows) * (1 + untrained))
            found.append(np.stack([one for one in gains if one is not None]))
    total, distance, token = np.moveaxis(found[0], 1, 0)
    copy = found[1].mean(0) if untrained else np.full_like(found[0][0], np.nan)
    return HeadKinds(np.array(layers), total, distance, token, copy, seed)


class _Rules:
    """Attention to each distance and each token, beside what uniform attention gives; float64."""

    def __init__(self, model: Any, layers: Sequence[int], longest: int) -> None:
        self.model, self.layers, self.longest = model, layers, longest
        shape, heads = (len(layers), model.config.n_heads), {"dtype": torch.float64, "device": model.device}
        self.distance = torch.full((*shape, 2 * longest + 1), PRIOR, **heads)
        self.token = torch.full((*shape, model.config.d_vocab), PRIOR, **heads)
        self.by_distance = torch.full((len(layers), 2 * longest + 1), PRIOR, **heads)
        self.by_token = torch.full((len(layers), model.config.d_vocab), PRIOR, **heads)

    def read(
        self, row: Int[Tensor, " pos"], counting: bool
    ) -> Float[np.ndarray, "measure layer head"] | None:
        """Count one sequence, or judge the rules on it."""
        length = len(row)
        place = torch.arange(length, device=row.device)
        far = (place[:, None] - place + self.longest).flatten()
        keys = row.expand(length, length).flatten()
        gains: list[Tensor] = []
        allowed = torch.empty(0)

        def mask(scores: Tensor, hook: Any) -> None:
            nonlocal allowed
            allowed = scores[0, 0] > -math.inf

        def look(pattern: Tensor, hook: Any) -> None:
            at = self.layers.index(int(hook.name.split(".")[1]))
            attention = pattern[0].double()
            uniform = allowed.double() / allowed.sum(-1, keepdim=True)
            if counting:
                for sums, base, ids in (
                    (self.distance, self.by_distance, far), (self.token, self.by_token, keys),
                ):  # fmt: skip
                    sums[at].index_add_(1, ids, attention.flatten(1))
                    base[at].index_add_(0, ids, uniform.flatten())
                return
            logs = [torch.where(attention > 0, (attention / uniform).log(), 0.0)]
            for sums, base, ids in (
                (self.distance, self.by_distance, far), (self.token, self.by_token, keys),
            ):  # fmt: skip
                weight = (sums[at] / base[at])[:, ids].view_as(attention) * uniform
                rule = weight / weight.sum(-1, keepdim=True)
                logs.append(torch.where(allowed, (rule / uniform).log(), 0.0))
            # The first token sees itself alone: nothing can be said there.
            gains.append(torch.stack([(attention * log).sum((1, 2)) / (length - 1) for log in logs]))

        hooks = [
            (f"blocks.{layer}.attn.hook_{name}", hook)
            for layer in self.layers
            for name, hook in (("attn_scores", mask), ("pattern", look))
        ]
        with self.model.hooks(fwd_hooks=hooks):
            self.model.stream(row[None])
        return None if counting else torch.stack(gains, 1).cpu().numpy()

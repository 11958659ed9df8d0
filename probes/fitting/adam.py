"""Adam (Kingma & Ba 2015) for many small networks at once: every parameter has a first axis `probe`.

Rows come in minibatches, the same for all probes, so that one batched product serves them all. The learning
rate falls to zero in a cosine. The best epoch on the rows held out is kept, probe by probe.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

Parameters = dict[str, Tensor]
Losses = Callable[[Parameters, Int[Tensor, " batch"]], Float[Tensor, "probe batch"]]
"""Parameters and row numbers -> loss of each row in each probe."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    epochs: int = 20
    batch: int = 1024
    rate: float = 3e-3
    steps: int = 400
    """At least so many steps, however few the rows."""
    seed: int = 0


def train(
    start: Mapping[str, Float[Tensor, "probe ..."]],
    losses: Losses,
    weight: Float[Tensor, "probe row"],
    held: Float[Tensor, "probe row"] | None = None,
    *,
    decay: Float[Tensor, " probe"],
    schedule: Schedule | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Parameters, Float[Tensor, " probe"]]:
    """Minimise each probe's mean weighted loss plus decay / 2 × the squares of parameters of two axes or
    more.

    Args:
        start: first values.
        losses: of rows.
        weight: of each row in each probe.
        held: rows whose mean loss chooses the epoch; the last epoch where a probe has none.
        decay: of each probe, beside the mean loss.
        schedule: epochs, rows a step, learning rate.
        progress: told epochs done, and all.

    Returns:
        Parameters, and each probe's mean loss on the rows held out (on all of its rows if none are).
    """
    schedule = schedule or Schedule()
    probes, rows = weight.shape
    parameters = {name: value.clone().requires_grad_(True) for name, value in start.items()}
    optimiser = torch.optim.Adam(list(parameters.values()), lr=schedule.rate, betas=(0.9, 0.98), eps=1e-8)
    random = torch.Generator().manual_seed(schedule.seed)
    share = weight * (rows / weight.sum(1, keepdim=True).clamp_min(1e-12))
    judged = weight if held is None else torch.where(held.sum(1, keepdim=True) > 0, held, weight)
    batch = min(schedule.batch, rows)
    batches = math.ceil(rows / batch)
    epochs = max(schedule.epochs, math.ceil(schedule.steps / batches))
    best = torch.full((probes,), float("inf"))
    kept = {name: value.detach().clone() for name, value in parameters.items()}
    check = max(1, epochs // 30)
    for epoch in range(epochs):
        order = torch.randperm(rows, generator=random)
        for at in range(batches):
            done = (epoch * batches + at) / (epochs * batches)
            optimiser.param_groups[0]["lr"] = schedule.rate * 0.5 * (1 + math.cos(math.pi * done))
            chosen = order[at * batch : (at + 1) * batch]
            each = (losses(parameters, chosen) * share[:, chosen]).mean(1)
            squares = torch.stack([(p.flatten(1) ** 2).sum(1) for p in parameters.values() if p.ndim > 2])
            optimiser.zero_grad()
            (each + 0.5 * decay * squares.sum(0)).sum().backward()
            optimiser.step()
        if (epoch + 1) % check == 0 or epoch + 1 == epochs:
            cost = mean_losses(parameters, losses, judged)
            better = cost < best if held is not None else torch.ones(probes, dtype=torch.bool)
            best[better] = cost[better]
            for name, value in parameters.items():
                kept[name][better] = value.detach()[better]
        if progress is not None:
            progress(epoch + 1, epochs)
    return kept, best


@torch.no_grad()
def mean_losses(
    parameters: Parameters, losses: Losses, weight: Float[Tensor, "probe row"]
) -> Float[Tensor, " probe"]:
    """Weighted mean loss of each probe."""
    total = torch.zeros(len(weight))
    for rows in torch.arange(weight.shape[1]).split(4096):
        total += (losses(parameters, rows) * weight[:, rows]).sum(1)
    return total / weight.sum(1).clamp_min(1e-12)

"""Probes with one hidden layer, all at once: what a linear probe cannot read, a small network may.

`logits = relu(x W_in + b_in) W_out + b_out`, cross-entropy, weight decay; the epoch is chosen on rows held
out. With numbers as labels there is one output and the squared error.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.fitting.adam import Schedule, train
from workbench.errors import InputError

Features = Float[Tensor, "set row d"] | Sequence[Float[Tensor, "row d"]]


@dataclasses.dataclass(frozen=True)
class MLPProbes:
    """Fitted probes of one hidden layer."""

    W_in: Float[Tensor, "probe d hidden"]
    b_in: Float[Tensor, "probe hidden"]
    W_out: Float[Tensor, "probe hidden class"]
    b_out: Float[Tensor, "probe class"]
    which: Int[Tensor, " probe"]
    held: Float[Tensor, " probe"]
    """Mean loss of the rows that chose the epoch."""

    def __len__(self) -> int:
        return len(self.which)

    def logits(self, x: Features) -> Float[Tensor, "probe row class"]:
        """Of every probe; for numbers one column."""
        found = []
        for probe, number in enumerate(self.which.tolist()):
            hidden = F.relu(torch.addmm(self.b_in[probe], x[number].float(), self.W_in[probe]))
            found.append(torch.addmm(self.b_out[probe], hidden, self.W_out[probe]))
        return torch.stack(found)

    def predict(self, x: Features) -> Int[Tensor, "probe row"] | Float[Tensor, "probe row"]:
        """The likeliest class, or the number."""
        logits = self.logits(x)
        return logits[..., 0] if logits.shape[2] == 1 else logits.argmax(2)


def fit_mlp(
    x: Features,
    y: Int[Tensor, "probe row"] | Float[Tensor, "probe row"],
    which: Int[Tensor, " probe"],
    *,
    n_classes: int | None,
    hidden: int = 64,
    penalty: Float[Tensor, " probe"] | float | int = 1.0,
    weight: Float[Tensor, "probe row"] | Bool[Tensor, "probe row"] | None = None,
    held: Float[Tensor, "probe row"] | Bool[Tensor, "probe row"] | None = None,
    schedule: Schedule | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> MLPProbes:
    """Fit every probe.

    Args:
        x: feature sets, standardised.
        y: classes, or numbers if `n_classes` is None.
        which: the feature set each probe reads.
        n_classes: of all probes; None for numbers.
        hidden: width.
        penalty: λ / 2 × |W|² beside the sum over rows, as for linear probes.
        weight: of each row in each probe.
        held: rows that choose the epoch (the development split); none keeps the last one.
        schedule: epochs, rows a step, learning rate, seed.
        progress: told epochs done, and all.

    Raises:
        InputError: one class, labels outside the classes, a probe without rows.
    """
    probes, rows, d = len(which), x[0].shape[0], x[0].shape[1]
    weights = torch.ones(probes, rows) if weight is None else weight.float()
    refuse_labels(y, weights, n_classes)
    schedule = schedule or Schedule()
    outputs = 1 if n_classes is None else n_classes
    random = torch.Generator().manual_seed(schedule.seed)
    start = {
        "W_in": torch.randn(probes, d, hidden, generator=random) * (2 / d) ** 0.5,
        "b_in": torch.zeros(probes, hidden),
        "W_out": torch.randn(probes, hidden, outputs, generator=random) / hidden**0.5,
        "b_out": torch.zeros(probes, outputs),
    }

    def losses(now: dict[str, Tensor], chosen: Tensor) -> Tensor:
        seen = batch_of(x, which, chosen)
        inner = F.relu(torch.baddbmm(now["b_in"][:, None], seen, now["W_in"]))
        return row_losses(torch.baddbmm(now["b_out"][:, None], inner, now["W_out"]), y[:, chosen], n_classes)

    decay = torch.as_tensor(penalty).float().expand(probes) / weights.sum(1)
    kept, cost = train(
        start, losses, weights, None if held is None else held.float(),
        decay=decay, schedule=schedule, progress=progress,
    )  # fmt: skip
    return MLPProbes(kept["W_in"], kept["b_in"], kept["W_out"], kept["b_out"], which, cost)


def batch_of(
    x: Features, which: Int[Tensor, " probe"], rows: Int[Tensor, " batch"]
) -> Float[Tensor, "probe batch d"]:
    """Some rows of each probe's features; each set is read once."""
    sets = which.unique()
    seen = torch.stack([x[number][rows].float() for number in sets.tolist()])
    return seen[torch.searchsorted(sets, which)]


def row_losses(
    outputs: Float[Tensor, "probe batch out"], y: Tensor, n_classes: int | None
) -> Float[Tensor, "probe batch"]:
    """Cross-entropy, or squared error for numbers."""
    if n_classes is None:
        return (outputs[..., 0] - y) ** 2
    return F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)


def refuse_labels(y: Tensor, weight: Tensor, n_classes: int | None) -> None:
    """Raise InputError for labels that no probe can be fitted to."""
    if y.shape != weight.shape or not y.numel():
        raise InputError(f"labels have shape {tuple(y.shape)}, probes and rows {tuple(weight.shape)}.")
    if not bool((weight.sum(1) > 0).all()):
        raise InputError("a probe has no rows: all of its weights are 0.")
    if n_classes is None:
        if not bool(torch.isfinite(y).all()):
            raise InputError("a label is not a finite number; leave its row out.")
        return
    if n_classes < 2:
        raise InputError(f"the task has {n_classes} class; a probe needs two classes or more to tell apart.")
    if int(y.min()) < 0 or int(y.max()) >= n_classes:
        raise InputError(f"labels run from {int(y.min())} to {int(y.max())}; there are {n_classes} classes.")

"""Rank-limited bilinear probes for pairs of words, such as a dependent and its head (Hewitt & Liang 2019,
section 3.2).

`logits[k] = sum over r of (a U)[r] (b V)[r] M[r, k] + [a, b] L[:, k] + c[k]`: the product sees how the two
words fit each other, and its rank is all the room it has.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.fitting.adam import Schedule, train
from probes.fitting.mlp import batch_of, refuse_labels, row_losses
from workbench.errors import InputError

Features = Float[Tensor, "set row d"] | Sequence[Float[Tensor, "row d"]]


@dataclasses.dataclass(frozen=True)
class BilinearProbes:
    """Fitted probes on features `[a, b]`, the two words side by side."""

    U: Float[Tensor, "probe half rank"]
    V: Float[Tensor, "probe half rank"]
    M: Float[Tensor, "probe rank class"]
    L: Float[Tensor, "probe d class"]
    c: Float[Tensor, "probe class"]
    which: Int[Tensor, " probe"]
    held: Float[Tensor, " probe"]
    """Mean loss of the rows that chose the epoch."""

    def __len__(self) -> int:
        return len(self.which)

    def logits(self, x: Features) -> Float[Tensor, "probe row class"]:
        """Of every probe."""
        now = {"U": self.U, "V": self.V, "M": self.M, "L": self.L, "c": self.c}
        return torch.cat(
            [
                _logits({name: value[p : p + 1] for name, value in now.items()}, x[number].float()[None])
                for p, number in enumerate(self.which.tolist())
            ]
        )

    def predict(self, x: Features) -> Int[Tensor, "probe row"]:
        """The likeliest class."""
        return self.logits(x).argmax(2)


def fit_bilinear(
    x: Features,
    y: Int[Tensor, "probe row"],
    which: Int[Tensor, " probe"],
    *,
    n_classes: int,
    rank: int = 16,
    penalty: Float[Tensor, " probe"] | float | int = 1.0,
    weight: Float[Tensor, "probe row"] | Bool[Tensor, "probe row"] | None = None,
    held: Float[Tensor, "probe row"] | Bool[Tensor, "probe row"] | None = None,
    schedule: Schedule | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BilinearProbes:
    """Fit every probe; for the arguments see `probes.fitting.mlp.fit_mlp`.

    Args:
        rank: of the product.

    Raises:
        InputError: an odd number of features, a rank below 1, and what `fit_mlp` refuses.
    """
    probes, rows, d = len(which), x[0].shape[0], x[0].shape[1]
    if d % 2:
        raise InputError(f"a bilinear probe reads two words side by side; {d} features are no two halves.")
    if rank < 1:
        raise InputError(f"rank={rank}: at least 1.")
    weights = torch.ones(probes, rows) if weight is None else weight.float()
    refuse_labels(y, weights, n_classes)
    schedule = schedule or Schedule()
    random = torch.Generator().manual_seed(schedule.seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(probes, *shape, generator=random) / shape[0] ** 0.5

    start = {
        "U": drawn(d // 2, rank),
        "V": drawn(d // 2, rank),
        "M": drawn(rank, n_classes),
        "L": torch.zeros(probes, d, n_classes),
        "c": torch.zeros(probes, n_classes),
    }

    def losses(now: dict[str, Tensor], chosen: Tensor) -> Tensor:
        return row_losses(_logits(now, batch_of(x, which, chosen)), y[:, chosen], n_classes)

    decay = torch.as_tensor(penalty).float().expand(probes) / weights.sum(1)
    kept, cost = train(
        start, losses, weights, None if held is None else held.float(),
        decay=decay, schedule=schedule, progress=progress,
    )  # fmt: skip
    return BilinearProbes(**kept, which=which, held=cost)


def _logits(now: dict[str, Tensor], x: Float[Tensor, "probe row d"]) -> Float[Tensor, "probe row class"]:
    a, b = x.chunk(2, 2)
    together = (a @ now["U"]) * (b @ now["V"])
    return together @ now["M"] + torch.baddbmm(now["c"][:, None], x, now["L"])

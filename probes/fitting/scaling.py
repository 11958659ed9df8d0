"""Features on a common scale: mean 0 and deviation 1 on the rows a probe learns from."""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 16_384


@dataclasses.dataclass(frozen=True)
class Scaler:
    """`(x - mean) / deviation`, of one feature set. A feature that never changes is only centred."""

    mean: Float[Tensor, " d"]
    deviation: Float[Tensor, " d"]

    def __call__(self, x: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """In float32, or float64 where x is."""
        return (x.to(self.mean.dtype) - self.mean) / self.deviation


def fit_scaler(x: Float[Tensor, "row d"], rows: Int[Tensor, " seen"] | None = None) -> Scaler:
    """Mean and deviation, summed in float64 piece by piece.

    Args:
        x: features, also float16 ones on disk.
        rows: those that count; all if not set.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    count = len(x) if rows is None else len(rows)
    total = torch.zeros(x.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    shift = (
        x[0] if rows is None else x[int(rows[0])]
    ).double()  # near the mean, so that squares lose nothing
    for at in range(0, count, CHUNK):
        piece = x[at : at + CHUNK] if rows is None else x[rows[at : at + CHUNK]]
        piece = piece.double() - shift
        total += piece.sum(0)
        squares += (piece * piece).sum(0)
    mean = total / count
    deviation = (squares / count - mean * mean).clamp_min(0).sqrt()
    floor = 1e-6 * (deviation.max().clamp_min(1e-30))
    return Scaler((mean + shift).to(dtype), torch.where(deviation > floor, deviation, 1.0).to(dtype))

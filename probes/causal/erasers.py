"""Affine maps that take a subspace out of activations: a concept by LEACE (Belrose et al. 2023), or a
random one.

LEACE whitens, projects the concept's directions out, and turns back, so that no linear probe does better
than chance and the activations move as little as possible. The random subspace of equal rank is projected
out in the same whitened coordinates, where all directions are equally wide.
"""

import dataclasses
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError
from workbench.stats import derive

CORRELATION = 1e-6
"""Correlations of the concept with a whitened direction that are taken for rounding."""


@dataclasses.dataclass(frozen=True)
class Eraser:
    """`x - left @ right @ (x - mean)`."""

    left: Float[Tensor, "d rank"]
    right: Float[Tensor, "rank d"]
    mean: Float[Tensor, " d"]

    @property
    def rank(self) -> int:
        """Dimensions that are taken out."""
        return self.left.shape[1]

    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The activations without the subspace; in the type they came in, computed at least in float32."""
        y = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        taken = (y - self.mean.to(y)) @ self.right.T.to(y) @ self.left.T.to(y)
        return (y - taken).to(x.dtype)

    def moved(self, x: Float[Tensor, "row d"]) -> float:
        """Mean squared change of activations over their variance: what the erasure costs at its place."""
        x = x.double()
        return float(((self(x) - x) ** 2).sum() / ((x - x.mean(0)) ** 2).sum().clamp_min(1e-30))


def erase_concept(x: Float[Tensor, "row d"], y: Int[Tensor, " row"], n_classes: int) -> Eraser:
    """LEACE for classes: rank is the classes found minus one (or less where the classes' means need less).

    Args:
        x: activations; statistics are in float64.
        y: the concept.
        n_classes: labels run below it.

    Raises:
        InputError: one class only, fewer than two rows, concept-erasure is not installed.
    """
    found = torch.unique(y)
    if len(found) < 2:
        raise InputError("a concept of one class cannot be erased; give rows of two classes or more.")
    hot = torch.nn.functional.one_hot(y, n_classes)[:, found].double()
    return erase_numbers(x, hot)


def erase_numbers(x: Float[Tensor, "row d"], z: Float[Tensor, "row concept"]) -> Eraser:
    """LEACE for numbers, or for classes as columns of 0 and 1.

    The option that keeps the trace of the covariance from growing is off: it mixes LEACE's projection with
        one
    that does not erase the concept, and then a probe is better than chance again.

    Raises:
        InputError: fewer than two rows, values that are not finite, concept-erasure is not installed.
    """
    fitter = _need_leace()(
        x.shape[1],
        z.shape[1],
        dtype=torch.float64,
        constrain_cov_trace=False,
        shrinkage=False,
        svd_tol=CORRELATION,
    )
    if len(x) < 2 or not bool(torch.isfinite(x.sum(dtype=torch.float64))):
        raise InputError("activations to erase from must be finite and two rows or more.")
    for part, concept in zip(x.split(16_384), z.split(16_384), strict=True):
        fitter.update(part.double(), concept.double())
    made = fitter.eraser
    kept = made.proj_left.norm(dim=0) > 0
    return Eraser(made.proj_left[:, kept], made.proj_right[kept], made.bias)


def erase_random(x: Float[Tensor, "row d"], rank: int, seed: int) -> Eraser:
    """A random subspace of so many dimensions, drawn in whitened coordinates.

    Raises:
        InputError: a rank that the activations have not.
    """
    mean, values, axes = _spread(x)
    _refuse_rank(rank, len(values))
    random = torch.Generator().manual_seed(derive(seed, "random subspace"))
    drawn = torch.randn(len(values), rank, generator=random, dtype=torch.float64)
    u = torch.linalg.qr(drawn)[0]
    return Eraser(axes @ (values.sqrt()[:, None] * u), (u.T / values.sqrt()) @ axes.T, mean)


def dimensions(x: Float[Tensor, "row d"]) -> int:
    """Dimensions in which activations vary."""
    return len(_spread(x)[1])


def erase_all(x: Float[Tensor, "row d"]) -> Eraser:
    """Everything: each activation becomes the mean. The positive control of the intervention itself."""
    mean = x.double().mean(0)
    eye = torch.eye(x.shape[1], dtype=torch.float64)
    return Eraser(eye, eye, mean)


def _spread(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, and variances above rounding with their axes."""
    mean = sum((part.double().sum(0) for part in x.split(16_384)), torch.zeros(())) / len(x)
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for part in x.split(16_384):
        centred = part.double() - mean
        covariance.addmm_(centred.T, centred)
    values, axes = torch.linalg.eigh(covariance / len(x))
    kept = values > values[-1] * len(values) * torch.finfo(torch.float64).eps
    return mean, values[kept], axes[:, kept]


def _refuse_rank(rank: int, most: int) -> None:
    if not 1 <= rank <= most:
        raise InputError(f"a subspace of rank {rank}: the activations have 1 to {most} dimensions.")


def _need_leace() -> Any:
    try:
        from concept_erasure import LeaceFitter
    except ImportError:
        raise InputError("erasing needs concept-erasure: pip install 'interp-workbench[probe]'.") from None
    return LeaceFitter

"""Ridge regression of many probes at once, in closed form (Hoerl & Kennard 1970), for tasks whose labels
are numbers.

The objective is scikit-learn's: sum of weight × squared error + penalty × |w|², the intercept free.
"""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.errors import InputError

Features = Float[Tensor, "set row d"] | Sequence[Float[Tensor, "row d"]]
CHUNK = 16_384


@dataclasses.dataclass(frozen=True)
class RidgeProbes:
    """Fitted probes: `predict = x @ w + b`."""

    w: Float[Tensor, "probe d"]
    b: Float[Tensor, " probe"]
    which: Int[Tensor, " probe"]
    penalty: Float[Tensor, " probe"]

    def __len__(self) -> int:
        return len(self.which)

    def predict(self, x: Features) -> Float[Tensor, "probe row"]:
        """The number that each probe gives each row."""
        each = zip(self.w, self.b, self.which, strict=True)
        return torch.stack([x[int(s)].to(w.dtype) @ w + b for w, b, s in each])

    def r2(
        self, x: Features, y: Float[Tensor, "probe row"], weight: Float[Tensor, "probe row"] | None = None
    ) -> Float[Tensor, " probe"]:
        """Share of the variance explained, in float64; below 0 where the mean would have been better."""
        weight = torch.ones_like(y) if weight is None else weight
        y, weight = y.double(), weight.double()
        mean = (y * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        left = ((y - self.predict(x).double()) ** 2 * weight).sum(1)
        return 1 - left / ((y - mean) ** 2 * weight).sum(1)


def fit_ridge(
    x: Features,
    y: Float[Tensor, "probe row"],
    which: Int[Tensor, " probe"],
    *,
    penalty: Float[Tensor, " probe"] | float | int = 1.0,
    weight: Float[Tensor, "probe row"] | Bool[Tensor, "probe row"] | None = None,
) -> RidgeProbes:
    """Fit every probe. Probes with the same features and rows share one decomposition.

    Args:
        x: feature sets; float16 is computed in float32. Sums are in float64.
        y: each probe's numbers.
        which: the feature set each probe reads.
        penalty: alpha of scikit-learn.
        weight: of each row in each probe; 0 leaves it out.

    Raises:
        InputError: shapes that do not fit, no rows, numbers that are not finite, a penalty that is not
            above 0.
    """
    probes, d = len(which), x[0].shape[1]
    penalties = torch.as_tensor(penalty, dtype=torch.float64).expand(probes)
    _refuse(x, y, which, penalties)
    dtype = torch.float64 if x[0].dtype == torch.float64 else torch.float32
    w, b = torch.zeros(probes, d, dtype=dtype), torch.zeros(probes, dtype=dtype)
    weights = torch.ones(1, y.shape[1]) if weight is None else weight.float()
    kinds, kind = torch.unique(weights, dim=0, return_inverse=True)
    kind = kind.expand(probes) if weight is None else kind
    for number in which.unique().tolist():
        for one in kind[which == number].unique().tolist():
            mine = torch.nonzero((which == number) & (kind == one)).flatten()
            w[mine], b[mine] = _solve(x[number], y[mine], kinds[one].double(), penalties[mine], dtype)
    return RidgeProbes(w, b, which, penalties.to(dtype))


def _solve(
    x: Tensor, y: Tensor, weight: Tensor, penalty: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Probes on the same rows with the same weights."""
    total = weight.sum()
    if not bool(total > 0):
        raise InputError("a probe has no rows: all of its weights are 0.")
    y = y.double()
    mean_y = (y * weight).sum(1) / total
    mean_x = sum((weight[at] @ x[at].double() for at in _pieces(len(x))), torch.zeros(())) / total
    gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    cross = torch.zeros(x.shape[1], len(y), dtype=torch.float64)
    for at in _pieces(len(x)):
        centred = x[at].double() - mean_x
        heavy = centred * weight[at, None]
        gram.addmm_(heavy.T, centred)
        cross.addmm_(heavy.T, (y[:, at] - mean_y[:, None]).T)
    values, axes = torch.linalg.eigh(gram)
    w = axes @ ((axes.T @ cross) / (values.clamp_min(0)[:, None] + penalty))
    return w.T.to(dtype), (mean_y - mean_x @ w).to(dtype)


def _pieces(rows: int) -> list[slice]:
    return [slice(at, at + CHUNK) for at in range(0, rows, CHUNK)]


def _refuse(x: Features, y: Tensor, which: Tensor, penalty: Tensor) -> None:
    if y.shape != (len(which), x[0].shape[0]) or not y.numel():
        raise InputError(
            f"numbers have shape {tuple(y.shape)}; {len(which)} probes of {x[0].shape[0]} rows "
            "need that many."
        )
    if int(which.min()) < 0 or int(which.max()) >= len(x):
        raise InputError(f"a probe reads feature set {int(which.max())}; there are {len(x)}, counted from 0.")
    if not bool(torch.isfinite(y).all()):
        raise InputError("a label is not a finite number; leave its row out.")
    if not bool((penalty > 0).all()):
        raise InputError("a penalty is not above 0; without one collinear features have no solution.")

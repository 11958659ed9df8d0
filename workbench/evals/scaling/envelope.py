"""Hoffmann et al. 2022 (arXiv:2203.15556), approach 1: the least loss that any training curve reaches for so
much compute, and which size reaches it."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError
from workbench.evals.scaling.frontier import Frontier, line
from workbench.evals.scaling.points import ScalingPoints
from workbench.evals.scaling.resampling import Array, Estimate

if TYPE_CHECKING:
    import pandas as pd

PLACES = 1500
"""Amounts of compute, evenly apart in their logarithm, at which the curves are compared (section 3.1)."""


@dataclasses.dataclass(frozen=True)
class Envelope:
    """The lower envelope of training curves, where sizes on both sides of the best one are known."""

    points: ScalingPoints
    flops: Array
    """[places]"""
    n: Array
    """[places]: the size that is best there."""
    d: Array
    """[places]: the tokens it has then seen."""
    loss: Array
    """[places]: the least loss."""
    frontier: Frontier
    """Its intervals come from leaving out one size at a time (jackknife)."""

    def to_frame(self) -> "pd.DataFrame":
        """flops, n, tokens, loss of each place."""
        import pandas as pd

        return pd.DataFrame({"flops": self.flops, "n": self.n, "tokens": self.d, "loss": self.loss})

    def plot(self, ax: Any = None) -> Any:
        """The curves over compute, and their envelope."""
        from workbench.plots.scaling import plot_envelope

        return plot_envelope(self, ax)


def fit_envelope(points: ScalingPoints, *, exact: bool = False) -> Envelope:
    """Power laws through the best size and its tokens at each amount of compute.

    A place counts only where a smaller and a larger size than the best one are known: elsewhere the
    optimum may lie outside the data.

    Args:
        points: evaluations along training (`points_of_runs(..., along=True)`).
        exact: compute by the exact count, not by 6ND.

    Raises:
        InputError: no curves, fewer than four sizes, or fewer than two sizes that are best somewhere.
    """
    points.checked(8, 4, "the envelope of training curves")
    if not points.curves:
        raise InputError("the envelope needs losses along training, not only the ends of runs (--along).")
    compute = points.exact if exact else points.c
    if not np.isfinite(compute).all():
        raise InputError("the exact count of FLOPs of some points is not known; use 6ND.")
    curves = _curves(points, compute)
    flops, n, d, loss = _lowest(curves)
    if len(np.unique(n)) < 2:
        raise InputError(
            "fewer than two sizes are best at some compute where a smaller and a larger one are known too; "
            "the optimum lies outside the data: train more sizes, or for longer."
        )
    found = [line(np.log(flops), np.log(values)) for values in (n, d)]
    a, b = _jackknife(curves, found)
    frontier = Frontier(a, b, found[0], found[1], float(flops[0]), float(flops[-1]))
    return Envelope(points, flops, n, d, loss, frontier)


def _curves(points: ScalingPoints, compute: Array) -> list[tuple[float, Array, Array, Array]]:
    """N, log C, log D, loss of each run, by compute."""
    found = []
    for group in np.unique(points.groups):
        mine = np.flatnonzero(points.groups == group)
        mine = mine[np.argsort(compute[mine], kind="stable")]
        if len(mine) > 1:
            found.append(
                (float(points.n[mine[0]]), np.log(compute[mine]), np.log(points.d[mine]), points.y[mine])
            )
    if not found:
        raise InputError("no run has two evaluations along training.")
    return found


def _lowest(curves: list[tuple[float, Array, Array, Array]]) -> tuple[Array, Array, Array, Array]:
    low, high = min(c[0] for _, c, _, _ in curves), max(c[-1] for _, c, _, _ in curves)
    places = np.linspace(low, high, PLACES)
    table = np.array([np.interp(places, c, np.log(y), left=np.inf, right=np.inf) for _, c, _, y in curves])
    sizes = np.array([n for n, *_ in curves])
    best = table.argmin(axis=0)
    known = np.isfinite(table)
    smallest = np.where(known, sizes[:, None], np.inf).min(axis=0)
    largest = np.where(known, sizes[:, None], -np.inf).max(axis=0)
    inside = (smallest < sizes[best]) & (sizes[best] < largest)
    places, best = places[inside], best[inside]
    d = np.array([np.interp(x, curves[k][1], curves[k][2]) for x, k in zip(places, best, strict=True)])
    return np.exp(places), sizes[best], np.exp(d), np.exp(table.min(axis=0)[inside])


def _jackknife(curves: list[Any], found: list[tuple[float, float]]) -> list[Estimate]:
    """Intervals of the two exponents from the fits without one size each, by Student's t."""
    from scipy.stats import t

    sizes = sorted({n for n, *_ in curves})
    slopes = []
    for size in sizes:
        flops, n, d, _ = _lowest([curve for curve in curves if curve[0] != size])
        if len(np.unique(n)) > 1:
            slopes.append([line(np.log(flops), np.log(values))[1] for values in (n, d)])
    if len(slopes) < 3:
        return [Estimate(one[1], -np.inf, np.inf) for one in found]
    left = np.array(slopes)
    count = len(left)
    error = np.sqrt((count - 1) / count * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    reach = t.ppf(0.975, count - 1) * error
    return [Estimate(one[1], one[1] - r, one[1] + r) for one, r in zip(found, reach, strict=True)]

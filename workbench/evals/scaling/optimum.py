"""The best size for a budget: FLOPs by 6ND, FLOPs by exact count, or hours on this machine."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError
from workbench.evals.scaling.frontier import Frontier
from workbench.evals.scaling.parametric import ParametricFit
from workbench.evals.scaling.resampling import Array, Estimate, interval
from workbench.evals.scaling.throughput import Speed

if TYPE_CHECKING:
    import pandas as pd

PLACES = 2001


@dataclasses.dataclass(frozen=True)
class Optimum:
    """The best size and number of tokens for one budget."""

    budget: float
    unit: str
    """`FLOPs (6ND)`, `FLOPs (exact)` or `hours`."""
    n: Estimate
    d: Estimate
    loss: Estimate
    """The law's loss there, and what one run there is expected to reach (95 % prediction interval)."""
    flops: float
    """6ND of it."""
    extrapolated: str | None = None
    """How far outside the data it lies, if that was allowed."""

    def to_frame(self) -> "pd.DataFrame":
        """One row: budget, unit, n, n_low, n_high, tokens ..., loss ..., six_nd."""
        import pandas as pd

        row: dict[str, Any] = {"budget": self.budget, "unit": self.unit}
        for name, one in (("n", self.n), ("tokens", self.d), ("loss", self.loss)):
            row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        return pd.DataFrame([row | {"six_nd": self.flops, "extrapolated": self.extrapolated}])


def best_for_flops(
    fit: ParametricFit, flops: float | int, *, exact: bool = False, extrapolate: bool = False
) -> Optimum:
    """The size that reaches the least loss with so many training FLOPs.

    Args:
        fit: the parametric fit.
        flops: the budget.
        exact: FLOPs by exact count: what a token costs is read off the fitted models, over N.
        extrapolate: allow a size or number of tokens outside the data.

    Raises:
        InputError: no positive number, the exact counts are unknown, or the optimum lies outside the data.
    """
    if exact:
        cost = _cost_of(fit)
        return _best(fit, flops, "FLOPs (exact)", lambda n: flops / cost(n), extrapolate)
    return _best(fit, flops, "FLOPs (6ND)", lambda n: flops / (6 * n), extrapolate)


def best_for_hours(
    fit: ParametricFit, hours: float | int, speed: Speed, *, extrapolate: bool = False
) -> Optimum:
    """The size that reaches the least loss in so many hours of training on a machine of this speed.

    Raises:
        InputError: no positive number, or the optimum lies outside the data.
    """
    return _best(fit, hours, "hours", lambda n: hours * 3600 * speed.at(n), extrapolate)


def outside(points: Any, n: float | int, d: float | int) -> str | None:
    """In words, how far a size, tokens or their compute lie outside the points; None if inside."""
    told = []
    for value, held, letter in ((n, points.n, "N"), (d, points.d, "D"), (6 * n * d, points.c, "6ND")):
        low, high = float(held.min()), float(held.max())
        if value > high * 1.0001:
            told.append(f"{letter} = {value:.3g} is {value / high:.2g} x the data's largest, {high:.3g}")
        elif value < low * 0.9999:
            told.append(f"{letter} = {value:.3g} is {low / value:.2g} x below the data's smallest, {low:.3g}")
    return " and ".join(told) or None


def _best(
    fit: ParametricFit, budget: float | int, unit: str, tokens: Callable[[Array], Array], extrapolate: bool
) -> Optimum:
    if not (np.isfinite(budget) and budget > 0):
        raise InputError(f"a budget is a positive number of {unit}; found {budget!r}.")
    points = fit.points
    grid = np.geomspace(points.n.min() / 1e3, points.n.max() * 1e3, PLACES)
    n, d, _ = _lowest(fit.theta[None], grid, tokens(grid))
    beyond = outside(points, float(n[0]), float(d[0]))
    if beyond is not None and not extrapolate:
        raise InputError(
            f"the optimum for {budget:.3g} {unit} lies outside the data: {beyond}; train models there, "
            "choose another budget, or allow it (--extrapolate)."
        )
    n_draws, d_draws, _ = _lowest(fit.draws, grid, tokens(grid))
    return Optimum(
        float(budget), unit, interval(float(n[0]), n_draws), interval(float(d[0]), d_draws),
        fit.predict(float(n[0]), float(d[0])), float(6 * n[0] * d[0]), beyond,
    )  # fmt: skip


def _lowest(theta: Array, n: Array, d: Array) -> tuple[Array, Array, Array]:
    """N, D and loss at the minimum over a fine grid of N, improved by a parabola through its neighbours."""
    log_n, log_d = np.log(n), np.log(d)
    first = np.exp(theta[:, 1:2] - theta[:, 3:4] * log_n)
    loss = np.exp(theta[:, :1]) + first + np.exp(theta[:, 2:3] - theta[:, 4:5] * log_d)
    at = np.clip(loss.argmin(axis=1), 1, len(n) - 2)
    rows = np.arange(len(theta))
    left, here, right = (loss[rows, at + k] for k in (-1, 0, 1))
    bend = left - 2 * here + right
    shift = np.clip(np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1), 0), -1, 1)
    places = at + shift
    steps = np.arange(len(n))
    return np.exp(np.interp(places, steps, log_n)), np.exp(np.interp(places, steps, log_d)), here


def _cost_of(fit: ParametricFit) -> Callable[[Array], Array]:
    """Exact training FLOPs a token over N, a line between the logarithms of the fitted models' own."""
    points = fit.points
    cost = points.exact / points.d
    known = np.isfinite(cost)
    if not known.any():
        raise InputError("the exact count of FLOPs of these points is not known; use 6ND.")
    sizes = np.unique(points.n[known])
    mean = [float(np.log(cost[known & (points.n == size)]).mean()) for size in sizes]

    def at(n: Array) -> Array:
        x, held = np.log(n), np.log(sizes)
        return np.exp(np.interp(x, held, mean) + x - np.clip(x, held[0], held[-1]))

    return at


def covered_span(frontier: Frontier, points: Any) -> tuple[float, float]:
    """Least and greatest compute whose optimum lies inside the data."""
    flops = np.geomspace(points.c.min(), points.c.max(), 4001)
    n, d = frontier.n(flops), frontier.d(flops)
    inside = (n >= points.n.min()) & (n <= points.n.max()) & (d >= points.d.min()) & (d <= points.d.max())
    if not inside.any():
        return float("nan"), float("nan")
    return float(flops[inside][0]), float(flops[inside][-1])

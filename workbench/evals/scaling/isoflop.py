"""Hoffmann et al. 2022 (arXiv:2203.15556), approach 2: at equal compute, the loss over log N is a parabola
whose vertex is the best size."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError
from workbench.evals.scaling.frontier import Frontier, frontier_of
from workbench.evals.scaling.points import ScalingPoints
from workbench.evals.scaling.resampling import Array, Estimate

if TYPE_CHECKING:
    import pandas as pd

GAP = 0.1
"""Two neighbours in log C further apart than this belong to different budgets."""
WIDEST = 0.3
"""A group of points that spans more than this in log C is no budget."""
LEAST = 4
"""Sizes that a parabola needs, so that its three coefficients leave something to judge it by."""
DRAWS = 4000


@dataclasses.dataclass(frozen=True)
class Parabola:
    """Loss = curvature x (log N - log vertex)^2 + minimum, at one budget."""

    flops: float
    n: Array
    """[points]"""
    d: Array
    loss: Array
    coefficients: Array
    """Constant, linear and quadratic one, of log N around `centre`."""
    centre: float
    best_n: Estimate
    """Vertex, with Fieller's interval."""
    best_d: Estimate
    """Tokens that this budget leaves for it."""
    minimum: float
    """Loss at the vertex."""

    def at(self, n: Array) -> Array:
        """The fitted loss of size `n`."""
        x = np.log(n) - self.centre
        return self.coefficients[0] + self.coefficients[1] * x + self.coefficients[2] * x * x


@dataclasses.dataclass(frozen=True)
class IsoFlop:
    """Parabolas by budget and the frontier through their vertices."""

    points: ScalingPoints
    parabolas: tuple[Parabola, ...]
    refused: tuple[str, ...]
    """Why budgets gave no vertex, a sentence each."""
    frontier: Frontier | None
    """None where fewer than two budgets gave a vertex."""
    exact: bool
    """Whether compute is the exact count rather than 6ND."""
    asymmetry: float
    """t statistic of a cubic term that all budgets share. Far from 0, the loss over log N is no parabola over
    so wide a range of sizes, and the vertices are biased."""

    @property
    def asymmetric(self) -> bool:
        """Whether the cubic term is clearly not 0."""
        return bool(abs(self.asymmetry) > 3)

    def to_frame(self) -> "pd.DataFrame":
        """A row a budget: flops, points, n, n_low, n_high, tokens, tokens_low, tokens_high, loss."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "flops": one.flops, "points": len(one.n),
                    "n": one.best_n.value, "n_low": one.best_n.low, "n_high": one.best_n.high,
                    "tokens": one.best_d.value, "tokens_low": one.best_d.low, "tokens_high": one.best_d.high,
                    "loss": one.minimum,
                }
                for one in self.parabolas
            ]
        )  # fmt: skip

    def plot(self, ax: Any = None) -> Any:
        """Loss over N at each budget with the parabolas, and the vertices with their intervals."""
        from workbench.plots.scaling import plot_isoflop

        return plot_isoflop(self, ax)


def fit_isoflop(points: ScalingPoints, *, exact: bool = False, seed: int = 0) -> IsoFlop:
    """Fit a parabola a budget, and power laws through the vertices.

    The noise is taken to be equal at all budgets, so that the residuals of all parabolas give its size; a
    vertex has Fieller's (1954) interval. A parabola that opens downward, is not clearly curved, or has its
    vertex outside its own sizes gives no vertex.

    Args:
        points: ends of runs.
        exact: budgets by the exact count of FLOPs, not by 6ND.
        seed: of the draws behind the exponents' intervals.

    Raises:
        InputError: no two points share a budget, or no parabola has its vertex inside its data.
    """
    points.checked(LEAST, LEAST, "an IsoFLOP parabola")
    compute = points.exact if exact else points.c
    if not np.isfinite(compute).all():
        raise InputError("the exact count of FLOPs of some points is not known; use 6ND.")
    groups = budgets(compute)
    usable = [group for group in groups if len(np.unique(points.n[group])) >= LEAST]
    if not usable:
        raise InputError(
            f"no budget has models of {LEAST} sizes or more ({len(points)} points lie at {len(groups)} "
            "different budgets); an IsoFLOP sweep trains several sizes with equal FLOPs."
        )
    fits = [_least_squares(np.log(points.n[group]), points.y[group]) for group in usable]
    freedom = sum(len(group) - 3 for group in usable)
    variance = sum(rss for _, _, _, rss in fits) / freedom
    found, refused, kept = [], [], []
    for group, (centre, beta, spread, _) in zip(usable, fits, strict=True):
        n, d, y = points.n[group], points.d[group], points.y[group]
        flops = float(np.exp(np.log(compute[group]).mean()))
        made = _parabola(flops, n, d, y, centre, beta, variance * spread, freedom)
        if isinstance(made, str):
            refused.append(made)
        else:
            found.append(made)
            kept.append((centre, beta, spread, n, d))
    if not found:
        raise InputError("; ".join(refused) + ": train sizes on both sides of the optimum.")
    frontier = _frontier(found, kept, variance, freedom, seed) if len(found) > 1 else None
    cubes = [np.log(points.n[group]) - fit[0] for group, fit in zip(usable, fits, strict=True)]
    losses = [points.y[group] for group in usable]
    asymmetry = _cubic_t(cubes, losses, freedom)
    return IsoFlop(points, tuple(found), tuple(refused), frontier, exact, asymmetry)


def budgets(compute: Array) -> list[Any]:
    """Indices of the points of each budget, the least first; a lone point is a budget of its own."""
    order = np.argsort(compute, kind="stable")
    logs = np.log(compute[order])
    groups = np.split(order, np.flatnonzero(np.diff(logs) > GAP) + 1)
    return [
        part
        for group in groups
        for part in ([group] if np.ptp(np.log(compute[group])) <= WIDEST else np.split(group, len(group)))
    ]


def _least_squares(x: Array, y: Array) -> tuple[float, Array, Array, float]:
    """Centre, coefficients, their covariance for unit noise, and the residual sum of squares."""
    centre = float(x.mean())
    design = np.vander(x - centre, 3, increasing=True)
    spread = np.asarray(np.linalg.inv(design.T @ design), float)
    beta = np.asarray(spread @ design.T @ y, float)
    return centre, beta, spread, float(((y - design @ beta) ** 2).sum())


def _cubic_t(x: list[Array], y: list[Array], freedom: int) -> float:
    """t statistic of one cubic coefficient for all parabolas; NaN where nothing is left to judge it by."""
    cubic, residual = [], []
    for places, losses in zip(x, y, strict=True):
        design = np.vander(places, 3, increasing=True)
        off = np.eye(len(places)) - design @ np.linalg.pinv(design)
        cubic.append(off @ places**3)
        residual.append(off @ losses)
    column, left = np.concatenate(cubic), np.concatenate(residual)
    weight = column @ column
    if freedom < 2 or weight <= 0:
        return float("nan")
    slope = column @ left / weight
    rest = left - slope * column
    return float(slope / np.sqrt(max(rest @ rest, 1e-300) / (freedom - 1) / weight))


def _parabola(
    flops: float | int,
    n: Array,
    d: Array,
    y: Array,
    centre: float,
    beta: Array,
    covariance: Array,
    freedom: int,
) -> Parabola | str:
    at = f"at {flops:.2g} FLOPs"
    if beta[2] <= 0:
        return f"{at} the loss has no minimum over N (the parabola opens downward)"
    vertex = -beta[1] / (2 * beta[2])
    best = float(np.exp(vertex + centre))
    if not n.min() <= best <= n.max():
        return (
            f"{at} the best size would be {best:.3g}, outside its {len(n)} models "
            f"({n.min():.3g} to {n.max():.3g})"
        )
    span = fieller(beta, covariance, freedom)
    if span is None:
        return f"{at} the loss is too flat or too noisy over N to tell a minimum"
    low, high = (float(np.exp(end + centre)) for end in span)
    order = np.argsort(n)
    log_n, log_d = np.log(n[order]), np.log(d[order])

    def tokens(size: float) -> float:
        # D falls as 1/N at one budget: a line in the logarithms, also beyond the data.
        slope = np.polyfit(log_n, log_d, 1)
        return float(np.exp(np.polyval(slope, np.log(size))))

    minimum = float(beta[0] - beta[1] ** 2 / (4 * beta[2]))
    return Parabola(
        flops, n, d, y, beta, centre,
        Estimate(best, low, high), Estimate(tokens(best), tokens(high), tokens(low)), minimum,
    )  # fmt: skip


def fieller(beta: Array, covariance: Array, freedom: int, confidence: float = 0.95) -> Any:
    """Interval of the vertex -b / 2c of a parabola (Fieller 1954): all v at which the slope b + 2cv is not
    clearly different from 0. None where that is no finite interval."""
    from scipy.stats import t

    square = t.ppf(0.5 + confidence / 2, freedom) ** 2
    _, b, c = beta
    quadratic = 4 * (c * c - square * covariance[2, 2])
    linear = 4 * (b * c - square * covariance[1, 2])
    constant = b * b - square * covariance[1, 1]
    root = linear * linear - 4 * quadratic * constant
    if quadratic <= 0 or root < 0:
        return None
    return tuple((-linear + sign * np.sqrt(root)) / (2 * quadratic) for sign in (-1, 1))


def _frontier(found: list[Parabola], kept: list[Any], variance: float, freedom: int, seed: int) -> Frontier:
    """Intervals from draws of all parabolas' coefficients, the noise's size drawn as well."""
    generator = np.random.default_rng(seed)
    noise = np.sqrt(variance * freedom / generator.chisquare(freedom, DRAWS))
    vertices, tokens = [], []
    for centre, beta, spread, n, d in kept:
        root = np.linalg.cholesky(spread)
        draws = beta + noise[:, None] * (generator.standard_normal((DRAWS, 3)) @ root.T)
        curved = np.maximum(draws[:, 2], 1e-3 * beta[2])
        vertex = centre - draws[:, 1] / (2 * curved)
        vertices.append(vertex)
        tokens.append(np.polyval(np.polyfit(np.log(n), np.log(d), 1), vertex))
    return frontier_of(
        np.log([one.flops for one in found]),
        np.log([one.best_n.value for one in found]),
        np.log([one.best_d.value for one in found]),
        np.array(vertices).T, np.array(tokens).T, (found[0].flops, found[-1].flops),
    )  # fmt: skip

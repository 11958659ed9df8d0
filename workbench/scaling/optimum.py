"""The best size for a budget: FLOPs by 6ND, FLOPs by exact count, or hours on this machine."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError
from workbench.scaling.fitting import Array, Estimate, Frontier, frontier_of, interval, line
from workbench.scaling.laws import ParametricFit
from workbench.scaling.points import ScalingPoints, Speed

if TYPE_CHECKING:
    import pandas as pd


# Hoffmann et al. 2022 (arXiv:2203.15556), approach 1: the least loss that any training curve reaches for so
# much compute, and which size reaches it.


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
        """Draw the curves over compute with their envelope, and the best size over compute, and return the
        figure.
        """
        from workbench.plots.scaling import plot_envelope

        points, a = self.points, self.frontier.a
        return plot_envelope(
            points.to_frame().assign(loss=points.y, group=points.groups),
            self.to_frame(),
            self.frontier.n,
            (a.value, a.low, a.high),
            ylabel=f"loss, {points.unit}",
            axes=ax,
        )


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


# Hoffmann et al. 2022 (arXiv:2203.15556), approach 2: at equal compute, the loss over log N is a parabola
# whose vertex is the best size.


GAP = 0.1
"""Two neighbours in log C further apart than this belong to different budgets."""
WIDEST = 0.3
"""A group of points that spans more than this in log C is no budget."""
LEAST = 4
"""Sizes that a parabola needs, so that its three coefficients leave something to judge it by."""
DRAWS = 4000
ROUNDING = 1e-9
"""A relative change of the loss below this may be rounding."""


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
        """Draw the loss over N at each budget with the parabolas, and the vertices with their intervals, and
        return the figure.
        """
        from workbench.plots.scaling import plot_isoflop

        front = self.frontier
        return plot_isoflop(
            self.to_frame(),
            [(parabola.n, parabola.loss) for parabola in self.parabolas],
            [parabola.at for parabola in self.parabolas],
            None if front is None else front.n,
            None if front is None else (front.a.value, front.a.low, front.a.high),
            exact=self.exact,
            xlabel=f"N, {self.points.count} parameters",
            ylabel=f"loss, {self.points.unit}",
            axes=ax,
        )


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
    reach = np.ptp(np.log(n))
    if abs(beta[2]) * reach**2 <= ROUNDING * abs(beta[0]):
        return f"{at} the loss over N has no curvature, so no size is best"
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


PLACES_OPTIMUM = 2001


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
    grid = np.geomspace(points.n.min() / 1e3, points.n.max() * 1e3, PLACES_OPTIMUM)
    n, d, _ = _lowest_optimum(fit.theta[None], grid, tokens(grid))
    beyond = outside(points, float(n[0]), float(d[0]))
    if beyond is not None and not extrapolate:
        raise InputError(
            f"the optimum for {budget:.3g} {unit} lies outside the data: {beyond}; train models there, "
            "choose another budget, or allow it (--extrapolate)."
        )
    n_draws, d_draws, _ = _lowest_optimum(fit.draws, grid, tokens(grid))
    return Optimum(
        float(budget), unit, interval(float(n[0]), n_draws), interval(float(d[0]), d_draws),
        fit.predict(float(n[0]), float(d[0])), float(6 * n[0] * d[0]), beyond,
    )  # fmt: skip


def _lowest_optimum(theta: Array, n: Array, d: Array) -> tuple[Array, Array, Array]:
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

"""The compute-optimal size: from training curves, from IsoFLOP sweeps, and for a budget of FLOPs or hours."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.console import make_table, stack
from workbench.errors import InputError
from workbench.result import Result
from workbench.scaling.fitting import (
    Array,
    Frontier,
    constants_table,
    figure,
    frontier_of,
    interval,
    line,
    span,
)
from workbench.scaling.laws import ROUNDING, ParametricFit
from workbench.scaling.points import ScalingPoints, Speed
from workbench.stats import CONFIDENCE, Estimate, student_reach

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

PLACES = 1500
"""Amounts of compute, log-spaced, at which training curves are compared (Hoffmann et al. 2022, section
3.1)."""
GAP = 0.1
"""Two neighbours in log C further apart than this belong to different budgets."""
WIDEST = 0.3
"""A group of points that spans more than this in log C is not a budget."""
LEAST = 4
"""Sizes that a parabola needs, so that its three coefficients leave a residual."""
DRAWS = 4000
SIZES = 2001
"""Sizes, log-spaced, among which `best_for_flops` and `best_for_hours` search the smallest loss."""


class TrainingCurve(NamedTuple):
    """The loss of one run over compute."""

    n: float
    log_c: Array
    log_d: Array
    loss: Array


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Envelope(Result):
    """The lower envelope of training curves, where sizes on both sides of the best one are known
    (Hoffmann et al. 2022, arXiv:2203.15556, approach 1)."""

    points: ScalingPoints
    flops: Array
    """[places]"""
    n: Array
    """[places]: the best size."""
    d: Array
    """[places]: the tokens that it has seen."""
    loss: Array
    """[places]: the smallest loss."""
    frontier: Frontier
    """Its intervals come from leaving out one size at a time (jackknife)."""

    def to_frame(self) -> "pd.DataFrame":
        """Return flops, n, tokens, loss of each place."""
        import pandas as pd

        return pd.DataFrame({"flops": self.flops, "n": self.n, "tokens": self.d, "loss": self.loss})

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return the exponents of the best size and tokens; `rows` has no effect."""
        return stack(
            constants_table({"a": self.frontier.a, "b": self.frontier.b}),
            f"{len(np.unique(self.n))} sizes are best at some compute from {figure(self.flops.min())} to "
            f"{figure(self.flops.max())} FLOPs; intervals by leaving one size out",
        )

    def plot(self, ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
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
    """Fit power laws through the best size and its tokens at each amount of compute.

    A place counts only if a smaller and a larger size than the best one are known: elsewhere the optimum may
    lie outside the data.

    Args:
        points: evaluations along training (`points_of_runs(..., along=True)`).
        exact: compute by the exact count, not by 6ND.

    Raises:
        InputError: no curves, fewer than four sizes, or fewer than two sizes that are best somewhere.
    """
    points.require(8, 4, "the envelope of training curves")
    if not points.curves:
        raise InputError(
            "the envelope needs losses along training, not only the ends of runs (along=True).",
            option="--along",
        )
    curves = _training_curves(points, points.compute(exact))
    flops, n, d, loss = _lowest_curve(curves)
    if len(np.unique(n)) < 2:
        raise InputError(
            "fewer than two sizes are best at some compute where a smaller and a larger one are known too; "
            "the optimum lies outside the data: train more sizes, or for longer."
        )
    lines = [line(np.log(flops), np.log(values)) for values in (n, d)]
    a, b = _jackknife(curves, [slope for _, slope in lines])
    frontier = Frontier(a, b, lines[0], lines[1], float(flops[0]), float(flops[-1]))
    return Envelope(points, flops, n, d, loss, frontier)


def _training_curves(points: ScalingPoints, compute: Array) -> list[TrainingCurve]:
    curves = []
    for group in np.unique(points.groups):
        rows = np.flatnonzero(points.groups == group)
        rows = rows[np.argsort(compute[rows], kind="stable")]
        if len(rows) > 1:
            log_c, log_d = np.log(compute[rows]), np.log(points.d[rows])
            curves.append(TrainingCurve(float(points.n[rows[0]]), log_c, log_d, points.y[rows]))
    if not curves:
        raise InputError("no run has two evaluations along training.")
    return curves


def _lowest_curve(curves: list[TrainingCurve]) -> tuple[Array, Array, Array, Array]:
    """Return compute, best size, its tokens and its loss at each place with sizes on both sides."""
    low, high = min(curve.log_c[0] for curve in curves), max(curve.log_c[-1] for curve in curves)
    places = np.linspace(low, high, PLACES)
    table = np.array(
        [np.interp(places, curve.log_c, np.log(curve.loss), left=np.inf, right=np.inf) for curve in curves]
    )
    sizes = np.array([curve.n for curve in curves])
    best = table.argmin(axis=0)
    known = np.isfinite(table)
    smallest = np.where(known, sizes[:, None], np.inf).min(axis=0)
    largest = np.where(known, sizes[:, None], -np.inf).max(axis=0)
    inside = (smallest < sizes[best]) & (sizes[best] < largest)
    places, best = places[inside], best[inside]
    log_d = [np.interp(x, curves[k].log_c, curves[k].log_d) for x, k in zip(places, best, strict=True)]
    return np.exp(places), sizes[best], np.exp(np.array(log_d)), np.exp(table.min(axis=0)[inside])


def _jackknife(curves: list[TrainingCurve], exponents: list[float]) -> list[Estimate]:
    """Return intervals of the two exponents from the fits without one size each, by Student's t."""
    slopes = []
    for size in sorted({curve.n for curve in curves}):
        flops, n, d, _ = _lowest_curve([curve for curve in curves if curve.n != size])
        if len(np.unique(n)) > 1:
            slopes.append([line(np.log(flops), np.log(values))[1] for values in (n, d)])
    count = len(slopes)
    if count < 3:
        return [Estimate(exponent, -np.inf, np.inf) for exponent in exponents]
    left = np.array(slopes)
    error = np.sqrt((count - 1) / count * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    reach = np.asarray(student_reach(error, count - 1))
    return [Estimate(x, x - float(r), x + float(r)) for x, r in zip(exponents, reach, strict=True)]


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
        """Return the fitted loss of size `n`."""
        x = np.log(n) - self.centre
        return self.coefficients[0] + self.coefficients[1] * x + self.coefficients[2] * x * x


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class IsoFlop(Result):
    """A parabola of the loss over log N for each budget, and the frontier through their vertices
    (Hoffmann et al. 2022, arXiv:2203.15556, approach 2)."""

    points: ScalingPoints
    parabolas: tuple[Parabola, ...]
    refused: tuple[str, ...]
    """Why budgets have no vertex, a sentence each."""
    frontier: Frontier | None
    """None if fewer than two budgets have a vertex."""
    exact: bool
    """True if compute is the exact count rather than 6ND."""
    asymmetry: float
    """t statistic of a cubic term that all budgets share. Far from 0, the loss over log N is not a parabola
    over this range of sizes, and the vertices are biased."""

    @property
    def asymmetric(self) -> bool:
        """True if the cubic term is clearly not 0."""
        return bool(abs(self.asymmetry) > 3)

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return the best size for each budget, and the exponents if they could be fitted."""
        cells = [
            [
                figure(row["flops"]), row["points"], figure(row["n"]), span(row["n_low"], row["n_high"]),
                figure(row["tokens"]), figure(row["loss"]),
            ]
            for row in self.to_frame().to_dict("records")
        ]  # fmt: skip
        frontier, header = self.frontier, ["FLOPs", "points", "best N", "95 % interval", "tokens", "loss"]
        return stack(
            make_table(header, cells if rows is None else cells[:rows]),
            None if frontier is None else "",
            None if frontier is None else constants_table({"a": frontier.a, "b": frontier.b}),
            "note: over so wide a range of N the loss is no parabola (a cubic term has "
            f"t = {self.asymmetry:.1f}), which biases the vertices; train sizes nearer to them, or use the "
            "parametric law"
            if self.asymmetric
            else None,
            *(f"left out: {reason}" for reason in self.refused),
        )

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per budget: flops, points, n, n_low, n_high, tokens, tokens_low, tokens_high,
        loss."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"flops": parabola.flops, "points": len(parabola.n)}
                | _columns("n", parabola.best_n)
                | _columns("tokens", parabola.best_d)
                | {"loss": parabola.minimum}
                for parabola in self.parabolas
            ]
        )

    def plot(self, ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
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


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


class _LeastSquares(NamedTuple):
    """A parabola fitted to the losses of one budget."""

    rows: NDArray[np.intp]
    """Indices of the budget's points."""
    centre: float
    """Mean of log N."""
    beta: Array
    spread: Array
    """Covariance of the coefficients for unit noise."""
    squares: float
    """Residual sum of squares."""


def fit_isoflop(points: ScalingPoints, *, exact: bool = False, seed: int = 0) -> IsoFlop:
    """Fit a parabola per budget, and power laws through the vertices.

    The noise is assumed to be equal at all budgets, so that the residuals of all parabolas estimate it; a
    vertex has Fieller's (1954) interval. A parabola that opens downward, is not clearly curved, or has its
    vertex outside its own sizes gives no vertex.

    Args:
        points: ends of runs.
        exact: budgets by the exact count of FLOPs, not by 6ND.
        seed: of the draws behind the exponents' intervals.

    Raises:
        InputError: no two points share a budget, or no parabola has its vertex inside its data.
    """
    points.require(LEAST, LEAST, "an IsoFLOP parabola")
    compute = points.compute(exact)
    groups = budgets(compute)
    usable = [group for group in groups if len(np.unique(points.n[group])) >= LEAST]
    if not usable:
        raise InputError(
            f"no budget has models of {LEAST} sizes or more ({len(points)} points lie at {len(groups)} "
            "different budgets); an IsoFLOP sweep trains several sizes with equal FLOPs."
        )
    fits = [_least_squares(points, group) for group in usable]
    freedom = sum(len(group) - 3 for group in usable)
    variance = sum(fit.squares for fit in fits) / freedom
    parabolas, refused, kept = [], [], []
    for fit in fits:
        flops = float(np.exp(np.log(compute[fit.rows]).mean()))
        parabola = _parabola(points, flops, fit, variance, freedom)
        if isinstance(parabola, str):
            refused.append(f"at {flops:.2g} FLOPs {parabola}")
        else:
            parabolas.append(parabola)
            kept.append(fit)
    if not parabolas:
        raise InputError("; ".join(refused) + ": train sizes on both sides of the optimum.")
    frontier = _frontier(parabolas, kept, variance, freedom, seed) if len(parabolas) > 1 else None
    asymmetry = _cubic_t(points, fits, freedom)
    return IsoFlop(points, tuple(parabolas), tuple(refused), frontier, exact, asymmetry)


def budgets(compute: Array) -> list[NDArray[np.intp]]:
    """Return the indices of the points of each budget, the least first; a lone point is its own budget."""
    order = np.argsort(compute, kind="stable")
    logs = np.log(compute[order])
    groups = np.split(order, np.flatnonzero(np.diff(logs) > GAP) + 1)
    return [
        part
        for group in groups
        for part in ([group] if np.ptp(np.log(compute[group])) <= WIDEST else np.split(group, len(group)))
    ]


def _least_squares(points: ScalingPoints, rows: NDArray[np.intp]) -> _LeastSquares:
    x, y = np.log(points.n[rows]), points.y[rows]
    centre = float(x.mean())
    design = np.vander(x - centre, 3, increasing=True)
    spread = np.asarray(np.linalg.inv(design.T @ design), float)
    beta = np.asarray(spread @ design.T @ y, float)
    return _LeastSquares(rows, centre, beta, spread, float(((y - design @ beta) ** 2).sum()))


def _cubic_t(points: ScalingPoints, fits: list[_LeastSquares], freedom: int) -> float:
    """Return the t statistic of one cubic coefficient for all parabolas; NaN without degrees of freedom."""
    cubic, residual = [], []
    for fit in fits:
        x = np.log(points.n[fit.rows]) - fit.centre
        design = np.vander(x, 3, increasing=True)
        off = np.eye(len(x)) - design @ np.linalg.pinv(design)
        cubic.append(off @ x**3)
        residual.append(off @ points.y[fit.rows])
    column, left = np.concatenate(cubic), np.concatenate(residual)
    weight = column @ column
    if freedom < 2 or weight <= 0:
        return float("nan")
    slope = column @ left / weight
    rest = left - slope * column
    return float(slope / np.sqrt(max(rest @ rest, 1e-300) / (freedom - 1) / weight))


def _parabola(
    points: ScalingPoints, flops: float, fit: _LeastSquares, variance: float, freedom: int
) -> Parabola | str:
    """Return the parabola of one budget, or why it has no vertex."""
    n, d, loss = points.n[fit.rows], points.d[fit.rows], points.y[fit.rows]
    beta, centre = fit.beta, fit.centre
    if abs(beta[2]) * np.ptp(np.log(n)) ** 2 <= ROUNDING * abs(beta[0]):
        return "the loss over N has no curvature, so no size is best"
    if beta[2] <= 0:
        return "the loss has no minimum over N (the parabola opens downward)"
    with np.errstate(over="ignore"):
        best = float(np.exp(-beta[1] / (2 * beta[2]) + centre))
    if not n.min() <= best <= n.max():
        return (
            f"the best size would be {best:.3g}, outside its {len(n)} models ({n.min():.3g} to {n.max():.3g})"
        )
    limits = fieller(beta, variance * fit.spread, freedom)
    if limits is None:
        return "the loss is too flat or too noisy over N to locate a minimum"
    low, high = (float(np.exp(limit + centre)) for limit in limits)
    order = np.argsort(n)
    # D falls as 1/N at one budget: a line in the logarithms, also outside the data.
    slope = np.polyfit(np.log(n[order]), np.log(d[order]), 1)
    tokens = [float(np.exp(np.polyval(slope, np.log(size)))) for size in (best, high, low)]
    minimum = float(beta[0] - beta[1] ** 2 / (4 * beta[2]))
    return Parabola(flops, n, d, loss, beta, centre, Estimate(best, low, high), Estimate(*tokens), minimum)


def fieller(
    beta: Array, covariance: Array, freedom: int, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Return the interval of the vertex -b / 2c of a parabola (Fieller 1954): all v at which the slope b +
    2cv does not differ significantly from 0. None if that is not a finite interval."""
    square = float(student_reach(1.0, freedom, confidence)) ** 2
    _, b, c = beta
    quadratic = 4 * (c * c - square * covariance[2, 2])
    linear = 4 * (b * c - square * covariance[1, 2])
    constant = b * b - square * covariance[1, 1]
    root = linear * linear - 4 * quadratic * constant
    if quadratic <= 0 or root < 0:
        return None
    return (-linear - np.sqrt(root)) / (2 * quadratic), (-linear + np.sqrt(root)) / (2 * quadratic)


def _frontier(
    parabolas: list[Parabola], fits: list[_LeastSquares], variance: float, freedom: int, seed: int
) -> Frontier:
    """Fit the frontier, with intervals from draws of all parabolas' coefficients and of the noise's size."""
    generator = np.random.default_rng(seed)
    noise = np.sqrt(variance * freedom / generator.chisquare(freedom, DRAWS))
    vertices, tokens = [], []
    for parabola, fit in zip(parabolas, fits, strict=True):
        root = np.linalg.cholesky(fit.spread)
        draws = fit.beta + noise[:, None] * (generator.standard_normal((DRAWS, 3)) @ root.T)
        curved = np.maximum(draws[:, 2], 1e-3 * fit.beta[2])
        vertex = fit.centre - draws[:, 1] / (2 * curved)
        vertices.append(vertex)
        tokens.append(np.polyval(np.polyfit(np.log(parabola.n), np.log(parabola.d), 1), vertex))
    return frontier_of(
        np.log([parabola.flops for parabola in parabolas]),
        np.log([parabola.best_n.value for parabola in parabolas]),
        np.log([parabola.best_d.value for parabola in parabolas]),
        np.array(vertices).T, np.array(tokens).T, (parabolas[0].flops, parabolas[-1].flops),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Optimum(Result):
    """The best size and number of tokens for one budget."""

    budget: float
    unit: str
    """`FLOPs (6ND)`, `FLOPs (exact)` or `hours`."""
    n: Estimate
    d: Estimate
    loss: Estimate
    """The law's loss there, and the 95 % prediction interval of one run."""
    flops: float
    """6ND of it."""
    extrapolated: str | None = None
    """How far outside the data it lies, if that was allowed."""

    def to_frame(self) -> "pd.DataFrame":
        """Return one row: budget, unit, n, n_low, n_high, tokens ..., loss ..., six_nd, extrapolated."""
        import pandas as pd

        row = {"budget": self.budget, "unit": self.unit}
        row |= _columns("n", self.n) | _columns("tokens", self.d) | _columns("loss", self.loss)
        return pd.DataFrame([row | {"six_nd": self.flops, "extrapolated": self.extrapolated}])


def optima_summary(optima: Sequence[Optimum]) -> "RenderableType":
    """Return a row for each budget: size, tokens, and the loss to expect of one run."""
    beyond = [one.extrapolated for one in optima if one.extrapolated]
    header = ["budget", "N", "95 % interval", "D", "D/N", "loss", "of one run", *(["data"] if beyond else [])]
    rows = [
        [
            f"{figure(one.budget)} {one.unit}", figure(one.n.value), span(one.n.low, one.n.high),
            figure(one.d.value), f"{one.d.value / one.n.value:.3g}", figure(one.loss.value),
            span(one.loss.low, one.loss.high),
            *(["beyond" if one.extrapolated else ""] if beyond else []),
        ]
        for one in optima
    ]  # fmt: skip
    notes = (f"beyond the data: {reason}" for reason in dict.fromkeys(beyond))
    return stack("Best size for a budget", make_table(header, rows), *notes)


def best_for_flops(
    fit: ParametricFit, flops: float | int, *, exact: bool = False, extrapolate: bool = False
) -> Optimum:
    """Return the size that reaches the smallest loss with a budget of training FLOPs.

    Args:
        fit: the parametric fit.
        flops: the budget.
        exact: FLOPs by exact count: the cost of a token is interpolated between the fitted models, over N.
        extrapolate: allow a size or number of tokens outside the data.

    Raises:
        InputError: not a positive number, the exact counts are unknown, or the optimum lies outside the data.
    """
    if exact:
        cost = _flops_per_token(fit)
        return _best(fit, flops, "FLOPs (exact)", lambda n: flops / cost(n), extrapolate)
    return _best(fit, flops, "FLOPs (6ND)", lambda n: flops / (6 * n), extrapolate)


def best_for_hours(
    fit: ParametricFit, hours: float | int, speed: Speed, *, extrapolate: bool = False
) -> Optimum:
    """Return the size that reaches the smallest loss in some hours of training on a machine of this speed.

    Args:
        fit: the parametric fit.
        hours: the budget.
        speed: of the machine (`measure_speed`).
        extrapolate: allow a size or number of tokens outside the data.

    Raises:
        InputError: not a positive number, or the optimum lies outside the data.
    """
    return _best(fit, hours, "hours", lambda n: hours * 3600 * speed.at(n), extrapolate)


def outside(points: ScalingPoints, n: float | int, d: float | int) -> str | None:
    """Return how far a size, tokens or their compute lie outside the points, in words; None if inside."""
    distances = []
    for value, held, letter in ((n, points.n, "N"), (d, points.d, "D"), (6 * n * d, points.c, "6ND")):
        low, high = float(held.min()), float(held.max())
        if value > high * 1.0001:
            distances.append(f"{letter} = {value:.3g} is {value / high:.2g} x the data's largest, {high:.3g}")
        elif value < low * 0.9999:
            distances.append(
                f"{letter} = {value:.3g} is {low / value:.2g} x below the data's smallest, {low:.3g}"
            )
    return " and ".join(distances) or None


def _best(
    fit: ParametricFit, budget: float | int, unit: str, tokens: Callable[[Array], Array], extrapolate: bool
) -> Optimum:
    if not (np.isfinite(budget) and budget > 0):
        raise InputError(f"a budget is a positive number of {unit}; found {budget!r}.")
    points = fit.points
    grid = np.geomspace(points.n.min() / 1e3, points.n.max() * 1e3, SIZES)
    n, d = (float(value[0]) for value in _minimum(fit.theta[None], grid, tokens(grid)))
    beyond = outside(points, n, d)
    if beyond is not None and not extrapolate:
        raise InputError(
            f"the optimum for {budget:.3g} {unit} lies outside the data: {beyond}; train models there, "
            "choose another budget, or pass extrapolate=True.",
            option="--extrapolate",
        )
    n_draws, d_draws = _minimum(fit.draws, grid, tokens(grid))
    return Optimum(
        float(budget), unit, interval(n, n_draws), interval(d, d_draws), fit.predict(n, d), 6 * n * d, beyond
    )


def _minimum(theta: Array, n: Array, d: Array) -> tuple[Array, Array]:
    """Return N and D at the minimum over a fine grid of N, refined by a parabola through its neighbours."""
    log_n, log_d = np.log(n), np.log(d)
    loss = np.exp(theta[:, :1]) + np.exp(theta[:, 1:2] - theta[:, 3:4] * log_n)
    loss += np.exp(theta[:, 2:3] - theta[:, 4:5] * log_d)
    at = np.clip(loss.argmin(axis=1), 1, len(n) - 2)
    rows = np.arange(len(theta))
    left, here, right = (loss[rows, at + k] for k in (-1, 0, 1))
    bend = left - 2 * here + right
    shift = np.clip(np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1), 0), -1, 1)
    steps = np.arange(len(n))
    return np.exp(np.interp(at + shift, steps, log_n)), np.exp(np.interp(at + shift, steps, log_d))


def _flops_per_token(fit: ParametricFit) -> Callable[[Array], Array]:
    """Return the exact training FLOPs per token over N, interpolated between the logarithms of the fitted
    models."""
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


def covered_span(frontier: Frontier, points: ScalingPoints) -> tuple[float, float]:
    """Return the least and greatest compute whose optimum lies inside the data; NaN if there is none."""
    flops = np.geomspace(points.c.min(), points.c.max(), 4001)
    n, d = frontier.n(flops), frontier.d(flops)
    inside = (n >= points.n.min()) & (n <= points.n.max()) & (d >= points.d.min()) & (d <= points.d.max())
    if not inside.any():
        return float("nan"), float("nan")
    return float(flops[inside][0]), float(flops[inside][-1])

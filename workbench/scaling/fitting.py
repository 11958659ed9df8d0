"""Fits of sums of power laws to log-losses, many at a time, with bootstrap intervals, and the compute-optimal
frontier.

Used by every law of `workbench.scaling`.
"""

# log L = logsumexp over terms k of (c_k - x_k . s_k), the form of Hoffmann et al. 2022 (arXiv:2203.15556),
# appendix D.3. A fit minimises the SUM over points of Huber(log L_fit - log L, delta). A mean is the same
# function divided by the number of points, and an optimiser whose tolerances are absolute then stops early.
#
# Every fit of a batch (a start, a bootstrap replicate) is a row of one array. A step is Gauss-Newton with the
# Huber loss' own curvature, damped by that of its quadratic majoriser (iteratively reweighted least squares),
# which alone never goes uphill for a linear model; the damping of each row adapts as in Levenberg-Marquardt.

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.console import make_table
from workbench.stats import CONFIDENCE, Estimate

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

Array: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = float | int | Sequence[Any] | ArrayLike
"""A number, or several."""
DELTA = 1e-3
"""Hoffmann et al.'s delta, in units of log-loss."""
CHUNK = 250_000
"""Fits x points worked on at once, so that the arrays stay in the processor's cache."""
LONGEST_STEP = 2.0


def figure(value: float) -> str:
    """Format a number in four digits: plain where that is short, else with an exponent."""
    if not np.isfinite(value):
        return "–"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"


def span(low: float, high: float) -> str:
    """Format an interval."""
    return "–" if not np.isfinite([low, high]).any() else f"{figure(low)} – {figure(high)}"


def constants_table(constants: Mapping[str, Estimate]) -> "Table":
    """Return a table of constants with their 95 % intervals."""
    rows = [[name, figure(one.value), span(one.low, one.high)] for name, one in constants.items()]
    return make_table(["constant", "value", "95 % interval"], rows)


@dataclasses.dataclass(frozen=True)
class PowerTerms:
    """A sum of power terms and the points to fit.

    Parameters in order: one log-coefficient per term, then one exponent per variable. A term is
    log-coefficient - exponent x log(variable); a term without variable is a constant.
    """

    log_x: Array
    """[variables points]: natural logarithms of the variables."""
    term_of: tuple[int, ...]
    """For each variable, the index of the term that it belongs to."""
    terms: int
    log_y: Array
    """[points]: the logarithms to fit; or [fits points], where each fit of a batch has its own."""

    @property
    def parameters(self) -> int:
        """Number of fitted parameters."""
        return self.terms + len(self.term_of)

    def centred(self) -> tuple["PowerTerms", Array]:
        """Return the problem around the mean of each variable, where coefficient and exponent are nearly
        independent, and the means."""
        means = self.log_x.mean(axis=1) if len(self.term_of) else np.zeros(0)
        return dataclasses.replace(self, log_x=self.log_x - means[:, None]), means

    def shift(self, theta: Array, means: Array) -> Array:
        """Convert parameters [... parameters] of this problem to those of the problem shifted by `means`."""
        shifted = np.array(theta, dtype=float)
        for index, term in enumerate(self.term_of):
            shifted[..., term] -= theta[..., self.terms + index] * means[index]
        return shifted

    def log_terms(self, theta: Array) -> Array:
        """Return the logarithm of each term: [fits terms points]."""
        values = np.repeat(theta[:, : self.terms, None], self.log_y.shape[-1], axis=2)
        for index, term in enumerate(self.term_of):
            values[:, term] -= theta[:, self.terms + index, None] * self.log_x[index]
        return values

    def predict(self, theta: Array) -> Array:
        """Return log L of each fit at each point: [fits points]."""
        return np.logaddexp.reduce(self.log_terms(np.atleast_2d(theta)), axis=1)

    def objective(self, theta: Array, weights: Array | None = None, delta: float = DELTA) -> Array:
        """Return the summed Huber loss of each fit: [fits]."""
        loss = _huber(np.abs(self.predict(theta) - self.log_y), delta)
        return (loss if weights is None else loss * weights).sum(axis=1)

    def gradient(self, theta: Array, delta: float = DELTA) -> Array:
        """Return the analytic gradient of `objective` of each fit: [fits parameters]."""
        ones = np.ones((1, self.log_y.shape[-1]))
        return self.derivatives(np.atleast_2d(theta), self.log_y, ones, delta)[1]

    def derivatives(
        self, theta: Array, log_y: Array, weights: Array, delta: float
    ) -> tuple[Array, Array, Array, Array]:
        """Return objective [fits], gradient [fits parameters], curvature and the majoriser's curvature
        [fits parameters parameters]."""
        terms = self.log_terms(theta)
        top = terms.max(axis=1, keepdims=True)
        fraction = np.exp(terms - top)
        total = fraction.sum(axis=1)
        residual = top[:, 0] + np.log(total) - log_y
        fraction /= total[:, None]
        slope = fraction[:, [*range(self.terms), *self.term_of]]  # d log L / d parameter
        slope[:, self.terms :] *= -self.log_x
        size = np.abs(residual)
        pull = np.clip(residual, -delta, delta) * weights
        gradient = np.matmul(slope, pull[:, :, None])[:, :, 0]
        wide = weights * np.minimum(1.0, delta / np.maximum(size, 1e-300))
        curvature = np.matmul(slope * (weights * (size <= delta))[:, None], slope.transpose(0, 2, 1))
        majoriser = np.matmul(slope * wide[:, None], slope.transpose(0, 2, 1))
        return (_huber(size, delta) * weights).sum(axis=1), gradient, curvature, majoriser


def _huber(size: Array, delta: float) -> Array:
    return np.where(size <= delta, 0.5 * size * size, delta * (size - 0.5 * delta))


@dataclasses.dataclass(frozen=True)
class Minima:
    """The minima of a batch of fits."""

    theta: Array
    """[fits parameters]"""
    objective: Array
    """[fits]"""
    converged: NDArray[np.bool_]
    """[fits]: True if no step promises a relative gain over the tolerance."""

    @property
    def best(self) -> int:
        """Index of the smallest objective."""
        return int(np.argmin(self.objective))


def minimise(
    problem: PowerTerms,
    starts: Array,
    weights: Array | None = None,
    delta: float = DELTA,
    steps: int = 200,
    tolerance: float = 1e-10,
) -> Minima:
    """Minimise the summed Huber loss from each start.

    Args:
        problem: terms and points.
        starts: [fits parameters].
        weights: [fits points], or [points], such as how often a bootstrap drew each point.
        delta: where the Huber loss turns from a square to a line.
        steps: limit for a fit.
        tolerance: stop when the next step promises less than this fraction of the objective.
    """
    inner, means = problem.centred()
    theta = inner.shift(np.atleast_2d(np.asarray(starts, dtype=float)), means)
    points = problem.log_y.shape[-1]
    shape = (len(theta), points)
    weights = np.broadcast_to(np.ones(points) if weights is None else np.asarray(weights, float), shape)
    log_y = np.broadcast_to(problem.log_y, shape)
    rows = max(1, CHUNK // max(1, points))
    chunks = [
        _descend(inner, theta[part], log_y[part], weights[part], delta, steps, tolerance)
        for part in (slice(at, at + rows) for at in range(0, len(theta), rows))
    ]
    ends, objective, converged = (np.concatenate(column) for column in zip(*chunks, strict=True))
    return Minima(inner.shift(ends, -means), objective, converged)


def _descend(
    problem: PowerTerms,
    theta: Array,
    log_y: Array,
    weights: Array,
    delta: float,
    steps: int,
    tolerance: float,
) -> tuple[Array, Array, NDArray[np.bool_]]:
    theta = theta.copy()
    objective, gradient, curvature, majoriser = problem.derivatives(theta, log_y, weights, delta)
    damping = np.ones(len(theta))
    converged = np.zeros(len(theta), dtype=bool)
    active = np.arange(len(theta))
    ridge = np.eye(problem.parameters)
    for _ in range(steps):
        if not len(active):
            break
        scale = np.maximum(np.einsum("bii->bi", majoriser[active]).max(axis=1), 1e-300)
        system = curvature[active] + damping[active, None, None] * majoriser[active]
        system += (1e-12 * (1 + damping[active]) * scale)[:, None, None] * ridge
        step = -np.linalg.solve(system, gradient[active][:, :, None])[:, :, 0]
        longest = np.abs(step).max(axis=1)
        step *= np.minimum(1.0, LONGEST_STEP / np.maximum(longest, 1e-300))[:, None]
        promised = -0.5 * (step * gradient[active]).sum(axis=1)
        ended = promised <= tolerance * objective[active]
        # A promise under the tolerance ends a fit only where the damping does not make it small.
        ended &= (damping[active] <= 1.0) | (damping[active] >= 1e12)
        converged[active[ended]] = True
        moved = active[~ended]
        step = step[~ended]
        new = problem.derivatives(theta[moved] + step, log_y[moved], weights[moved], delta)
        better = new[0] < objective[moved]
        accepted = moved[better]
        theta[accepted] += step[better]
        for current, values in zip((objective, gradient, curvature, majoriser), new, strict=True):
            current[accepted] = values[better]
        damping[accepted] = np.maximum(damping[accepted] * 0.2, 1e-6)
        rejected = moved[~better]
        damping[rejected] = np.minimum(damping[rejected] * 4.0, 1e13)
        # After this many rejected steps only rounding is left.
        exhausted = rejected[damping[rejected] > 1e12]
        converged[exhausted] = True
        active = np.setdiff1d(moved, exhausted, assume_unique=True)
    return theta, objective, converged


def interval(value: float | int, draws: Array, confidence: float = CONFIDENCE) -> Estimate:
    """Return the estimate with the middle `confidence` of its bootstrap draws."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(value), float(low), float(high))


def bootstrap(
    problem: PowerTerms, theta: Array, groups: ArrayLike, count: int, seed: int, delta: float = DELTA
) -> Array:
    """Return the parameters of `count` replicates of the smoothed residual bootstrap: [count parameters].

    A Huber loss with a delta far below the noise is a least-absolute-deviations fit, which depends on the
    density of the residuals near 0. Bootstraps that repeat single residuals or points get that density wrong
    and cover too little or too much; the smoothed residual bootstrap (De Angelis, Hall & Young 1993, JASA 88)
    gets it right: the points stay, and each gets a residual drawn at random plus a little normal noise. So
    every replicate has all sizes and budgets, however few. The noise of the log-loss is assumed to be the
    same everywhere.

    Args:
        problem: the points, with one log_y each.
        theta: the fit, from which every replicate starts.
        groups: [points] the independent unit of each point; points of one run share a part of their noise.
        count: replicates.
        seed: of the draws.
        delta: of the Huber loss.
    """
    generator = np.random.default_rng(seed)
    fitted = problem.predict(theta)[0]
    points = len(fitted)
    residual = (problem.log_y - fitted) * np.sqrt(points / max(1, points - problem.parameters))
    units, where = np.unique(groups, return_inverse=True)
    if len(units) == points:
        noise = _smoothed(residual, (count, points), generator)
    else:
        own = np.bincount(where, residual) / np.bincount(where)
        noise = _smoothed(own, (count, len(units)), generator)[:, where]
        noise = noise + _smoothed(residual - own[where], (count, points), generator)
    drawn = dataclasses.replace(problem, log_y=fitted + noise)
    return minimise(drawn, np.repeat(theta[None], count, axis=0), delta=delta).theta


def _smoothed(values: Array, shape: tuple[int, int], generator: np.random.Generator) -> Array:
    """Draw values at random, each with normal noise of Silverman's bandwidth 0.9 s n^(-1/5)."""
    width = 0.9 * values.std() * len(values) ** -0.2
    return generator.choice(values, shape) + width * generator.standard_normal(shape)


def prediction_interval(
    value: float | int, laws: Array, residuals: Array, parameters: int, seed: int
) -> Estimate:
    """Return the 95 % prediction interval of one more run: draws of the law, each with a random residual.

    Args:
        value: log-loss of the law at the run's place.
        laws: [bootstraps] the same of each replicate.
        residuals: [points] of the fit, widened for the `parameters` that were fitted to them.
        parameters: number of fitted parameters.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    wide = residuals * np.sqrt(len(residuals) / max(1, len(residuals) - parameters))
    noise = _smoothed(wide, (8, len(laws)), generator)
    return interval(value, (laws + noise).ravel())


def r_squared(log_y: Array, residuals: Array) -> float:
    """Return the fraction of the variance of the log-loss that a fit explains; NaN without variance."""
    total = float(((log_y - log_y.mean()) ** 2).sum())
    return 1 - float((residuals**2).sum()) / total if total > 0 else float("nan")


@dataclasses.dataclass(frozen=True)
class Frontier:
    """The compute-optimal frontier as power laws of the training compute: N = k C^a, D = k' C^b."""

    a: Estimate
    """N is proportional to C^a."""
    b: Estimate
    """D is proportional to C^b."""
    log_n: tuple[float, float]
    """log N = first + second x log C."""
    log_d: tuple[float, float]
    lowest: float
    """Least compute that the data cover."""
    highest: float
    """Greatest compute that the data cover."""

    def n(self, flops: Numbers) -> Any:
        """Return the best number of parameters for an amount of compute."""
        return np.exp(self.log_n[0] + self.log_n[1] * np.log(flops))

    def d(self, flops: Numbers) -> Any:
        """Return the best number of tokens for an amount of compute."""
        return np.exp(self.log_d[0] + self.log_d[1] * np.log(flops))

    def to_frame(self) -> "pd.DataFrame":
        """Return the exponents: exponent, value, low, high."""
        return frame_of("exponent", {"a": self.a, "b": self.b})


def frame_of(column: str, estimates: dict[str, Estimate]) -> "pd.DataFrame":
    """Return named estimates as a frame: the name under `column`, value, low, high."""
    import pandas as pd

    rows = [(name, *estimate) for name, estimate in estimates.items()]
    return pd.DataFrame(rows, columns=[column, "value", "low", "high"])


def line(x: Array, y: Array) -> tuple[float, float]:
    """Return intercept and slope of the least-squares line."""
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return float(y.mean() - slope * x.mean()), slope


def frontier_of(
    log_c: Array, log_n: Array, log_d: Array, n_draws: Array, d_draws: Array, span: tuple[float, float]
) -> Frontier:
    """Fit a frontier through optima, with intervals from their draws.

    Args:
        log_c, log_n, log_d: [optima]
        n_draws, d_draws: [draws optima] of log N and log D.
        span: compute that the data cover.
    """
    centred = log_c - log_c.mean()
    scale = (centred**2).sum()
    lines = line(log_c, log_n), line(log_c, log_d)
    a, b = (
        interval(slope, (draws - draws.mean(axis=1, keepdims=True)) @ centred / scale)
        for (_, slope), draws in zip(lines, (n_draws, d_draws), strict=True)
    )
    return Frontier(a, b, *lines, *span)

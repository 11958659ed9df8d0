"""The compute-optimal frontier as power laws: N = k C^a, D = k' C^b."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


# Sums of power laws fitted to log-losses by a summed Huber loss, many fits at a time.
#
# log L = logsumexp over terms k of (c_k - x_k . s_k), the form of Hoffmann et al. 2022 (arXiv:2203.15556),
# appendix D.3. A fit minimises the SUM over points of Huber(log L_fit - log L, delta). A mean is the same
# function divided by the number of points, and an optimiser whose tolerances are absolute then stops early.
#
# Every fit of a batch (a start, a bootstrap replicate) is a row of one array. A step is Gauss-Newton with the
# Huber loss' own curvature, damped by that of its quadratic majoriser (iteratively reweighted least squares),
# which alone never goes uphill for a linear model; the damping of each row adapts as in Levenberg-Marquardt.


Array = NDArray[np.float64]
DELTA = 1e-3
"""Hoffmann et al.'s delta, in units of log-loss."""
CHUNK = 250_000
"""Fits x points worked on at once, so that the arrays stay in the processor's cache."""
LONGEST_STEP = 2.0


@dataclasses.dataclass(frozen=True)
class PowerTerms:
    """Which parameters make which term, and the points to fit.

    Parameters in order: one log-coefficient a term, then one exponent a variable. A term is
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
        """Numbers that a fit finds."""
        return self.terms + len(self.term_of)

    @property
    def _owner(self) -> list[int]:
        return [*range(self.terms), *self.term_of]

    def centred(self) -> tuple["PowerTerms", Array]:
        """The same problem around the mean of each variable, where coefficient and exponent are nearly
        independent, and the means."""
        means = self.log_x.mean(axis=1) if len(self.term_of) else np.zeros(0)
        return dataclasses.replace(self, log_x=self.log_x - means[:, None]), means

    def shift(self, theta: Array, means: Array) -> Array:
        """Parameters [... parameters] of this problem as those of the one shifted by `means`."""
        moved = np.array(theta, dtype=float)
        for index, term in enumerate(self.term_of):
            moved[..., term] -= theta[..., self.terms + index] * means[index]
        return moved

    def log_terms(self, theta: Array) -> Array:
        """[fits terms points]"""
        found = np.repeat(theta[:, : self.terms, None], self.log_y.shape[-1], axis=2)
        for index, term in enumerate(self.term_of):
            found[:, term] -= theta[:, self.terms + index, None] * self.log_x[index]
        return found

    def predict(self, theta: Array) -> Array:
        """log L of each fit at each point: [fits points]."""
        return np.logaddexp.reduce(self.log_terms(np.atleast_2d(theta)), axis=1)

    def objective(self, theta: Array, weights: Array | None = None, delta: float = DELTA) -> Array:
        """Summed Huber loss of each fit: [fits]."""
        size = np.abs(self.predict(theta) - self.log_y)
        loss = np.where(size <= delta, 0.5 * size * size, delta * (size - 0.5 * delta))
        return (loss if weights is None else loss * weights).sum(axis=1)

    def gradient(self, theta: Array, delta: float = DELTA) -> Array:
        """Analytic gradient of `objective` of each fit: [fits parameters]."""
        return self._look(np.atleast_2d(theta), self.log_y, np.ones((1, self.log_y.shape[-1])), delta)[1]

    def _look(
        self, theta: Array, log_y: Array, weights: Array, delta: float
    ) -> tuple[Array, Array, Array, Array]:
        """Objective, gradient, curvature and curvature of the majoriser."""
        terms = self.log_terms(theta)
        top = terms.max(axis=1, keepdims=True)
        share = np.exp(terms - top)
        total = share.sum(axis=1)
        residual = top[:, 0] + np.log(total) - log_y
        share /= total[:, None]
        size = np.abs(residual)
        inside = size <= delta
        loss = np.where(inside, 0.5 * size * size, delta * (size - 0.5 * delta))
        slope = self._slopes(share)
        push = np.clip(residual, -delta, delta) * weights
        gradient = np.matmul(slope, push[:, :, None])[:, :, 0]
        wide = weights * np.minimum(1.0, delta / np.maximum(size, 1e-300))
        curvature = np.matmul(slope * (weights * inside)[:, None], slope.transpose(0, 2, 1))
        majoriser = np.matmul(slope * wide[:, None], slope.transpose(0, 2, 1))
        return (loss * weights).sum(axis=1), gradient, curvature, majoriser

    def _slopes(self, share: Array) -> Array:
        """d log L / d parameter: [fits parameters points]."""
        slope = share[:, self._owner]
        slope[:, self.terms :] *= -self.log_x
        return slope


@dataclasses.dataclass(frozen=True)
class Minima:
    """Where a batch of fits ended."""

    theta: Array
    """[fits parameters]"""
    objective: Array
    """[fits]"""
    converged: NDArray[np.bool_]
    """[fits]: whether no step promises a relative gain over the tolerance."""

    @property
    def best(self) -> int:
        """Index of the least objective."""
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
        steps: at most so many for a fit.
        tolerance: stop where the next step promises less than this share of the objective.
    """
    inner, means = problem.centred()
    theta = inner.shift(np.atleast_2d(np.asarray(starts, dtype=float)), means)
    points = problem.log_y.shape[-1]
    wanted = (len(theta), points)
    weights = np.broadcast_to(np.ones(points) if weights is None else np.asarray(weights, float), wanted)
    log_y = np.broadcast_to(problem.log_y, wanted)
    rows = max(1, CHUNK // max(1, points))
    parts = [
        _descend(inner, theta[part], log_y[part], weights[part], delta, steps, tolerance)
        for part in (slice(at, at + rows) for at in range(0, len(theta), rows))
    ]
    found, objective, converged = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Minima(inner.shift(found, -means), objective, converged)


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
    objective, gradient, curvature, majoriser = problem._look(theta, log_y, weights, delta)
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
        found = problem._look(theta[moved] + step, log_y[moved], weights[moved], delta)
        better = found[0] < objective[moved]
        taken = moved[better]
        theta[taken] += step[better]
        for kept, new in zip((objective, gradient, curvature, majoriser), found, strict=True):
            kept[taken] = new[better]
        # Without a gain for so long, rounding is what is left.
        damping[taken] = np.maximum(damping[taken] * 0.2, 1e-6)
        refused = moved[~better]
        damping[refused] = np.minimum(damping[refused] * 4.0, 1e13)
        lost = refused[damping[refused] > 1e12]
        converged[lost] = True
        active = np.setdiff1d(moved, lost, assume_unique=True)
    return theta, objective, converged


# Bootstrap draws of a fit, intervals, and how much of the variance a fit explains.
#
# A Huber loss with a delta far below the noise is a least-absolute-deviations fit, which depends on how dense
# the residuals are near 0. Bootstraps that repeat single residuals or points get that density wrong and cover
# too little or too much; the smoothed residual bootstrap (De Angelis, Hall & Young 1993, JASA 88) gets it
# right: the points stay where they are, and each gets a residual drawn at random plus a little normal noise.
# So every replicate has all sizes and budgets, however few. It takes the noise of the log-loss to be alike
# everywhere.


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number and its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def bootstrap(
    problem: PowerTerms, theta: Array, groups: Any, count: int, seed: int, delta: float = DELTA
) -> Array:
    """Parameters of `count` replicates: [count parameters].

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
    """Draws of values, each with normal noise of Silverman's bandwidth 0.9 s n^(-1/5)."""
    width = 0.9 * values.std() * len(values) ** -0.2
    return generator.choice(values, shape) + width * generator.standard_normal(shape)


def interval(value: float | int, draws: Array, confidence: float = 0.95) -> Estimate:
    """The estimate with the middle `confidence` of its bootstrap draws."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(value), float(low), float(high))


def prediction_interval(
    value: float | int, laws: Array, residuals: Array, parameters: int, seed: int, confidence: float = 0.95
) -> Estimate:
    """Where one more run is to be expected: draws of the law, each with a residual drawn at random.

    Args:
        value: the law at the run's place (of the logarithm, as all here).
        laws: [bootstraps] the same of each replicate.
        residuals: [points] of the fit, widened for the `parameters` that were fitted to them.
        parameters: how many.
        seed: of the draws.
        confidence: of the interval.
    """
    generator = np.random.default_rng(seed)
    wide = residuals * np.sqrt(len(residuals) / max(1, len(residuals) - parameters))
    noise = _smoothed(wide, (8, len(laws)), generator)
    return interval(value, (laws + noise).ravel(), confidence)


def r_squared(log_y: Array, fitted: Array) -> float:
    """Share of the variance of the log-loss that a fit explains; NaN if there is no variance."""
    total = float(((log_y - log_y.mean()) ** 2).sum())
    return 1 - float(((log_y - fitted) ** 2).sum()) / total if total > 0 else float("nan")


@dataclasses.dataclass(frozen=True)
class Frontier:
    """Best size and tokens as power laws of the training compute."""

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

    def n(self, flops: Any) -> Any:
        """Best number of parameters for so much compute."""
        return np.exp(self.log_n[0] + self.log_n[1] * np.log(flops))

    def d(self, flops: Any) -> Any:
        """Best number of tokens for so much compute."""
        return np.exp(self.log_d[0] + self.log_d[1] * np.log(flops))

    def to_frame(self) -> "pd.DataFrame":
        """exponent, value, low, high."""
        import pandas as pd

        return pd.DataFrame(
            [{"exponent": name, **dataclasses.asdict(getattr(self, name))} for name in ("a", "b")]
        )


def line(x: Array, y: Array) -> tuple[float, float]:
    """Least-squares line: intercept and slope."""
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return float(y.mean() - slope * x.mean()), slope


def frontier_of(
    log_c: Array, log_n: Array, log_d: Array, n_draws: Array, d_draws: Array, span: tuple[float, float]
) -> Frontier:
    """A frontier through optima, with intervals of their draws.

    Args:
        log_c, log_n, log_d: [optima]
        n_draws, d_draws: [draws optima] of log N and log D.
        span: compute that the data cover.
    """
    centred = log_c - log_c.mean()
    scale = (centred**2).sum()
    slopes = [(draws - draws.mean(axis=1, keepdims=True)) @ centred / scale for draws in (n_draws, d_draws)]
    found_n, found_d = line(log_c, log_n), line(log_c, log_d)
    a, b = (interval(found[1], draws) for found, draws in zip((found_n, found_d), slopes, strict=True))
    return Frontier(a, b, found_n, found_d, *span)

"""Bootstrap draws of a fit, intervals, and how much of the variance a fit explains.

A Huber loss with a delta far below the noise is a least-absolute-deviations fit, which depends on how dense
the residuals are near 0. Bootstraps that repeat single residuals or points get that density wrong and cover
too little or too much; the smoothed residual bootstrap (De Angelis, Hall & Young 1993, JASA 88) gets it
right: the points stay where they are, and each gets a residual drawn at random plus a little normal noise.
So every replicate has all sizes and budgets, however few. It takes the noise of the log-loss to be alike
everywhere.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.evals.scaling.huber import DELTA, PowerTerms, minimise

Array = NDArray[np.float64]


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

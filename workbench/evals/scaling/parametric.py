"""Hoffmann et al. 2022 (arXiv:2203.15556), approach 3: L(N, D) = E + A / N^alpha + B / D^beta."""

import dataclasses
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError
from workbench.evals.scaling.frontier import Frontier
from workbench.evals.scaling.huber import DELTA, PowerTerms, minimise
from workbench.evals.scaling.points import ScalingPoints
from workbench.evals.scaling.resampling import (
    Array,
    Estimate,
    bootstrap,
    interval,
    prediction_interval,
    r_squared,
)

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("E", "A", "B", "alpha", "beta")
GRID = (
    (-1.0, -0.5, 0.0, 0.5, 1.0),
    (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    (0.0, 0.5, 1.0, 1.5, 2.0),
    (0.0, 0.5, 1.0, 1.5, 2.0),
)
"""Starts of log E, log A, log B, alpha, beta (appendix D.3): 4,500 in all."""
BOOTSTRAPS = 1000


@dataclasses.dataclass(frozen=True)
class ParametricFit:
    """L(N, D) = E + A / N^alpha + B / D^beta, fitted to points."""

    points: ScalingPoints
    theta: Array
    """log E, log A, log B, alpha, beta."""
    draws: Array
    """[bootstraps 5]: the same of each bootstrap replicate."""
    objective: float
    """Summed Huber loss at the minimum."""
    starts: int
    agreeing: int
    """Starts that ended at the minimum (objective within 1e-6 of it, relatively)."""
    delta: float = DELTA

    def __repr__(self) -> str:
        told = ", ".join(f"{name} = {one}" for name, one in self.constants.items())
        return f"ParametricFit({told}; {len(self.points)} points)"

    @cached_property
    def constants(self) -> dict[str, Estimate]:
        """E, A, B, alpha, beta with 95 % intervals."""
        ends = [interval(self.theta[k], self.draws[:, k]) for k in range(5)]
        linear = [Estimate(*(float(np.exp(v)) for v in dataclasses.astuple(one))) for one in ends[:3]]
        return dict(zip(NAMES, [*linear, *ends[3:]], strict=True))

    @property
    def vague(self) -> bool:
        """Whether the points hardly determine the law: an exponent known to no better than a factor of 3."""
        ends = [self.constants[name] for name in ("alpha", "beta")]
        return any(one.low <= 0 or one.high > 3 * one.low for one in ends)

    @cached_property
    def frontier(self) -> Frontier:
        """N and D that are best for compute 6ND: N = G (C/6)^a, D = (C/6)^b / G, a = beta / (alpha + beta),
        G = (alpha A / beta B)^(1 / (alpha + beta)) (equation 4)."""
        log_g, a = _optimum(self.theta[None])
        a_draws = _optimum(self.draws)[1]
        share, other = interval(a[0], a_draws), interval(1 - a[0], 1 - a_draws)
        six = np.log(6)
        span = float(self.points.c.min()), float(self.points.c.max())
        log_n = (float(log_g[0] - a[0] * six), float(a[0]))
        log_d = (float(-log_g[0] - (1 - a[0]) * six), float(1 - a[0]))
        return Frontier(share, other, log_n, log_d, *span)

    def loss(self, n: Any, d: Any) -> Any:
        """The law's loss for `n` parameters and `d` tokens: numbers, or arrays that broadcast."""
        return np.exp(_log_loss(self.theta[None], n, d)[0])

    def predict(self, n: float | int, d: float | int, seed: int = 0) -> Estimate:
        """The loss of one more run, with a 95 % prediction interval: the law's own uncertainty and a
        run's distance from it."""
        here = float(np.log(self.loss(n, d)))
        laws = _log_loss(self.draws, n, d)
        ends = prediction_interval(here, laws, self.residuals, 5, seed)
        return Estimate(*(float(np.exp(end)) for end in dataclasses.astuple(ends)))

    @cached_property
    def residuals(self) -> Array:
        """log L - log L fitted: [points]."""
        return np.log(self.points.y) - np.log(self.loss(self.points.n, self.points.d))

    @property
    def r2(self) -> float:
        """Share of the variance of the log-loss that is explained."""
        y = np.log(self.points.y)
        return r_squared(y, y - self.residuals)

    def left_out(self) -> "pd.DataFrame":
        """The fit without each size, and without each budget of tokens where there are a few: what,
        left_out, E, A, B, alpha, beta, a, and error, the root mean square of the relative error on the points
        that were left out."""
        import pandas as pd

        rows = []
        for what, values in (("size", self.points.n), ("tokens", self.points.d)):
            groups = np.unique(values)
            if not 2 < len(groups) <= 60:
                continue
            keep = np.array([values != one for one in groups])
            enough = [_identified(self.points.choose(mask)) for mask in keep]
            keep, groups = keep[enough], groups[enough]
            if not len(keep):
                continue
            found = minimise(
                _problem(self.points), self._beginnings(len(keep)), keep.astype(float), self.delta
            )
            for theta, one, mask in zip(found.theta, groups, ~keep, strict=True):
                error = _log_loss(theta[None], self.points.n[mask], self.points.d[mask])[0]
                error = error - np.log(self.points.y[mask])
                numbers = dict(zip(NAMES, [*np.exp(theta[:3]), *theta[3:]], strict=True))
                a = theta[4] / (theta[3] + theta[4])
                rows.append({"what": what, "left_out": one, **numbers, "a": a,
                             "error": float(np.sqrt((error**2).mean()))})  # fmt: skip
        columns = ["what", "left_out", *NAMES, "a", "error"]
        return pd.DataFrame(rows, columns=columns)

    def _beginnings(self, count: int) -> Array:
        return np.repeat(self.theta[None], count, axis=0)

    def to_frame(self) -> "pd.DataFrame":
        """constant, value, low, high."""
        import pandas as pd

        rows = self.constants | {"a": self.frontier.a, "b": self.frontier.b}
        return pd.DataFrame([{"constant": name, **dataclasses.asdict(one)} for name, one in rows.items()])

    def plot(self, ax: Any = None) -> Any:
        """Loss over N by tokens with the law, and its contours with the frontier: two axes."""
        from workbench.plots.scaling import plot_parametric

        return plot_parametric(self, ax)


def fit_parametric(
    points: ScalingPoints,
    *,
    bootstraps: int = BOOTSTRAPS,
    grid: Any = GRID,
    delta: float = DELTA,
    seed: int = 0,
) -> ParametricFit:
    """Minimise the summed Huber loss of the log-loss from a grid of starts; bootstrap the minimum.

    Args:
        points: at least 8 of 3 sizes and 3 numbers of tokens.
        bootstraps: replicates behind the intervals.
        grid: starts of log E, log A, log B, alpha and beta.
        delta: of the Huber loss.
        seed: of the bootstrap.

    Raises:
        InputError: too few points, sizes or token counts; or a loss that falls with N or D nowhere.
    """
    points.checked(8, 3, "the parametric fit")
    if not _identified(points):
        raise InputError(
            "the parametric fit needs at least 3 different numbers of tokens, not in step with N; vary both."
        )
    problem = _problem(points)
    starts = np.array(list(product(*grid)))
    found = minimise(problem, starts, delta=delta)
    best = found.objective[found.best]
    theta = found.theta[found.best]
    if theta[3] <= 0 or theta[4] <= 0:
        what = "size" if theta[3] <= 0 else "number of tokens"
        raise InputError(f"the loss does not fall with the {what}; no scaling law follows from these points.")
    draws = bootstrap(problem, theta, points.groups, bootstraps, seed, delta)
    agreeing = int((found.objective <= best * (1 + 1e-6) + 1e-15).sum())
    return ParametricFit(points, theta, draws, float(best), len(starts), agreeing, delta)


def _problem(points: ScalingPoints) -> PowerTerms:
    return PowerTerms(np.log([points.n, points.d]), (1, 2), 3, np.log(points.y))


def _identified(points: ScalingPoints) -> bool:
    """Whether N and D vary apart from each other, each over three values."""
    if len(points) < 6 or len(np.unique(points.n)) < 3 or len(np.unique(points.d)) < 3:
        return False
    together = np.log([points.n, points.d])
    return bool(abs(np.corrcoef(together)[0, 1]) < 0.999)


def _log_loss(theta: Array, n: Any, d: Any) -> Array:
    n, d = np.broadcast_arrays(np.asarray(n, float), np.asarray(d, float))
    flat = PowerTerms(np.log([n.ravel(), d.ravel()]), (1, 2), 3, np.zeros(n.size))
    return flat.predict(theta).reshape(len(theta), *n.shape)


def _optimum(theta: Array) -> tuple[Array, Array]:
    """log G and a of each row of constants."""
    alpha, beta = theta[:, 3], theta[:, 4]
    log_g = (np.log(np.abs(alpha / beta)) + theta[:, 1] - theta[:, 2]) / (alpha + beta)
    return log_g, beta / (alpha + beta)

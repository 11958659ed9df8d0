"""Kaplan et al. 2020 (arXiv:2001.08361): L(N) = (N_c / N)^alpha_N and L(D) = (D_c / D)^alpha_D, where the
other of the two is no bottleneck; with or without a loss that remains."""

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.errors import InputError
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

Variable = Literal["n", "d"]


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """Loss as a power of the size or of the tokens."""

    points: ScalingPoints
    """Those that were fitted."""
    variable: Variable
    theta: Array
    """Log-coefficient (and before it log of the remaining loss, if there is one), exponent."""
    draws: Array
    """[bootstraps parameters]"""
    notes: tuple[str, ...] = ()

    @property
    def irreducible(self) -> bool:
        """Whether a loss remains at infinite size."""
        return len(self.theta) == 3

    @property
    def x(self) -> Array:
        """N or D of the fitted points."""
        return self.points.n if self.variable == "n" else self.points.d

    @cached_property
    def exponent(self) -> Estimate:
        """alpha"""
        return interval(self.theta[-1], self.draws[:, -1])

    @cached_property
    def scale(self) -> Estimate:
        """N_c or D_c, the size at which the power alone is 1; of its logarithm an interval is made."""
        at, draws = self.theta[-2] / self.theta[-1], self.draws[:, -2] / self.draws[:, -1]
        ends = dataclasses.astuple(interval(at, draws))
        with np.errstate(over="ignore"):
            return Estimate(*(float(np.exp(end)) for end in ends))

    @cached_property
    def constants(self) -> dict[str, Estimate]:
        """The named constants with their 95 % intervals."""
        letter = self.variable.upper()
        found = {f"{letter}_c": self.scale, f"alpha_{letter}": self.exponent}
        if self.irreducible:
            ends = dataclasses.astuple(interval(self.theta[0], self.draws[:, 0]))
            found = {"E": Estimate(*(float(np.exp(end)) for end in ends)), **found}
        return found

    def loss(self, x: Any) -> Array:
        """The law's loss at N (or D) = x."""
        return np.exp(self._logs(self.theta[None], np.atleast_1d(x))[0])

    def predict(self, x: float | int, seed: int = 0) -> Estimate:
        """The loss of one more run, with a 95 % prediction interval."""
        laws = self._logs(self.draws, np.array([x]))[:, 0]
        ends = prediction_interval(
            float(np.log(self.loss(x)[0])), laws, self.residuals, len(self.theta), seed
        )
        return Estimate(*(float(np.exp(end)) for end in dataclasses.astuple(ends)))

    def band(self, x: Array) -> tuple[Array, Array]:
        """95 % interval of the law at each x."""
        logs = self._logs(self.draws, x)
        low, high = np.quantile(logs, [0.025, 0.975], axis=0)
        return np.exp(low), np.exp(high)

    @cached_property
    def residuals(self) -> Array:
        """log L - log L fitted: [points]."""
        return np.log(self.points.y) - np.log(self.loss(self.x))

    @property
    def r2(self) -> float:
        """Share of the variance of the log-loss that is explained."""
        y = np.log(self.points.y)
        return r_squared(y, y - self.residuals)

    @cached_property
    def held_out(self) -> float:
        """Root mean square of the relative error on each size (or number of tokens), fitted without it; NaN
        where what is left is too little."""
        groups = np.unique(self.x)
        if len(groups) <= len(self.theta):
            return float("nan")
        keep = np.array([self.x != one for one in groups], dtype=float)
        found = minimise(
            _problem(self.points.y, self.x, self.irreducible), np.repeat(self.theta[None], len(keep), 0), keep
        )
        logs = self._logs(found.theta, self.x) - np.log(self.points.y)
        return float(np.sqrt((logs[keep == 0] ** 2).mean()))

    def _logs(self, theta: Array, x: Any) -> Array:
        return _problem(np.ones(len(x)), np.asarray(x, float), self.irreducible).predict(theta)

    def to_frame(self) -> "pd.DataFrame":
        """constant, value, low, high."""
        import pandas as pd

        return pd.DataFrame(
            [{"constant": name, **dataclasses.asdict(one)} for name, one in self.constants.items()]
        )

    def plot(self, ax: Any = None) -> Any:
        """Loss over N or D with the law and its interval."""
        from workbench.plots.scaling_curves import plot_power

        return plot_power(self, ax)


def fit_power(
    points: ScalingPoints,
    variable: Variable = "n",
    *,
    irreducible: bool = False,
    bootstraps: int = 1000,
    seed: int = 0,
) -> PowerLaw:
    """Fit Kaplan's L(N), on the points with the most tokens of each size, or L(D), on the largest models.

    Args:
        points: at least 4 of 3 sizes (or numbers of tokens).
        variable: `n` or `d`.
        irreducible: add a constant E, the loss that remains (Henighan et al. 2020, arXiv:2010.14701).
        bootstraps: replicates behind the intervals.
        seed: of the bootstrap.

    Raises:
        InputError: too few points or sizes, or a loss that does not fall.
    """
    if variable not in ("n", "d"):
        raise InputError(f"a power law is over n or d; found {variable!r}.")
    # Evaluations on the way of one run give L(D) many points, L(N) only the last of each.
    kept, notes = _unlimited(points, variable)
    x = kept.n if variable == "n" else kept.d
    what = f"L({variable.upper()})"
    least = 4 if irreducible else 3
    if len(np.unique(x)) < least:
        name = "sizes" if variable == "n" else "numbers of tokens"
        raise InputError(f"{what} needs at least {least} different {name}; found {len(np.unique(x))}.")
    problem = _problem(kept.y, x, irreducible)
    slopes = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.8])
    level = np.log(kept.y).mean() + slopes * np.log(x).mean()
    starts = np.stack([level, slopes], axis=1)
    if irreducible:
        floor = np.log(kept.y.min()) + np.log([0.2, 0.5, 0.8, 0.95])
        starts = np.array([[e, *row] for e in floor for row in starts])
    found = minimise(problem, starts)
    theta = found.theta[found.best]
    if theta[-1] <= 0:
        raise InputError(f"the loss does not fall with {variable.upper()}; no power law follows from it.")
    draws = bootstrap(problem, theta, kept.groups, bootstraps, seed, DELTA)
    return PowerLaw(kept, variable, theta, draws, tuple(notes))


def _unlimited(points: ScalingPoints, variable: Variable) -> tuple[ScalingPoints, list[str]]:
    """The points where the other variable is at its greatest, and what to beware of."""
    if variable == "d":
        return points.choose(points.n == points.n.max()), []
    most = np.array([points.d[points.n == size].max() for size in points.n])
    kept = points.choose(points.d >= 0.95 * most)
    kept = dataclasses.replace(kept, curves=False)
    if kept.d.max() > 1.1 * kept.d.min():
        return kept, [
            f"sizes have seen from {kept.d.min():.3g} to {kept.d.max():.3g} tokens: L(N) mixes size and data"
        ]
    return kept, []


def _problem(y: Array, x: Array, irreducible: bool) -> PowerTerms:
    terms = 2 if irreducible else 1
    return PowerTerms(np.log(x)[None], (terms - 1,), terms, np.log(y))

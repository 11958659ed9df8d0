"""Scaling laws fitted to points: L(N), L(D), L(N, D), accuracy on minimal pairs, and the critical batch
size."""

import dataclasses
import functools
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.console import make_table, stack
from workbench.errors import DataError, InputError, shown
from workbench.io import read_json
from workbench.result import Result
from workbench.scaling.fitting import (
    DELTA,
    Array,
    Frontier,
    Numbers,
    PowerTerms,
    bootstrap,
    constants_table,
    figure,
    frame_of,
    interval,
    minimise,
    prediction_interval,
    r_squared,
    span,
)
from workbench.scaling.points import ScalingPoints, read_frame
from workbench.stats import Estimate, student_reach

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

Variable = Literal["n", "d"]
Kind = Literal["linear", "logistic"]
NAMES = ("E", "A", "B", "alpha", "beta")
GRID = (
    (-1.0, -0.5, 0.0, 0.5, 1.0),
    (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    (0.0, 0.5, 1.0, 1.5, 2.0),
    (0.0, 0.5, 1.0, 1.5, 2.0),
)
"""Starts of log E, log A, log B, alpha, beta (Hoffmann et al. 2022, appendix D.3): 4,500 in all."""
BOOTSTRAPS = 1000
ROUNDING = 1e-9
"""A fall of the log-loss over the data below this may be rounding."""
CHANCE = 0.5
LOGISTIC_STEPS, RIDGE = 100, 1e-4
NOISE_NAMES = ("noise_scale", "b_simple", "simple_noise_scale", "critical_batch")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PowerLaw(Result):
    """Loss as a power of the size or of the tokens: L(N) = (N_c / N)^alpha_N or L(D) = (D_c / D)^alpha_D
    (Kaplan et al. 2020, arXiv:2001.08361), with or without an irreducible loss."""

    points: ScalingPoints
    """The fitted points."""
    variable: Variable
    theta: Array
    """Log-coefficient (after the log of the irreducible loss, if there is one), exponent."""
    draws: Array
    """[bootstraps parameters]"""
    notes: tuple[str, ...] = ()

    @property
    def irreducible(self) -> bool:
        """True if a loss remains at infinite size."""
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
        """N_c or D_c, the size at which the power alone is 1; the interval is one of its logarithm."""
        return interval(self.theta[-2] / self.theta[-1], self.draws[:, -2] / self.draws[:, -1]).exp()

    @cached_property
    def constants(self) -> dict[str, Estimate]:
        """The named constants with their 95 % intervals."""
        letter = self.variable.upper()
        floor = {"E": interval(self.theta[0], self.draws[:, 0]).exp()} if self.irreducible else {}
        return floor | {f"{letter}_c": self.scale, f"alpha_{letter}": self.exponent}

    def loss(self, x: Numbers) -> Array:
        """Return the law's loss at N (or D) = x."""
        return np.exp(self._logs(self.theta[None], np.atleast_1d(x))[0])

    def predict(self, x: float | int, seed: int = 0) -> Estimate:
        """Return the loss of one more run, with a 95 % prediction interval."""
        laws = self._logs(self.draws, np.array([x]))[:, 0]
        log_loss = float(np.log(self.loss(x)[0]))
        return prediction_interval(log_loss, laws, self.residuals, len(self.theta), seed).exp()

    def band(self, x: Array) -> tuple[Array, Array]:
        """Return the 95 % interval of the law at each x."""
        low, high = np.quantile(self._logs(self.draws, x), [0.025, 0.975], axis=0)
        return np.exp(low), np.exp(high)

    @cached_property
    def residuals(self) -> Array:
        """log L - log L fitted: [points]."""
        return np.log(self.points.y) - np.log(self.loss(self.x))

    @property
    def r2(self) -> float:
        """Fraction of the variance of the log-loss that is explained."""
        return r_squared(np.log(self.points.y), self.residuals)

    @cached_property
    def held_out(self) -> float:
        """Root mean square of the relative error on each size (or number of tokens), fitted without it; NaN
        where too few are left."""
        groups = np.unique(self.x)
        if len(groups) <= len(self.theta):
            return float("nan")
        keep = np.array([self.x != value for value in groups], dtype=float)
        problem = _one_variable(self.points.y, self.x, self.irreducible)
        fits = minimise(problem, np.repeat(self.theta[None], len(keep), 0), keep)
        errors = self._logs(fits.theta, self.x) - np.log(self.points.y)
        return float(np.sqrt((errors[keep == 0] ** 2).mean()))

    def _logs(self, theta: Array, x: Numbers) -> Array:
        x = np.asarray(x, float)
        return _one_variable(np.ones(len(x)), x, self.irreducible).predict(theta)

    def to_frame(self) -> "pd.DataFrame":
        """Return the constants: constant, value, low, high."""
        return frame_of("constant", self.constants)

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return the constants with intervals and the quality of the fit; `rows` has no effect."""
        held = "" if np.isnan(self.held_out) else f"; held-out error {100 * self.held_out:.2g} %"
        return stack(
            constants_table(self.constants),
            f"{len(self.points)} points, R² {self.r2:.4f}{held}",
            *(f"note: {note}" for note in self.notes),
        )

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the loss over N or D with the law and its interval, and return the figure."""
        from workbench.plots.scaling import plot_power

        return plot_power(
            self.x,
            self.points.y,
            self.loss,
            self.band,
            variable=self.variable,
            scale=self.scale.value,
            exponent=self.exponent.value,
            floor=self.constants["E"].value if self.irreducible else None,
            xlabel=f"N, {self.points.count} parameters" if self.variable == "n" else "D, tokens",
            ylabel=f"loss, {self.points.unit}",
            ax=ax,
        )


def fit_power(
    points: ScalingPoints,
    variable: Variable = "n",
    *,
    irreducible: bool = False,
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
) -> PowerLaw:
    """Fit Kaplan's L(N), to the points with the most tokens of each size, or L(D), to the largest models.

    Args:
        points: at least 4 of 3 sizes (or numbers of tokens).
        variable: `n` or `d`.
        irreducible: add a constant E, the loss that remains (Henighan et al. 2020, arXiv:2010.14701).
        bootstraps: replicates for the intervals.
        seed: of the bootstrap.

    Raises:
        InputError: too few points or sizes, or a loss that does not fall.
    """
    if variable not in ("n", "d"):
        raise InputError(f"variable must be 'n' or 'd'; found {variable!r}.")
    kept, notes = _not_limited_by_the_other(points, variable)
    x = kept.n if variable == "n" else kept.d
    least = 4 if irreducible else 3
    if len(np.unique(x)) < least:
        name = "sizes" if variable == "n" else "numbers of tokens"
        raise InputError(
            f"L({variable.upper()}) needs at least {least} different {name}; found {len(np.unique(x))}."
        )
    problem = _one_variable(kept.y, x, irreducible)
    slopes = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.8])
    level = np.log(kept.y).mean() + slopes * np.log(x).mean()
    starts = np.stack([level, slopes], axis=1)
    if irreducible:
        floor = np.log(kept.y.min()) + np.log([0.2, 0.5, 0.8, 0.95])
        starts = np.array([[e, *row] for e in floor for row in starts])
    fits = minimise(problem, starts)
    theta = fits.theta[fits.best]
    if theta[-1] * np.ptp(np.log(x)) <= ROUNDING:
        raise InputError(f"the loss does not fall with {variable.upper()}; no power law can be fitted.")
    draws = bootstrap(problem, theta, kept.groups, bootstraps, seed, DELTA)
    return PowerLaw(kept, variable, theta, draws, tuple(notes))


def _not_limited_by_the_other(points: ScalingPoints, variable: Variable) -> tuple[ScalingPoints, list[str]]:
    """Return the points where the other variable is largest, and caveats.

    Evaluations along one run give L(D) many points, but L(N) only the last of each.
    """
    if variable == "d":
        return points.choose(points.n == points.n.max()), []
    most = np.array([points.d[points.n == size].max() for size in points.n])
    kept = dataclasses.replace(points.choose(points.d >= 0.95 * most), curves=False)
    if kept.d.max() <= 1.1 * kept.d.min():
        return kept, []
    return kept, [
        f"sizes have seen from {kept.d.min():.3g} to {kept.d.max():.3g} tokens: L(N) mixes size and data"
    ]


def _one_variable(y: Array, x: Array, irreducible: bool) -> PowerTerms:
    terms = 2 if irreducible else 1
    return PowerTerms(np.log(x)[None], (terms - 1,), terms, np.log(y))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ParametricFit(Result):
    """L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, arXiv:2203.15556, approach 3)."""

    points: ScalingPoints
    theta: Array
    """log E, log A, log B, alpha, beta."""
    draws: Array
    """[bootstraps 5]: the same of each bootstrap replicate."""
    objective: float
    """Summed Huber loss at the minimum."""
    starts: int
    agreeing: int
    """Starts that ended at the minimum (relative difference of the objective within 1e-6)."""
    delta: float = DELTA

    def __repr__(self) -> str:
        constants = ", ".join(f"{name} = {estimate}" for name, estimate in self.constants.items())
        return f"ParametricFit({constants}; {len(self.points)} points)"

    @cached_property
    def constants(self) -> dict[str, Estimate]:
        """E, A, B, alpha, beta with 95 % intervals."""
        fitted = [interval(self.theta[k], self.draws[:, k]) for k in range(5)]
        return dict(zip(NAMES, [*(log.exp() for log in fitted[:3]), *fitted[3:]], strict=True))

    @property
    def vague(self) -> bool:
        """True if the points hardly determine the law: an exponent is known to no better than a factor of
        3."""
        exponents = [self.constants[name] for name in ("alpha", "beta")]
        return any(exponent.low <= 0 or exponent.high > 3 * exponent.low for exponent in exponents)

    @cached_property
    def frontier(self) -> Frontier:
        """Best N and D for compute 6ND: N = G (C/6)^a, D = (C/6)^b / G, a = beta / (alpha + beta),
        G = (alpha A / beta B)^(1 / (alpha + beta)) (equation 4)."""
        log_g, a = _optimum(self.theta[None])
        a_draws = _optimum(self.draws)[1]
        six = np.log(6)
        log_n = (float(log_g[0] - a[0] * six), float(a[0]))
        log_d = (float(-log_g[0] - (1 - a[0]) * six), float(1 - a[0]))
        exponents = interval(a[0], a_draws), interval(1 - a[0], 1 - a_draws)
        return Frontier(*exponents, log_n, log_d, float(self.points.c.min()), float(self.points.c.max()))

    def loss(self, n: Numbers, d: Numbers) -> Any:
        """Return the law's loss for `n` parameters and `d` tokens: numbers, or arrays that broadcast."""
        return np.exp(_log_loss(self.theta[None], n, d)[0])

    def predict(self, n: float | int, d: float | int, seed: int = 0) -> Estimate:
        """Return the loss of one more run with a 95 % prediction interval: the uncertainty of the law and
        the scatter of runs around it."""
        log_loss = float(np.log(self.loss(n, d)))
        return prediction_interval(log_loss, _log_loss(self.draws, n, d), self.residuals, 5, seed).exp()

    @cached_property
    def residuals(self) -> Array:
        """log L - log L fitted: [points]."""
        return np.log(self.points.y) - np.log(self.loss(self.points.n, self.points.d))

    @property
    def r2(self) -> float:
        """Fraction of the variance of the log-loss that is explained."""
        return r_squared(np.log(self.points.y), self.residuals)

    def left_out(self) -> "pd.DataFrame":
        """Refit without each size, and without each number of tokens if there are few.

        Returns:
            what (`size` or `tokens`), left_out, E, A, B, alpha, beta, a, and error, the root mean square of
            the relative error on the held-out points.
        """
        import pandas as pd

        rows = []
        problem = _two_variables(self.points)
        for what, values in (("size", self.points.n), ("tokens", self.points.d)):
            groups = np.unique(values)
            if not 2 < len(groups) <= 60:
                continue
            keep = np.array([values != group for group in groups])
            enough = [_identified(self.points.choose(mask)) for mask in keep]
            keep, groups = keep[enough], groups[enough]
            if not len(keep):
                continue
            starts = np.repeat(self.theta[None], len(keep), axis=0)
            fits = minimise(problem, starts, keep.astype(float), self.delta)
            for theta, group, mask in zip(fits.theta, groups, ~keep, strict=True):
                error = _log_loss(theta[None], self.points.n[mask], self.points.d[mask])[0]
                error = error - np.log(self.points.y[mask])
                a = theta[4] / (theta[3] + theta[4])
                rows.append([what, group, *np.exp(theta[:3]), *theta[3:], a, np.sqrt((error**2).mean())])
        return pd.DataFrame(rows, columns=["what", "left_out", *NAMES, "a", "error"])

    def to_frame(self) -> "pd.DataFrame":
        """Return the constants and the exponents of the frontier: constant, value, low, high."""
        return frame_of("constant", self.constants | {"a": self.frontier.a, "b": self.frontier.b})

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return the constants with intervals, the fit, and what leaving out a size or a number of tokens
        changes; `rows` has no effect."""
        parts: list[RenderableType] = [
            constants_table(self.constants | {"a": self.frontier.a, "b": self.frontier.b}),
            f"{len(self.points)} points, R² {self.r2:.4f}; {self.starts:,} starts, {self.agreeing:,} ended "
            f"at the minimum; {len(self.draws):,} bootstraps; best N ∝ C^a, best D ∝ C^b",
        ]
        if self.vague:
            parts.append(
                "note: these points hardly determine the constants (an exponent is known to no better than a "
                "factor of 3); train more sizes and token counts, further apart, or more seeds"
            )
        part: Any
        for kind, part in self.left_out().groupby("what", sort=False):
            name = "size" if kind == "size" else "number of tokens"
            ranges = ", ".join(
                f"{one} {span(part[one].min(), part[one].max())}" for one in ("alpha", "beta", "a")
            )
            error = 100 * np.sqrt((part["error"] ** 2).mean())
            parts.append(f"without one {name}: {ranges}; error on those left out {error:.2g} %")
        return stack(*parts)

    def plot(self, ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
        """Draw the loss over N by tokens with the law, and its contours with the best size, and return the
        figure.
        """
        from workbench.plots.scaling import plot_parametric

        front = self.frontier
        return plot_parametric(
            self.points.to_frame().assign(loss=self.points.y),
            self.loss,
            front.n,
            (front.lowest, front.highest),
            floor=self.constants["E"].value,
            exponent=front.a.value,
            xlabel=f"N, {self.points.count} parameters",
            ylabel=f"loss, {self.points.unit}",
            axes=ax,
        )


def fit_parametric(
    points: ScalingPoints,
    *,
    bootstraps: int = BOOTSTRAPS,
    grid: Sequence[Sequence[float]] = GRID,
    delta: float = DELTA,
    seed: int = 0,
) -> ParametricFit:
    """Minimise the summed Huber loss of the log-loss from a grid of starts; bootstrap the minimum.

    Args:
        points: at least 8 of 3 sizes and 3 numbers of tokens.
        bootstraps: replicates for the intervals.
        grid: starts of log E, log A, log B, alpha and beta.
        delta: of the Huber loss.
        seed: of the bootstrap.

    Raises:
        InputError: too few points, sizes or token counts; or a loss that does not fall with N or D.
    """
    points.require(8, 3, "the parametric fit")
    if not _identified(points):
        raise InputError(
            "the parametric fit needs at least 3 different numbers of tokens, not in step with N; vary both."
        )
    problem = _two_variables(points)
    starts = np.array(list(product(*grid)))
    fits = minimise(problem, starts, delta=delta)
    best = fits.objective[fits.best]
    theta = fits.theta[fits.best]
    falls = theta[3:] * np.ptp(problem.log_x, axis=1) > ROUNDING
    if not falls.all():
        what = "size" if not falls[0] else "number of tokens"
        raise InputError(f"the loss does not fall with the {what}; no scaling law can be fitted.")
    draws = bootstrap(problem, theta, points.groups, bootstraps, seed, delta)
    agreeing = int((fits.objective <= best * (1 + 1e-6) + 1e-15).sum())
    return ParametricFit(points, theta, draws, float(best), len(starts), agreeing, delta)


def _two_variables(points: ScalingPoints) -> PowerTerms:
    return PowerTerms(np.log([points.n, points.d]), (1, 2), 3, np.log(points.y))


def _identified(points: ScalingPoints) -> bool:
    """Return True if N and D vary independently, each over at least three values."""
    if len(points) < 6 or len(np.unique(points.n)) < 3 or len(np.unique(points.d)) < 3:
        return False
    return bool(abs(np.corrcoef(np.log([points.n, points.d]))[0, 1]) < 0.999)


def _log_loss(theta: Array, n: Numbers, d: Numbers) -> Array:
    n, d = np.broadcast_arrays(np.asarray(n, float), np.asarray(d, float))
    flat = PowerTerms(np.log([n.ravel(), d.ravel()]), (1, 2), 3, np.zeros(n.size))
    return flat.predict(theta).reshape(len(theta), *n.shape)


def _optimum(theta: Array) -> tuple[Array, Array]:
    """Return log G and a of each row of constants."""
    alpha, beta = theta[:, 3], theta[:, 4]
    log_g = (np.log(np.abs(alpha / beta)) + theta[:, 1] - theta[:, 2]) / (alpha + beta)
    return log_g, beta / (alpha + beta)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GrammarScaling(Result):
    """Accuracy on minimal pairs over log N: one curve per phenomenon; `mean` is the mean over phenomena."""

    table: "pd.DataFrame"
    """run, n, phenomenon, accuracy, pairs."""
    kind: Kind
    curves: dict[str, Array]
    """Phenomenon -> the two coefficients: height and slope around `centre`, over log10 N."""
    draws: dict[str, Array]
    """Phenomenon -> [bootstraps 2]."""
    centre: float
    """Mean of log10 N."""
    over: str
    """What the bootstrap resampled: `seeds` or `pairs`."""

    def gain(self, phenomenon: str) -> Estimate:
        """Return the rise in accuracy per tenfold size, at the middle of the data, with a 95 % interval."""
        slopes = self._slope(self.draws[phenomenon])
        return interval(float(self._slope(self.curves[phenomenon][None])[0]), slopes)

    def _slope(self, coefficients: Array) -> Array:
        if self.kind == "linear":
            return coefficients[:, 1]
        height = 1 / (1 + np.exp(-coefficients[:, 0]))
        return (1 - CHANCE) * height * (1 - height) * coefficients[:, 1]

    def accuracy(self, phenomenon: str, n: float | int) -> Estimate:
        """Return the expected accuracy of a model of `n` parameters, clipped to [chance, 1]."""
        middle, *_ = self.band(phenomenon, np.array([float(n)]))
        x = np.array([np.log10(float(n)) - self.centre])
        estimate = interval(middle[0], _curve(self.draws[phenomenon], x, self.kind)[:, 0])
        return Estimate(*(float(np.clip(limit, CHANCE, 1.0)) for limit in estimate))

    def band(self, phenomenon: str, n: Array) -> tuple[Array, Array, Array]:
        """Return the curve and its 95 % interval at each of `n`."""
        x = np.log10(n) - self.centre
        low, high = np.quantile(_curve(self.draws[phenomenon], x, self.kind), [0.025, 0.975], axis=0)
        return _curve(self.curves[phenomenon][None], x, self.kind)[0], low, high

    @property
    def phenomena(self) -> list[str]:
        """The fitted phenomena, the mean last."""
        return list(self.curves)

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return the gain in accuracy of each phenomenon for ten times the size."""
        cells = [
            [
                row["phenomenon"], row["runs"], f"{100 * row['lowest']:.1f}", f"{100 * row['highest']:.1f}",
                f"{100 * row['gain']:+.1f}", f"{100 * row['low']:+.1f} – {100 * row['high']:+.1f}",
                "yes" if row["clear"] else "",
            ]
            for row in self.to_frame().to_dict("records")
        ]  # fmt: skip
        header = ["phenomenon", "runs", "lowest", "highest", "gain", "95 % interval", "clear"]
        seeds = "" if self.over == "seeds" else "; another seed moves a small model by about a point besides"
        return stack(
            make_table(header, cells if rows is None else cells[:rows]),
            f"gain: points of accuracy for ten times the size ({self.kind}); chance is 50; bootstrap over "
            f"{self.over}{seeds}",
        )

    def to_frame(self) -> "pd.DataFrame":
        """Return phenomenon, runs, lowest and highest accuracy, gain, low, high (of the gain), clear."""
        import pandas as pd

        rows = []
        for name, part in self.table.groupby("phenomenon", sort=False):
            gain = self.gain(str(name))
            rows.append(
                {
                    "phenomenon": name, "runs": len(part), "lowest": part.accuracy.min(),
                    "highest": part.accuracy.max(), "gain": gain.value, "low": gain.low, "high": gain.high,
                    "clear": not gain.low <= 0 <= gain.high,
                }
            )  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self, ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
        """Draw a panel for each phenomenon: points, curve, interval and chance, and return the figure."""
        from workbench.plots.scaling import plot_grammar

        gains = {name: self.gain(name) for name in self.phenomena}
        return plot_grammar(
            self.table,
            {name: functools.partial(self.band, name) for name in self.phenomena},
            {name: (gain.value, gain.low, gain.high) for name, gain in gains.items()},
            ax,
        )


def fit_grammar(
    table: "pd.DataFrame", *, kind: Kind = "linear", bootstraps: int = BOOTSTRAPS, seed: int = 0
) -> GrammarScaling:
    """Fit accuracy over log N for each phenomenon by least squares.

    Linear: accuracy = h + s log10 N. Logistic: chance + (1 - chance) / (1 + exp(-(h + s log10 N))), which
    stays between chance and 1. The intervals come from a bootstrap over seeds within each size, if every size
    has two runs or more; else over pairs (binomial draws of each run's accuracy), which leaves out the
    variation between seeds: about a point for a small model.

    Args:
        table: run, n, phenomenon, accuracy, pairs (`blimp_of_runs`).
        kind: `linear` or `logistic`.
        bootstraps: replicates.
        seed: of the draws.

    Raises:
        InputError: fewer than three sizes.
    """
    if kind not in ("linear", "logistic"):
        raise InputError(f"kind must be 'linear' or 'logistic'; found {kind!r}.")
    sizes = np.unique(table["n"])
    if len(sizes) < 3:
        raise InputError(f"accuracy over size needs scored models of at least 3 sizes; found {len(sizes)}.")
    runs = table.drop_duplicates("run")
    centre = float(np.log10(runs["n"]).mean())
    seeds = bool((runs.groupby("n").size() >= 2).all())
    names = list(table["phenomenon"].drop_duplicates())
    curves, draws = {}, {}
    for name in sorted(names, key=lambda name: name == "mean"):
        part = table.query("phenomenon == @name")
        x = np.log10(part["n"].to_numpy(float)) - centre
        y = part["accuracy"].to_numpy(float)
        generator = np.random.default_rng(seed)
        if seeds:
            drawn = _resampled_within_sizes(part["n"].to_numpy(), y, bootstraps, generator)
        else:
            pairs = part["pairs"].to_numpy()
            drawn = generator.binomial(pairs, y, (bootstraps, len(y))) / pairs
        curves[name] = _least_squares(x, y[None], kind)[0]
        draws[name] = _least_squares(x, drawn, kind)
    return GrammarScaling(table, kind, curves, draws, centre, "seeds" if seeds else "pairs")


def _resampled_within_sizes(n: Array, y: Array, count: int, generator: np.random.Generator) -> Array:
    """Draw the accuracies of `count` replicates: each run's from those of its size, whose distances from
    their mean are widened from m runs to m - 1 degrees of freedom."""
    drawn = np.empty((count, len(y)))
    for size in np.unique(n):
        members = np.flatnonzero(n == size)
        mean, m = y[members].mean(), len(members)
        picked = y[members][generator.integers(m, size=(count, m))]
        drawn[:, members] = mean + np.sqrt(m / (m - 1)) * (picked - mean)
    return drawn


def _curve(coefficients: Array, x: Array, kind: Kind) -> Array:
    """Return the curve of each fit at each x: [fits points]."""
    lines = coefficients[:, :1] + coefficients[:, 1:] * x
    return lines if kind == "linear" else CHANCE + (1 - CHANCE) / (1 + np.exp(-lines))


def _least_squares(x: Array, y: Array, kind: Kind) -> Array:
    """Fit a batch y [fits points]: [fits 2].

    Logistic curves are fitted by damped Gauss-Newton with a small ridge on both coefficients, so that the fit
    converges when all accuracies are at chance.
    """
    design = np.stack([np.ones_like(x), x], axis=1)
    if kind == "linear":
        return y @ np.linalg.pinv(design).T
    theta = np.zeros((len(y), 2))
    for _ in range(LOGISTIC_STEPS):
        fitted = _curve(theta, x, kind)
        height = (fitted - CHANCE) / (1 - CHANCE)
        jacobian = ((1 - CHANCE) * height * (1 - height))[:, :, None] * design
        system = jacobian.transpose(0, 2, 1) @ jacobian + RIDGE * np.eye(2)
        right = np.einsum("bpi,bp->bi", jacobian, y - fitted) - RIDGE * theta
        step = np.linalg.solve(system, right[:, :, None])[:, :, 0]
        size = np.abs(step).max(axis=1, keepdims=True)
        theta = theta + step * np.minimum(1.0, 1.0 / np.maximum(size, 1e-12))
        if size.max() < 1e-9:
            break
    return theta


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CriticalBatch(Result):
    """Critical batch size from the gradient-noise scale (McCandlish et al. 2018, arXiv:1812.06162), with its
    law over the loss (Kaplan et al. 2020, arXiv:2001.08361, equation 1.4): B_crit(L) = B* / L^(1 / a_B)."""

    loss: Array
    """[points] nats per token"""
    noise_scale: Array
    """[points] B_simple in tokens"""
    scale: Estimate
    """B* in tokens."""
    exponent: Estimate
    """a_B"""
    rms: float
    """Standard deviation of log B_simple around the law."""

    def at(self, loss: Numbers) -> Any:
        """Return the tokens of a critical batch at this loss."""
        return self.scale.value * np.asarray(loss, float) ** (-1 / self.exponent.value)

    def to_frame(self) -> "pd.DataFrame":
        """Return loss, noise_scale, fitted."""
        import pandas as pd

        return pd.DataFrame(
            {"loss": self.loss, "noise_scale": self.noise_scale, "fitted": self.at(self.loss)}
        )

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return the constants of the law; `rows` has no effect."""
        last = float(self.loss.min())
        return stack(
            "Critical batch B = B* / L^(1/a_B)  (McCandlish et al. 2018)",
            constants_table({"B* (tokens)": self.scale, "a_B": self.exponent}),
            f"at the smallest loss measured, {figure(last)}: about {float(self.at(last)):,.0f} tokens "
            "per batch",
        )

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the simple noise scale over the loss with the law and return the figure."""
        from workbench.plots.scaling import plot_critical_batch

        constants = {"scale": self.scale.value, "exponent": self.exponent.value}
        return plot_critical_batch(self.to_frame(), self.at, **constants, ax=ax)


def fit_critical_batch(loss: Numbers, noise_scale: Numbers) -> CriticalBatch:
    """Fit log B = log B* - (1 / a_B) log L by least squares, with Student intervals.

    Args:
        loss: [points] loss in nats per token where the noise was measured.
        noise_scale: [points] the simple noise scale tr(Sigma) / |G|^2, in tokens.

    Raises:
        InputError: fewer than three points, a value that is not a positive number, one loss only, or a
            noise scale that does not grow as the loss falls.
    """
    x, y = np.asarray(loss, float), np.asarray(noise_scale, float)
    good = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    if not good.all():
        raise InputError(f"{(~good).sum()} rows of the noise scale are not positive numbers; leave them out.")
    if len(x) < 3 or np.ptp(np.log(x)) < 1e-6:
        raise InputError(
            f"the critical batch needs the noise scale at three different losses; found {len(x)}."
        )
    design = np.stack([np.ones(len(x)), np.log(x)], axis=1)
    spread = np.linalg.inv(design.T @ design)
    beta = spread @ design.T @ np.log(y)
    residual = np.log(y) - design @ beta
    freedom = len(x) - 2
    variance = residual @ residual / freedom
    reach = student_reach(np.sqrt(variance * np.diag(spread)), freedom)
    if beta[1] >= 0:
        raise InputError("the noise scale does not grow as the loss falls; no critical batch can be fitted.")
    low, high = beta - reach, beta + reach
    scale = Estimate(beta[0], low[0], high[0]).exp()
    exponent = Estimate(
        float(-1 / beta[1]), float(-1 / low[1]), float(-1 / high[1]) if high[1] < 0 else float("inf")
    )
    return CriticalBatch(x, y, scale, exponent, float(np.sqrt(variance)))


def read_noise(file: str | Path) -> tuple[Array, Array]:
    """Read losses and noise scales (tokens) from a CSV, parquet or JSON table.

    A JSON file holds a list of rows, or one under some key.

    Raises:
        DataError: the file cannot be read, or has no such columns.
    """
    import pandas as pd

    file = Path(file)
    if file.suffix.lower() == ".json":
        value = read_json(file)
        lists = [value, *value.values()] if isinstance(value, dict) else [value]
        tables = [rows for rows in lists if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
        frame = pd.DataFrame(tables[0] if tables else [])
    else:
        frame = read_frame(file)
    names = {str(name).strip().lower(): name for name in frame.columns}
    noise = next((names[name] for name in NOISE_NAMES if name in names), None)
    if "loss" not in names or noise is None:
        raise DataError(f"{shown(str(file))} has no columns loss and noise_scale (in tokens).")
    columns = frame[[names["loss"], noise]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    return columns[:, 0], columns[:, 1]

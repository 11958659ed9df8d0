"""Critical batch size from the gradient-noise scale (McCandlish et al. 2018, arXiv:1812.06162; its law over
the loss: Kaplan et al. 2020, arXiv:2001.08361, equation 1.4): B_crit(L) = B* / L^(1 / a_B).
"""

import dataclasses
import functools
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.errors import DataError, InputError, shown
from workbench.io import read_json
from workbench.scaling.fitting import (
    DELTA,
    Array,
    Estimate,
    Frontier,
    PowerTerms,
    bootstrap,
    interval,
    minimise,
    prediction_interval,
    r_squared,
)
from workbench.scaling.points import ScalingPoints, read_frame

if TYPE_CHECKING:
    import pandas as pd


# Kaplan et al. 2020 (arXiv:2001.08361): L(N) = (N_c / N)^alpha_N and L(D) = (D_c / D)^alpha_D, where the
# other of the two is no bottleneck; with or without a loss that remains.


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
    if theta[-1] * np.ptp(np.log(x)) <= ROUNDING:
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


# Hoffmann et al. 2022 (arXiv:2203.15556), approach 3: L(N, D) = E + A / N^alpha + B / D^beta.


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
ROUNDING = 1e-9
"""A fall of the log-loss over the data below this may be rounding."""


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
                _problem_parametric(self.points), self._beginnings(len(keep)), keep.astype(float), self.delta
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
    problem = _problem_parametric(points)
    starts = np.array(list(product(*grid)))
    found = minimise(problem, starts, delta=delta)
    best = found.objective[found.best]
    theta = found.theta[found.best]
    falls = theta[3:] * np.ptp(np.log([points.n, points.d]), axis=1) > ROUNDING
    if not falls.all():
        what = "size" if not falls[0] else "number of tokens"
        raise InputError(f"the loss does not fall with the {what}; no scaling law follows from these points.")
    draws = bootstrap(problem, theta, points.groups, bootstraps, seed, delta)
    agreeing = int((found.objective <= best * (1 + 1e-6) + 1e-15).sum())
    return ParametricFit(points, theta, draws, float(best), len(starts), agreeing, delta)


def _problem_parametric(points: ScalingPoints) -> PowerTerms:
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


# Accuracy on minimal pairs, by phenomenon, against log N.


Kind = Literal["linear", "logistic"]
CHANCE = 0.5
STEPS, PULL = 100, 1e-4


@dataclasses.dataclass(frozen=True)
class GrammarScaling:
    """One curve a phenomenon; `mean` is the mean over phenomena."""

    table: "pd.DataFrame"
    """run, n, phenomenon, accuracy, pairs."""
    kind: Kind
    curves: dict[str, Array]
    """Of each phenomenon, the two coefficients: height and slope around `centre`, over log10 N."""
    draws: dict[str, Array]
    """[bootstraps 2]"""
    centre: float
    """Mean of log10 N."""
    over: str
    """What the bootstrap drew: `seeds` or `pairs`."""

    def gain(self, phenomenon: str) -> Estimate:
        """Rise in accuracy for ten times the size, at the middle of the data, with a 95 % interval."""
        slopes = self._slope(self.draws[phenomenon])
        return interval(float(self._slope(self.curves[phenomenon][None])[0]), slopes)

    def _slope(self, coefficients: Array) -> Array:
        if self.kind == "linear":
            return coefficients[:, 1]
        height = 1 / (1 + np.exp(-coefficients[:, 0]))
        return (1 - CHANCE) * height * (1 - height) * coefficients[:, 1]

    def accuracy(self, phenomenon: str, n: Any) -> Estimate:
        """Expected accuracy of a model of `n` parameters; a line is cut at chance and at 1."""
        x = np.array([np.log10(float(n)) - self.centre])
        here = _curve(self.curves[phenomenon][None], x, self.kind)[0, 0]
        draws = _curve(self.draws[phenomenon], x, self.kind)[:, 0]
        ends = dataclasses.astuple(interval(here, draws))
        return Estimate(*(float(np.clip(end, CHANCE, 1.0)) for end in ends))

    def band(self, phenomenon: str, n: Array) -> tuple[Array, Array, Array]:
        """The curve and its interval at each of `n`."""
        x = np.log10(n) - self.centre
        low, high = np.quantile(_curve(self.draws[phenomenon], x, self.kind), [0.025, 0.975], axis=0)
        return _curve(self.curves[phenomenon][None], x, self.kind)[0], low, high

    @property
    def phenomena(self) -> list[str]:
        """Those fitted, the mean last."""
        return list(self.curves)

    def to_frame(self) -> "pd.DataFrame":
        """phenomenon, runs, lowest and highest accuracy, gain, low, high (of the gain), clear."""
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

    def plot(self, ax: Any = None) -> Any:
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
    table: "pd.DataFrame", *, kind: Kind = "linear", bootstraps: int = 1000, seed: int = 0
) -> GrammarScaling:
    """Fit accuracy over log N for each phenomenon by least squares.

    Linear: accuracy = h + s log10 N. Logistic: chance + (1 - chance) / (1 + exp(-(h + s log10 N))), which
    never leaves chance to 1. The interval is of a bootstrap over seeds within each size, where every size
    has two runs or more; else over pairs (binomial draws of each run's accuracy), which leaves the
    variation between seeds out: of a small model about a point.

    Args:
        table: run, n, phenomenon, accuracy, pairs (`blimp_of_runs`).
        kind: `linear` or `logistic`.
        bootstraps: replicates.
        seed: of the draws.

    Raises:
        InputError: fewer than three sizes.
    """
    if kind not in ("linear", "logistic"):
        raise InputError(f"the curve is linear or logistic; found {kind!r}.")
    sizes = np.unique(table["n"])
    if len(sizes) < 3:
        raise InputError(f"accuracy against size needs scored models of 3 sizes or more; found {len(sizes)}.")
    centre = float(np.log10(table.drop_duplicates("run")["n"]).mean())
    seeds = bool((table.drop_duplicates("run").groupby("n").size() >= 2).all())
    names = [name for name in table["phenomenon"].drop_duplicates() if name != "mean"]
    curves, draws = {}, {}
    for name in [*names, *(["mean"] if "mean" in set(table["phenomenon"]) else [])]:
        part = table.query("phenomenon == @name")
        x = np.log10(part["n"].to_numpy(float)) - centre
        y = part["accuracy"].to_numpy(float)
        generator = np.random.default_rng(seed)
        if seeds:
            drawn = _within_sizes(part["n"].to_numpy(), y, bootstraps, generator)
        else:
            pairs = part["pairs"].to_numpy()
            drawn = generator.binomial(pairs, y, (bootstraps, len(y))) / pairs
        curves[name] = _fit(x, y[None], kind)[0]
        draws[name] = _fit(x, drawn, kind)
    return GrammarScaling(table, kind, curves, draws, centre, "seeds" if seeds else "pairs")


def _within_sizes(n: Any, y: Array, count: int, generator: np.random.Generator) -> Array:
    """Accuracies of `count` replicates: each run's is drawn from those of its size, whose distances from
    their mean are widened from m runs to m - 1 degrees of freedom."""
    drawn = np.empty((count, len(y)))
    for size in np.unique(n):
        mine = np.flatnonzero(n == size)
        mean, m = y[mine].mean(), len(mine)
        picked = y[mine][generator.integers(m, size=(count, m))]
        drawn[:, mine] = mean + np.sqrt(m / (m - 1)) * (picked - mean)
    return drawn


def _curve(coefficients: Array, x: Array, kind: Kind) -> Array:
    """[fits points]"""
    lines = coefficients[:, :1] + coefficients[:, 1:] * x
    return lines if kind == "linear" else CHANCE + (1 - CHANCE) / (1 + np.exp(-lines))


def _fit(x: Array, y: Array, kind: Kind) -> Array:
    """Least squares of a batch y [fits points]: [fits 2]. Logistic by damped Gauss-Newton, with a faint pull
    of both coefficients to 0, so that accuracies all at chance have an end."""
    design = np.stack([np.ones_like(x), x], axis=1)
    if kind == "linear":
        return y @ np.linalg.pinv(design).T
    found = np.zeros((len(y), 2))
    for _ in range(STEPS):
        fitted = _curve(found, x, kind)
        share = (fitted - CHANCE) / (1 - CHANCE)
        jacobian = ((1 - CHANCE) * share * (1 - share))[:, :, None] * design
        system = jacobian.transpose(0, 2, 1) @ jacobian + PULL * np.eye(2)
        right = np.einsum("bpi,bp->bi", jacobian, y - fitted) - PULL * found
        step = np.linalg.solve(system, right[:, :, None])[:, :, 0]
        size = np.abs(step).max(axis=1, keepdims=True)
        found = found + step * np.minimum(1.0, 1.0 / np.maximum(size, 1e-12))
        if size.max() < 1e-9:
            break
    return found


@dataclasses.dataclass(frozen=True)
class CriticalBatch:
    """The batch at which twice the tokens halve the steps no more."""

    loss: Array
    """[points] nats a token"""
    noise_scale: Array
    """[points] B_simple in tokens"""
    scale: Estimate
    """B* in tokens."""
    exponent: Estimate
    """a_B"""
    rms: float
    """Standard deviation of log B_simple around the law."""

    def at(self, loss: Any) -> Any:
        """Tokens of a critical batch at so much loss."""
        return self.scale.value * np.asarray(loss, float) ** (-1 / self.exponent.value)

    def to_frame(self) -> "pd.DataFrame":
        """loss, noise_scale, fitted."""
        import pandas as pd

        return pd.DataFrame(
            {"loss": self.loss, "noise_scale": self.noise_scale, "fitted": self.at(self.loss)}
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the simple noise scale over the loss with the law and return the figure."""
        from workbench.plots.scaling import plot_critical_batch

        constants = {"scale": self.scale.value, "exponent": self.exponent.value}
        return plot_critical_batch(self.to_frame(), self.at, **constants, ax=ax)


def fit_critical_batch(loss: Any, noise_scale: Any) -> CriticalBatch:
    """Fit log B = log B* - (1 / a_B) log L by least squares, with Student intervals.

    Args:
        loss: [points] loss in nats a token where the noise was measured.
        noise_scale: [points] the simple noise scale tr(Sigma) / |G|^2, in tokens.

    Raises:
        InputError: fewer than three points, a value that is not a positive number, one loss only, or a
            noise scale that does not grow as the loss falls.
    """
    from scipy.stats import t

    x, y = np.asarray(loss, float), np.asarray(noise_scale, float)
    good = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    if not good.all():
        raise InputError(f"{(~good).sum()} rows of the noise scale are no positive numbers; leave them out.")
    if len(x) < 3 or np.ptp(np.log(x)) < 1e-6:
        raise InputError(
            f"the critical batch needs the noise scale at three different losses; found {len(x)}."
        )
    design = np.stack([np.ones(len(x)), np.log(x)], axis=1)
    spread = np.linalg.inv(design.T @ design)
    beta = spread @ design.T @ np.log(y)
    residual = np.log(y) - design @ beta
    freedom = len(x) - 2
    error = np.sqrt(residual @ residual / freedom * np.diag(spread)) * t.ppf(0.975, freedom)
    if beta[1] >= 0:
        raise InputError(
            "the noise scale does not grow as the loss falls; no critical batch follows from it."
        )
    low, high = beta - error, beta + error
    scale = Estimate(*(float(np.exp(value)) for value in (beta[0], low[0], high[0])))
    steep = float(-1 / low[1])
    shallow = float(-1 / high[1]) if high[1] < 0 else float("inf")
    exponent = Estimate(float(-1 / beta[1]), steep, shallow)
    return CriticalBatch(x, y, scale, exponent, float(np.sqrt(residual @ residual / freedom)))


NOISE_NAMES = ("noise_scale", "b_simple", "simple_noise_scale", "critical_batch")


def read_noise(file: str | Path) -> tuple[Any, Any]:
    """Losses and noise scales (tokens) of a CSV, parquet or JSON table.

    A JSON file holds a list of rows, or one under some key.

    Raises:
        DataError: the file cannot be read, or has no such columns.
    """
    import pandas as pd

    file = Path(file)
    if file.suffix.lower() == ".json":
        value = read_json(file)
        lists = [value, *value.values()] if isinstance(value, dict) else [value]
        rows = next((one for one in lists if isinstance(one, list) and one and isinstance(one[0], dict)), [])
        frame = pd.DataFrame(rows)
    else:
        frame = read_frame(file)
    names = {str(name).strip().lower(): name for name in frame.columns}
    noise = next((names[name] for name in NOISE_NAMES if name in names), None)
    if "loss" not in names or noise is None:
        raise DataError(f"{shown(str(file))} has no columns loss and noise_scale (in tokens).")
    columns = frame[[names["loss"], noise]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    return columns[:, 0], columns[:, 1]

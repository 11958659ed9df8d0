"""Accuracy on minimal pairs, by phenomenon, against log N."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.errors import InputError
from workbench.evals.scaling.resampling import Array, Estimate, interval

if TYPE_CHECKING:
    import pandas as pd

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
        """A panel a phenomenon: points, curve, interval, chance."""
        from workbench.plots.scaling_grammar import plot_grammar

        return plot_grammar(self, ax)


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

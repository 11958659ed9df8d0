"""The compute-optimal frontier as power laws: N = k C^a, D = k' C^b."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.evals.scaling.resampling import Array, Estimate, interval

if TYPE_CHECKING:
    import pandas as pd


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

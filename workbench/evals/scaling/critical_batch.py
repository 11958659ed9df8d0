"""Critical batch size from the gradient-noise scale (McCandlish et al. 2018, arXiv:1812.06162; its law over
the loss: Kaplan et al. 2020, arXiv:2001.08361, equation 1.4): B_crit(L) = B* / L^(1 / a_B)."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import DataError, InputError, shown
from workbench.evals.scaling.resampling import Array, Estimate
from workbench.evals.scaling.table import read_frame
from workbench.files import read_json

if TYPE_CHECKING:
    import pandas as pd


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
        """B_simple over the loss and the law."""
        from workbench.plots.scaling_curves import plot_critical_batch

        return plot_critical_batch(self, ax)


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

"""The simple gradient-noise scale (McCandlish et al. 2018, An Empirical Model of Large-Batch Training)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class NoiseScale:
    """B_simple = tr(Sigma) / |G|^2 (eq. 2.9): the batch whose noise is as large as the gradient."""

    value: float
    """In windows; infinity where the gradient drowns in its noise."""
    low: float
    high: float
    """95 % interval over steps, by bootstrap."""
    signal: float
    """|G|^2, the squared norm of the true gradient."""
    noise: float
    """tr(Sigma), the variance of one window's gradient, summed over all parameters."""
    small_batch: float | int
    big_batch: float | int
    small: tuple[float, ...]
    """Squared norm of the gradient of `small_batch` windows, at each step."""
    big: tuple[float, ...]
    """The same for `big_batch` windows."""

    def to_frame(self) -> Any:
        """One row a step: small, big, and the estimates of signal and noise from that step alone."""
        import pandas as pd

        signal, noise = estimates(self.small, self.big, self.small_batch, self.big_batch)
        return pd.DataFrame({"small": self.small, "big": self.big, "signal": signal, "noise": noise})

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the scale over steps, each from the steps around it, and return the figure."""
        from workbench.plots.comparison import plot_noise

        return plot_noise(self.to_frame(), self.value, self.low, self.high, ax)


def estimates(
    small: Sequence[float], big: Sequence[float], small_batch: float | int, big_batch: float | int
) -> tuple[np.ndarray, np.ndarray]:
    """Unbiased estimates of |G|^2 and tr(Sigma) from squared norms at two batch sizes (appendix A.1)."""
    little, large = np.asarray(small, dtype=float), np.asarray(big, dtype=float)
    signal = (big_batch * large - small_batch * little) / (big_batch - small_batch)
    noise = (little - large) / (1 / small_batch - 1 / big_batch)
    return signal, noise


def noise_scale(
    small: Sequence[float],
    big: Sequence[float],
    small_batch: float | int,
    big_batch: float | int,
    bootstraps: int = 1000,
    seed: int = 0,
) -> NoiseScale:
    """The noise scale from squared gradient norms of some steps.

    Signal and noise are averaged before they are divided: a ratio of single steps is biased (appendix A.1).

    Args:
        small: squared norm of the gradient of `small_batch` windows, one a step.
        big: the same of `big_batch` windows.
        small_batch, big_batch: in windows, or in any other unit, which the result then has.
        bootstraps: draws of steps for the interval.
        seed: of the draws.

    Raises:
        InputError: fewer than two steps, or batch sizes that are not in order.
    """
    if len(small) != len(big) or len(small) < 2:
        raise InputError(
            f"a noise scale needs two norms a step and two steps at least; found {len(small)} and {len(big)}."
        )
    if not 0 < small_batch < big_batch:
        raise InputError(
            f"the small batch must be smaller than the big one; found {small_batch:g} and {big_batch:g}."
        )
    signal, noise = estimates(small, big, small_batch, big_batch)
    draws = np.random.default_rng(seed).integers(0, len(signal), (bootstraps, len(signal)))
    scales = [_ratio(signal[draw].mean(), noise[draw].mean()) for draw in draws]
    low, high = np.quantile(scales, [0.025, 0.975], method="nearest")
    return NoiseScale(
        _ratio(signal.mean(), noise.mean()),
        float(low),
        float(high),
        float(signal.mean()),
        float(noise.mean()),
        small_batch,
        big_batch,
        tuple(map(float, small)),
        tuple(map(float, big)),
    )


def _ratio(signal: float, noise: float) -> float:
    return float(max(0.0, noise) / signal) if signal > 0 else math.inf


def measure_norms(optimizer: Any, loss_of: Any, batch: Any, parts: int) -> tuple[float, float, float]:
    """Squared gradient norms of one batch and of its equal parts. Leaves the batch's gradient in the
    optimiser, ready for its step.

    Args:
        optimizer: from `training.optimizers.make_optimizer`, without gradients.
        loss_of: `(tokens, targets, segments) -> loss`.
        batch: on the model's device; its rows are divided.
        parts: how many.

    Returns:
        The mean over the parts, that of the whole batch, and the batch's loss.
    """
    import torch

    rows = batch.tokens.shape[0] // parts
    pieces = [batch.rows(slice(part * rows, (part + 1) * rows)) for part in range(parts)]
    counts = [int((piece.targets != -100).sum()) for piece in pieces]
    whole = torch.zeros_like(optimizer.gradient)
    small, mean = 0.0, 0.0
    for piece, count in zip(pieces, counts, strict=True):
        share = count / max(1, sum(counts))
        loss = loss_of(piece.tokens, piece.targets, piece.segments)
        loss.backward()
        optimizer.gather()
        small += float(optimizer.gradient.double().square().sum()) / parts
        whole.add_(optimizer.gradient, alpha=share)
        mean += loss.item() * share
        optimizer.zero_grad()
    optimizer.gradient.copy_(whole)
    optimizer.begun()
    return small, float(whole.double().square().sum()), mean

"""Figures of `workbench tune`: the learning-rate range test and the gradient-noise scale."""

import math
from typing import Any

from workbench.plots.pyplot import need_pyplot

_LOSS, _MARK = "#2f6db3", "#c2462e"


def two_panels() -> Any:
    """Two axes side by side.

    Raises:
        InputError: matplotlib is not installed.
    """
    _, axes = need_pyplot().subplots(1, 2, figsize=(10.5, 3.9), layout="constrained")
    return axes


def plot_range(frame: Any, steepest: float, knee: float, suggested: float, ax: Any = None) -> Any:
    """Losses over the learning rate, and where the suggestion lies.

    Args:
        frame: rate, loss, smoothed.
        steepest, knee, suggested: rates to mark.
        ax: a matplotlib axes; a new one if not set.
    """
    ax = ax or need_pyplot().subplots(figsize=(5.4, 3.9), layout="constrained")[1]
    ax.plot(frame.rate, frame.loss, color=_LOSS, alpha=0.3, linewidth=1, label="each batch")
    ax.plot(frame.rate, frame.smoothed, color=_LOSS, linewidth=2, label="smoothed")
    ax.axvline(steepest, color="0.6", linewidth=1, linestyle=":", label=f"falls fastest, {steepest:.1e}")
    ax.axvline(knee, color="0.6", linewidth=1, linestyle="--", label=f"has fallen, {knee:.1e}")
    ax.axvline(suggested, color=_MARK, linewidth=1.6, label=f"suggested peak, {suggested:.1e}")
    low = min(frame.smoothed.min(), frame.loss.min())
    top = frame.smoothed.iloc[: max(3, len(frame) // 5)].max()
    ax.set_ylim(low - 0.05 * (top - low), top + 0.35 * (top - low))
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    ax.set_ylabel("training loss, nats a token")
    ax.set_title("Range test", fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="lower left")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_noise(frame: Any, value: float, low: float, high: float, ax: Any = None) -> Any:
    """The noise scale over steps, each from the steps around it, and over all of them with its interval.

    Args:
        frame: signal and noise at each step.
        value, low, high: over all steps, in windows.
        ax: a matplotlib axes; a new one if not set.
    """
    ax = ax or need_pyplot().subplots(figsize=(5.4, 3.9), layout="constrained")[1]
    width = max(3, len(frame) // 5)
    around = frame[["signal", "noise"]].rolling(width, center=True, min_periods=width).mean()
    usable = around[around.signal > 0]
    scale = usable.noise.clip(lower=0) / usable.signal
    ax.plot(scale.index, scale, color=_LOSS, linewidth=2, label=f"over {width} steps")
    if math.isfinite(value):
        ax.axhline(value, color=_MARK, linewidth=1.6, label=f"all steps, {value:.0f} windows")
        top = high if math.isfinite(high) else 3 * value
        ax.axhspan(low, top, color=_MARK, alpha=0.15, linewidth=0, label="95 % interval")
        ax.set_ylim(0, max(1.6 * top, 1.1 * float(scale.max()) if len(scale) else 0))
    ax.set_xlabel("step of the measurement")
    ax.set_ylabel("noise scale, windows")
    ax.set_title("Gradient-noise scale", fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    ax.spines[["top", "right"]].set_visible(False)
    return ax

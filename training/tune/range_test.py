"""Learning-rate range test (Smith 2017, Cyclical Learning Rates, section 3.3)."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTHING = 0.85
"""Decay of the moving average over losses; its beginning is corrected as Adam's moments are."""
FALLEN = 0.95
"""Share of the whole fall of the smoothed loss at its knee."""
DIVERGED = 2.0
"""The sweep ends when the smoothed loss is so many times its lowest value."""


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """Losses of one model whose learning rate rises by the same factor at each step."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """Training loss before each update, in nats a token."""
    smoothed: tuple[float, ...]
    steepest: float
    """The rate at which the smoothed loss falls fastest, per factor of the rate."""
    knee: float
    """The smallest rate by which the smoothed loss has done 95 % of its fall."""
    lowest: float
    """The rate at which the smoothed loss is lowest."""
    suggested: float
    """A peak for a run: half way on the logarithm between `steepest` and `knee`, two digits."""
    diverged: float | None
    """The rate at which the sweep ended because the loss rose; None if it never did."""

    def to_frame(self) -> Any:
        """One row a step: rate, loss, smoothed."""
        import pandas as pd

        return pd.DataFrame({"rate": self.rates, "loss": self.losses, "smoothed": self.smoothed})

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the losses over the rate, with the suggestion, and return the figure."""
        from workbench.plots.comparison import plot_range

        return plot_range(self.to_frame(), self.steepest, self.knee, self.suggested, ax)


def range_test(
    update: Callable[[int, float], tuple[float, float]],
    steps: int = 100,
    low: float = 1e-5,
    high: float = 1.0,
    tick: Callable[[int, float], None] = lambda step, loss: None,
) -> RangeTest:
    """Raise the rate from `low` to `high` by equal factors, one update each.

    Args:
        update: of a model of its own: `(step, rate) -> (loss, gradient norm)`; see `training.updater`.
        steps: updates at most.
        low, high: the rates.
        tick: told after each step.

    Raises:
        ConfigError: rates in the wrong order, too few steps, or a loss that is not finite from the start.
    """
    if not 0 < low < high:
        raise ConfigError(f"the range of rates goes up from above 0; found {low:g} to {high:g}.")
    if steps < 10:
        raise ConfigError(f"a range test takes at least 10 steps; found {steps}.")
    rates, losses = [], []
    for step in range(steps):
        rate = low * (high / low) ** (step / (steps - 1))
        loss, _ = update(step, rate)
        if not math.isfinite(loss):
            break
        rates.append(rate)
        losses.append(loss)
        tick(step, loss)
        smoothed = smooth(losses)
        if len(smoothed) > 5 and smoothed[-1] > DIVERGED * min(smoothed):
            break
    return judge(rates, losses, whole=len(rates) == steps)


def smooth(losses: Sequence[float], decay: float = SMOOTHING) -> list[float]:
    """Moving average, its beginning corrected."""
    average, made = 0.0, []
    for step, loss in enumerate(losses, start=1):
        average = decay * average + (1 - decay) * loss
        made.append(average / (1 - decay**step))
    return made


def judge(rates: Sequence[float], losses: Sequence[float], whole: bool = True) -> RangeTest:
    """What the losses of a sweep say.

    Args:
        rates: rising.
        losses: one each.
        whole: the sweep did not end early.

    Raises:
        ConfigError: too few steps before the loss rose to say anything, or it never fell.
    """
    if len(losses) < 6:
        raise ConfigError(
            f"the loss was not finite or diverged after {len(losses)} steps of the range test; begin lower, "
            "with --lr-low."
        )
    smoothed = smooth(losses)
    bottom = min(range(len(smoothed)), key=smoothed.__getitem__)
    if bottom < 2:
        raise ConfigError(
            f"the loss rose from the smallest rate on, {rates[0]:g}; begin lower, with --lr-low."
        )
    window = max(1, len(smoothed) // 20)  # a slope over a few steps: the batches' noise is in each
    slopes = {
        place: (smoothed[place + window] - smoothed[place - window])
        / math.log(rates[place + window] / rates[place - window])
        for place in range(window, min(bottom, len(smoothed) - 1 - window) + 1)
    }
    steepest = rates[min(slopes, key=slopes.__getitem__)] if slopes else rates[bottom]
    lowest = rates[bottom]
    enough = smoothed[0] - FALLEN * (smoothed[0] - smoothed[bottom])
    knee = next(rate for rate, loss in zip(rates, smoothed, strict=True) if loss <= enough)
    suggested = float(f"{math.sqrt(min(steepest, knee) * knee):.1e}")
    diverged = None if whole else rates[-1]
    return RangeTest(
        tuple(rates), tuple(losses), tuple(smoothed), steepest, knee, lowest, suggested, diverged
    )

"""Constant with cool-down: warm-up, stable, decay (Hu et al. 2024, MiniCPM). The way down is
1 - sqrt, the best of those that Haegele et al. 2024 tried (Scaling Laws and Compute-Optimal Training
Beyond Fixed Training Durations, section 3)."""

import math
from collections.abc import Sequence

from training.schedules.shape import Shape


def wsd(progress: float, shape: Shape, losses: Sequence[float] = ()) -> float:
    """1 until the last `shape.cooldown` of the budget, then down to `shape.end`, steeply at first."""
    if not shape.cooldown:
        return 1.0
    into = max(0.0, progress - (1 - shape.cooldown)) / shape.cooldown
    return shape.end + (1 - shape.end) * (1 - math.sqrt(min(1.0, into)))

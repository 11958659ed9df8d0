"""A straight line down (Defazio et al. 2023, Optimal Linear Decay Learning Rate Schedules)."""

from collections.abc import Sequence

from training.schedules.shape import Shape


def linear(progress: float, shape: Shape, losses: Sequence[float] = ()) -> float:
    """From 1 down to `shape.end` in a straight line."""
    return shape.end + (1 - shape.end) * (1 - shape.after_warmup(progress))

"""Lower the rate when the validation loss stands still (what torch calls ReduceLROnPlateau; Bengio 2012,
Practical Recommendations, section 3.1, names it early-stopping of the rate)."""

import math
from collections.abc import Sequence

from training.schedules.shape import Shape


def plateau(progress: float, shape: Shape, losses: Sequence[float] = ()) -> float:
    """`shape.plateau_factor` to the number of times that the loss stood still, at least `shape.end`.

    It stood still when `shape.plateau_patience` evaluations in a row gave no better loss than the best
    before them; then a new count begins.

    Args:
        progress: not used.
        shape: see `Shape`.
        losses: validation losses of all evaluations on the way so far, in order.
    """
    best, stale, times = math.inf, 0, 0
    for loss in losses:
        if loss < best:
            best, stale = loss, 0
            continue
        stale += 1
        if stale == shape.plateau_patience:
            stale, times = 0, times + 1
    return max(shape.end, shape.plateau_factor**times)

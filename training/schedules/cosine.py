"""Half a cosine (Loshchilov & Hutter 2017, SGDR, eq. 5 with one cycle; Touvron et al. 2023 end at 0.1)."""

import math
from collections.abc import Sequence

from training.schedules.shape import Shape


def cosine(progress: float, shape: Shape, losses: Sequence[float] = ()) -> float:
    """From 1 down to `shape.end` along half a cosine."""
    falling = 0.5 * (1 + math.cos(math.pi * (progress - shape.warmup) / (1 - shape.warmup)))
    return shape.end + (1 - shape.end) * falling

"""Warm restarts: a cosine that begins again (Loshchilov & Hutter 2017, SGDR, eq. 5)."""

import math
from collections.abc import Sequence

from training.schedules.shape import Shape


def restarts(progress: float, shape: Shape, losses: Sequence[float] = ()) -> float:
    """From 1 down to `shape.end`, `shape.cycles` times; the run ends at the end of the last.
    `shape.cycle_growth` is the T_mult of SGDR."""
    place = shape.after_warmup(progress)
    lengths = [shape.cycle_growth**cycle for cycle in range(shape.cycles)]
    whole, begin = math.fsum(lengths), 0.0
    for cycle, length in enumerate(lengths):
        share = length / whole
        if place < begin + share or cycle == shape.cycles - 1:
            into = min(1.0, max(0.0, (place - begin) / share))
            return shape.end + (1 - shape.end) * 0.5 * (1 + math.cos(math.pi * into))
        begin += share
    raise AssertionError("there is at least one cycle")

"""Learning-rate schedules: values of `train.schedule`. Each is one function of the share of the budget that
is used, its shape, and the validation losses so far: nothing else, so a resumed run goes on exactly."""

from collections.abc import Callable, Sequence

from training.schedules.constant import constant
from training.schedules.cosine import cosine
from training.schedules.linear import linear
from training.schedules.plateau import plateau
from training.schedules.restarts import restarts
from training.schedules.shape import Shape
from training.schedules.wsd import wsd

SCHEDULES: dict[str, Callable[[float, Shape, Sequence[float]], float]] = {
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
    "wsd": wsd,
    "restarts": restarts,
    "plateau": plateau,
}

__all__ = ["SCHEDULES", "Shape", "lr_share"]


def lr_share(progress: float, shape: Shape, schedule: str = "cosine", losses: Sequence[float] = ()) -> float:
    """Learning rate as a share of its peak: linear up, then as the schedule says.

    Args:
        progress: share of the budget used, 0 to 1.
        shape: the schedule's parameters.
        schedule: a name of `SCHEDULES`.
        losses: validation losses of all evaluations on the way so far.
    """
    if progress < shape.warmup:
        return progress / shape.warmup
    if shape.warmup >= 1.0:
        return 1.0
    return SCHEDULES[schedule](progress, shape, losses)

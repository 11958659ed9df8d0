"""Averages of the weights along the way: values of `train.average`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.averaging.base import Averaged
    from training.optimizers.base import FlatOptimizer


def averaged(optimizer: "FlatOptimizer", chosen: Any) -> "FlatOptimizer | Averaged":
    """The optimiser with the average that the settings name, or itself.

    Args:
        optimizer: from `training.optimizers.make_optimizer`.
        chosen: a `TrainSettings`.
    """
    match chosen.average:
        case "ema":
            from training.averaging.ema import MovingAverage

            return MovingAverage(optimizer, chosen.average_decay)
        case "lawa":
            from training.averaging.lawa import LatestAverage

            return LatestAverage(optimizer, chosen.average_window, chosen.average_every)
        case _:
            return optimizer

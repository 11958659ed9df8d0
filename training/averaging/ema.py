"""An exponential moving average of the weights (Polyak & Juditsky 1992; Tarvainen & Valpola 2017)."""

from torch import Tensor

from training.averaging.base import Averaged
from training.optimizers.base import FlatOptimizer


class MovingAverage(Averaged):
    """average = d * average + (1 - d) * weights after update t, with d = min(decay, (1 + t) / (10 + t)), so
    that the first weights are soon forgotten.

    Args:
        inner: the optimiser.
        decay: 0.999 looks back over about 1,000 updates.
    """

    label = "moving average"

    def __init__(self, inner: FlatOptimizer, decay: float = 0.999) -> None:
        super().__init__(inner)
        self._decay = decay

    def _take(self, weights: Tensor, updates: int) -> None:
        self.average.lerp_(weights, 1 - min(self._decay, (1 + updates) / (10 + updates)))

"""The mean of the latest weights (LAWA; Kaddour 2022, Stop Wasting My Time! Saving Days of ImageNet and BERT
Training with Latest Weight Averaging)."""

import torch
from torch import Tensor

from training.averaging.base import Averaged
from training.optimizers.base import FlatOptimizer


class LatestAverage(Averaged):
    """The mean of the last `window` snapshots, one every `every` updates; before the first one, the weights
    themselves.

    Args:
        inner: the optimiser.
        window: snapshots, each as large as the model in float32.
        every: updates between two.
    """

    label = "mean of the latest"

    def __init__(self, inner: FlatOptimizer, window: int = 5, every: int = 100) -> None:
        super().__init__(inner)
        self._window, self._every = window, every
        self._snapshots = inner.masters.new_zeros(window, inner.masters.numel())
        self._kept["snapshots"] = self._snapshots

    def _take(self, weights: Tensor, updates: int) -> None:
        if updates % self._every == 0:
            self._snapshots[(updates // self._every - 1) % self._window].copy_(weights)
            self._mean()
        elif updates < self._every:
            self.average.copy_(weights)

    def _mean(self) -> None:
        taken = min(self._window, self.updates // self._every)
        torch.mean(self._snapshots[:taken], 0, out=self.average)

    def _resumed(self) -> None:
        if self.updates >= self._every:
            self._mean()

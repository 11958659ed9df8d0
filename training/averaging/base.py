"""An optimiser whose weights are also averaged along the way."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from training.optimizers.base import FlatOptimizer
from workbench.errors import RunError


class Averaged:
    """Wraps an optimiser, with its surface: training goes on as without it; evaluations and checkpoints use
    the average. The weights in training are kept beside the optimiser's state, so a resumed run is exact.

    A subclass gives `_take`, and keeps what it must remember in `_kept`.

    Args:
        inner: the optimiser.
    """

    label = "average"
    queues = False

    def __init__(self, inner: FlatOptimizer) -> None:
        self.inner = inner
        self.average = inner.masters.clone()
        self._kept: dict[str, Tensor] = {}

    @property
    def gradient(self) -> Tensor:
        """The gradient in one row."""
        return self.inner.gradient

    @property
    def updates(self) -> int:
        """Updates done."""
        return int(self.inner.state()["step"].item())

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.inner.zero_grad()

    def gather(self) -> None:
        """Add the parameters' gradients to the sum."""
        self.inner.gather()

    def step(self, lr: float, loss: Tensor | None = None) -> float:
        """One update, after which the average takes the new weights in; see `FlatOptimizer.step`."""
        before = self.updates
        norm = self.inner.step(lr, loss)
        if self.updates > before:
            with torch.no_grad():
                self._take(self.inner.masters, self.updates)
        return norm

    def _take(self, weights: Tensor, updates: int) -> None:
        """Take the weights after so many updates into `average`."""
        raise NotImplementedError

    def _resumed(self) -> None:
        """`_kept` was read; bring `average` up to date where it follows from that."""

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights by parameter name."""
        return self.inner.named(self.average)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """In the block, the model computes with the averaged weights."""
        with self.inner.computing_with(self.average):
            yield

    def state(self) -> dict[str, Tensor]:
        """The optimiser's state, the weights in training and what the average remembers."""
        training = {f"training.{name}": view for name, view in self.inner.weights().items()}
        return self.inner.state() | training | self._kept

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state()` and `weights()` gave; the model holds the average.

        Raises:
            RunError: tensors are missing, left over, or of another shape.
        """
        for name, tensor in self._kept.items():
            found = tuple(state[name].shape) if name in state else None
            if found != tuple(tensor.shape):
                raise RunError(
                    f"the average's state does not fit: {name} is {found}, not {tuple(tensor.shape)}."
                )
        training = {
            name.removeprefix("training."): tensor
            for name, tensor in state.items()
            if name.startswith("training.")
        }
        own = [*self._kept, *(f"training.{name}" for name in training)]
        rest = {name: tensor for name, tensor in state.items() if name not in own}
        self.average.copy_(self.inner.masters)
        self.inner.load_state(rest, training)
        for name, tensor in self._kept.items():
            tensor.copy_(state[name])
        self._resumed()

"""What all optimisers share: flat float32 masters, one flat gradient, clipping, the state on disk."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import RunError


class FlatOptimizer:
    """Masters, gradient and moments each lie in one row of memory, of which the parameters become views.

    The parameters arrive in float32. With `dtype=torch.bfloat16` they are replaced by bf16 copies
    for the forward and backward pass, and updates go to the float32 masters. An update is a few
    passes over long rows, not a call per parameter. Everything lives where the parameters do.

    A subclass gives `_update`, and keeps what it must remember in tensors made with `_keep`.

    Args:
        named_parameters: (name, parameter) pairs, float32; the names appear in `state()`.
        clip: largest gradient norm; 0 for none.
        dtype: what the model computes in.
        special: parameters that the subclass treats in a way of its own; they come first in the rows,
            then other matrices, which decay, then vectors, which do not.
    """

    apart = False
    """Whether the model computes with other weights than the masters, even in float32."""
    queues = False
    """Whether `_update` can be queued on a GPU before it is known that the gradient is finite."""
    label = "last"
    """Which weights `weights()` gives, and evaluations use: the last ones, or some average."""

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        clip: float = 1.0,
        dtype: torch.dtype = torch.float32,
        special: Callable[[str, nn.Parameter], bool] = lambda name, parameter: False,
    ) -> None:
        self._clip = clip
        named = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]

        def stretch(pair: tuple[str, nn.Parameter]) -> int:
            return 0 if special(*pair) else 1 if pair[1].ndim >= 2 else 2

        named.sort(key=stretch)
        self._names = [name for name, _ in named]
        self._parameters = [parameter for _, parameter in named]
        sizes = [0, 0, 0]
        for pair in named:
            sizes[stretch(pair)] += pair[1].numel()
        self._special = slice(0, sizes[0])
        self._matrices = slice(sizes[0], sizes[0] + sizes[1])
        self._vectors = slice(sizes[0] + sizes[1], sum(sizes))
        self._n_special = sum(stretch(pair) == 0 for pair in named)
        flat = torch.cat([parameter.detach().flatten() for parameter in self._parameters])
        self._flat = {"weights": flat, "gradient": torch.zeros_like(flat)}
        self._masters, self._gradients = self._views(flat), self._views(self._flat["gradient"])
        # With `dtype` float32 the model computes in whatever the parameters came in.
        self._computing = flat.to(dtype if dtype != torch.float32 else flat.dtype, copy=self.apart)
        self._copies = self._computing is not flat
        for parameter, view in zip(self._parameters, self._views(self._computing), strict=True):
            parameter.data = view
        self._count = torch.zeros((), dtype=torch.float32, device=flat.device)
        self._kept: dict[str, Tensor] = {}
        self._gathered = False

    def _views(self, flat: Tensor, first: int = 0, last: int | None = None) -> list[Tensor]:
        """The parameters `first` to `last` as views of a row that holds those."""
        parameters = self._parameters[first:last]
        parts = flat.split([parameter.numel() for parameter in parameters])
        return [part.view(parameter.shape) for part, parameter in zip(parts, parameters, strict=True)]

    def _keep(self, prefix: str, first: int = 0, last: int | None = None) -> Tensor:
        """A row of zeros for the parameters `first` to `last`, that `state()` will hold by their names."""
        count = sum(parameter.numel() for parameter in self._parameters[first:last])
        row = self._flat["weights"].new_zeros(count)
        views = self._views(row, first, last) if count else []
        self._kept |= {
            f"{prefix}.{name}": view
            for name, view in zip(self._names[first:last] if count else [], views, strict=True)
        }
        return row

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self._gathered = False
        for parameter in self._parameters:
            parameter.grad = None

    def begun(self) -> None:
        """What `gather` finds next is added to the sum that is there."""
        self._gathered = True

    @torch.no_grad()
    def gather(self) -> None:
        """Add the parameters' gradients to the float32 sum that `step` uses, and drop them.

        Called after each of several backward passes, so that bf16 gradients are summed in float32.
        """
        found = [(view, p.grad) for view, p in zip(self._gradients, self._parameters, strict=True)]
        present = [(view, grad) for view, grad in found if grad is not None]
        if not self._gathered and len(present) < len(found):
            self._flat["gradient"].zero_()
        if present:
            views, grads = [view for view, _ in present], [grad for _, grad in present]
            if self._gathered:
                torch._foreach_add_(views, [grad.to(views[0].dtype) for grad in grads])
            else:
                torch._foreach_copy_(views, grads)
        self._gathered = True
        for parameter in self._parameters:
            parameter.grad = None

    @property
    def gradient(self) -> Tensor:
        """The gradient that `gather` summed, float32, in one row: what several processes add up."""
        return self._flat["gradient"]

    @property
    def masters(self) -> Tensor:
        """The weights that are trained, float32, in one row."""
        return self._flat["weights"]

    @torch.no_grad()
    def step(self, lr: float, loss: Tensor | None = None) -> float:
        """One update from the gradients that are there.

        On a GPU the update may be queued before its norm is known to the host; it leaves everything as it
        is where the norm or `loss` is not finite.

        Args:
            lr: the learning rate.
            loss: what the gradient is of, on a GPU.

        Returns:
            The gradient's norm before clipping. If it is not finite, nothing has been changed.
        """
        if not self._gathered or any(parameter.grad is not None for parameter in self._parameters):
            self.gather()
        if self.queues and self._count.device.type != "cpu":
            return self.queue_update(lr, loss).item()
        norm = torch.linalg.vector_norm(self._flat["gradient"])
        value = norm.item()
        if not math.isfinite(value if loss is None else value + loss.item()):
            return value
        self._count += 1
        divisor = (norm / self._clip).float() if self._clip and value > self._clip else None
        self._change(lr, divisor, None)
        return value

    @torch.no_grad()
    def queue_update(self, lr: float | Tensor, loss: Tensor | None = None) -> Tensor:
        """`step` on a GPU without waiting for it, only where `queues`: the norm comes back as a tensor."""
        norm = torch.linalg.vector_norm(self._flat["gradient"])
        divisor = (norm / self._clip).clamp(min=1.0).float() if self._clip else None
        unusable = (~torch.isfinite(norm if loss is None else norm + loss)).float()
        self._count += 1 - unusable
        self._change(lr, divisor, unusable)
        return norm

    def _change(self, lr: float | Tensor, divisor: Tensor | None, unusable: Tensor | None) -> None:
        self._update(lr, divisor, unusable)
        self._gathered = False
        self._refresh()

    def _update(self, lr: Any, divisor: Tensor | None, unusable: Tensor | None) -> None:
        """Change the masters.

        Args:
            lr: the learning rate: a number, or a tensor only where `queues`.
            divisor: what the gradient is to be divided by, to clip it.
            unusable: 1 on the device where nothing may change; only where `queues`.
        """
        raise NotImplementedError

    def _refresh(self) -> None:
        """Bring the model's weights up to date with the masters."""
        if self._copies:
            self._computing.copy_(self._flat["weights"])

    def weights(self) -> dict[str, Tensor]:
        """Float32 weights by parameter name: what a checkpoint's model.safetensors holds."""
        return dict(zip(self._names, self._masters, strict=True))

    def named(self, row: Tensor) -> dict[str, Tensor]:
        """A row like `masters` by parameter name."""
        return dict(zip(self._names, self._views(row), strict=True))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """In the block, the model computes with the weights that `weights()` gives."""
        row = self._evaluated()
        if row is None:
            yield
            return
        with self.computing_with(row):
            yield

    @contextmanager
    def computing_with(self, row: Tensor) -> Iterator[None]:
        """In the block, the model computes with the weights of a row like `masters`."""
        kept = self._computing.clone()
        with torch.no_grad():
            self._computing.copy_(row)
        try:
            yield
        finally:
            with torch.no_grad():
                self._computing.copy_(kept)

    def _evaluated(self) -> Tensor | None:
        """The row that evaluations use; None where the model computes with it anyway."""
        return None

    def state(self) -> dict[str, Tensor]:
        """What is needed beside `weights()` to go on exactly: what optimizer.safetensors holds."""
        return {"step": self._count, **self._kept}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None = None) -> None:
        """Go on from what `state()` and `weights()` gave.

        Raises:
            RunError: tensors are missing, left over, or of another shape.
        """
        own, given = self.state(), dict(state)
        if weights is not None:
            own |= {f"weights.{name}": tensor for name, tensor in self.weights().items()}
            given |= {f"weights.{name}": tensor for name, tensor in weights.items()}
        for name in sorted(own.keys() | given.keys()):
            expected = tuple(own[name].shape) if name in own else None
            found = tuple(given[name].shape) if name in given else None
            if expected != found:
                raise RunError(
                    f"the optimiser's state does not fit the model: {name} is {found}, not {expected}."
                )
        for name, tensor in own.items():
            tensor.copy_(given[name])
        self._refresh()

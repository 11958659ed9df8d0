"""AdamW with float32 master weights (Loshchilov & Hutter 2019; Micikevicius et al. 2018)."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from workbench.errors import RunError


class AdamW:
    """Decoupled weight decay on matrices only, and clipping by the norm of the whole gradient.

    The parameters arrive in float32. With `dtype=torch.bfloat16` they are replaced by bf16 copies
    for the forward and backward pass, and updates go to the float32 masters. Weights, gradients and
    moments each lie in one row of memory, of which the parameters become views: an update is a few
    passes over long rows, not a call per parameter.

    Args:
        named_parameters: (name, parameter) pairs, float32; the names appear in `state()`.
        betas: decay rates of the two moments.
        eps: added to the denominator.
        weight_decay: decay rate of parameters with two or more axes, times the learning rate.
        clip: largest gradient norm; 0 for none.
        dtype: what the model computes in.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        clip: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._betas, self._eps, self._clip = betas, eps, clip
        named = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]
        named.sort(
            key=lambda pair: pair[1].ndim < 2
        )  # matrices first: one stretch that decays, one that does not
        self._names = [name for name, _ in named]
        self._parameters = [parameter for _, parameter in named]
        self._mixed = dtype != torch.float32
        flat = torch.cat([parameter.detach().flatten() for parameter in self._parameters])
        self._flat = {"weights": flat, "gradient": torch.zeros_like(flat)}
        self._flat |= {"first": torch.zeros_like(flat), "second": torch.zeros_like(flat)}
        self._masters = self._views(self._flat["weights"])
        self._gradients = self._views(self._flat["gradient"])
        self._first, self._second = self._views(self._flat["first"]), self._views(self._flat["second"])
        self._computing = flat.to(dtype) if self._mixed else flat
        for parameter, view in zip(self._parameters, self._views(self._computing), strict=True):
            parameter.data = view
        self._count = torch.zeros((), dtype=torch.float32, device=flat.device)
        self._gathered = False
        border = sum(parameter.numel() for parameter in self._parameters if parameter.ndim >= 2)
        stretches = ((slice(0, border), weight_decay), (slice(border, flat.numel()), 0.0))
        self._groups = [(part, decay) for part, decay in stretches if part.stop > part.start]

    def _views(self, flat: Tensor) -> list[Tensor]:
        sizes = [parameter.numel() for parameter in self._parameters]
        parts = flat.split(sizes)
        return [part.view(parameter.shape) for part, parameter in zip(parts, self._parameters, strict=True)]

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

    @torch.no_grad()
    def step(self, lr: float, loss: Tensor | None = None) -> float:
        """One update from the gradients that are there.

        On a GPU the update is queued before its norm is known to the host, and leaves everything as it is
        where the norm or `loss` is not finite.

        Args:
            lr: the learning rate.
            loss: what the gradient is of, on a GPU.

        Returns:
            The gradient's norm before clipping. If it is not finite, nothing has been changed.
        """
        if not self._gathered or any(parameter.grad is not None for parameter in self._parameters):
            self.gather()
        if self._count.device.type != "cpu":
            return self.queue_update(lr, loss).item()
        norm = torch.linalg.vector_norm(self._flat["gradient"])
        value = norm.item()
        if not math.isfinite(value):
            return value
        self._count += 1
        self._update(lr, norm / self._clip if self._clip and value > self._clip else None, None)
        return value

    @torch.no_grad()
    def queue_update(self, lr: float | Tensor, loss: Tensor | None = None) -> Tensor:
        """`step` on a GPU without waiting for it: the norm comes back as a tensor."""
        norm = torch.linalg.vector_norm(self._flat["gradient"])
        divisor = (norm / self._clip).clamp(min=1.0) if self._clip else None
        unusable = (~torch.isfinite(norm if loss is None else norm + loss)).float()
        self._count += 1 - unusable
        self._update(lr, divisor, unusable)
        return norm

    def _update(self, lr: float | Tensor, divisor: Tensor | None, unusable: Tensor | None) -> None:
        for part, decay in self._groups:
            torch._fused_adamw_(
                [self._flat["weights"][part]],
                [self._flat["gradient"][part]],
                [self._flat["first"][part]],
                [self._flat["second"][part]],
                [],
                [self._count],
                lr=lr,  # type: ignore[arg-type]
                beta1=self._betas[0],
                beta2=self._betas[1],
                weight_decay=decay,
                eps=self._eps,
                amsgrad=False,
                maximize=False,
                grad_scale=divisor,
                found_inf=unusable,
            )
        self._gathered = False
        if self._mixed:
            self._computing.copy_(self._flat["weights"])

    def weights(self) -> dict[str, Tensor]:
        """The float32 master weights by parameter name: what a checkpoint's model.safetensors holds."""
        return dict(zip(self._names, self._masters, strict=True))

    def state(self) -> dict[str, Tensor]:
        """Both moments by parameter name and the number of updates: what optimizer.safetensors holds.
        The master weights are not repeated here; they are the checkpoint's weights."""
        state = {"step": self._count}
        for name, first, second in zip(self._names, self._first, self._second, strict=True):
            state[f"exp_avg.{name}"] = first
            state[f"exp_avg_sq.{name}"] = second
        return state

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None = None) -> None:
        """Go on from what `state()` and `weights()` gave.

        Raises:
            RunError: tensors are missing, left over, or of another shape.
        """
        own = self.state() | (
            {} if weights is None else {f"weights.{n}": t for n, t in self.weights().items()}
        )
        given = dict(state) | ({} if weights is None else {f"weights.{n}": t for n, t in weights.items()})
        for name in sorted(own.keys() | given.keys()):
            expected = tuple(own[name].shape) if name in own else None
            found = tuple(given[name].shape) if name in given else None
            if expected != found:
                raise RunError(
                    f"the optimiser's state does not fit the model: {name} is {found}, not {expected}."
                )
            own[name].copy_(given[name])
        if self._mixed:
            self._computing.copy_(self._flat["weights"])

"""Schedule-free AdamW (Defazio et al. 2024, The Road Less Scheduled, algorithm 1)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from training.optimizers.base import FlatOptimizer


class ScheduleFree(FlatOptimizer):
    """No falling learning rate: an average of the iterates takes its place.

    Three sequences: z takes AdamW's steps, x is the mean of all z so far, each weighted by its learning
    rate squared, and the gradient is taken at y, between them. Evaluations and checkpoints use x.

        y = (1 - beta1) z + beta1 x
        z = z - lr * (g(y) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * y)
        x = (1 - c) x + c z,  c = lr^2 / (sum of all lr^2)

    Args:
        named_parameters: (name, parameter) pairs, float32.
        betas: how near y is to x, and the decay rate of the second moment v.
        eps: added to the denominator.
        weight_decay: decay rate of matrices, at y, times the learning rate.
        clip: largest gradient norm; 0 for none.
        dtype: what the model computes in.
    """

    apart = True
    label = "schedule-free average"

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
        super().__init__(named_parameters, clip=clip, dtype=dtype)
        self._betas, self._eps, self._decay = betas, eps, weight_decay
        self._z = self._keep("z")
        self._z.copy_(self.masters)
        self._second = self._keep("exp_avg_sq")
        self._squares = torch.zeros((), dtype=torch.float64, device=self.masters.device)
        self._kept["lr_squared"] = self._squares

    def _update(self, lr: Any, divisor: Tensor | None, unusable: Tensor | None) -> None:
        beta1, beta2 = self._betas
        gradient, x = self.gradient, self.masters
        if divisor is not None:
            gradient.div_(divisor)
        self._second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = (self._second / (1 - beta2 ** self._count.item())).sqrt_().add_(self._eps)
        update = gradient.div_(scale)
        if self._decay:
            decays = slice(0, self._matrices.stop)
            y = torch.lerp(self._z[decays], x[decays], beta1, out=scale[decays])
            update[decays].add_(y, alpha=self._decay)
        self._z.add_(update, alpha=-lr)
        self._squares += lr**2
        total = self._squares.item()
        x.lerp_(self._z, lr**2 / total if total else 0.0)

    def _refresh(self) -> None:
        self._computing.copy_(torch.lerp(self._z, self.masters, self._betas[0]))

    def _evaluated(self) -> Tensor:
        return self.masters

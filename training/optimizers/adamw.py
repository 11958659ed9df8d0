"""AdamW with float32 master weights (Loshchilov & Hutter 2019; Micikevicius et al. 2018)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from training.optimizers.base import FlatOptimizer


class AdamW(FlatOptimizer):
    """Decoupled weight decay on matrices only, and clipping by the norm of the whole gradient.

    Args:
        named_parameters: (name, parameter) pairs, float32; the names appear in `state()`.
        betas: decay rates of the two moments.
        eps: added to the denominator.
        weight_decay: decay rate of parameters with two or more axes, times the learning rate.
        clip: largest gradient norm; 0 for none.
        dtype: what the model computes in.
        special: parameters that a subclass updates itself.
    """

    queues = True

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        clip: float = 1.0,
        dtype: torch.dtype = torch.float32,
        special: Callable[[str, nn.Parameter], bool] = lambda name, parameter: False,
    ) -> None:
        super().__init__(named_parameters, clip=clip, dtype=dtype, special=special)
        self._betas, self._eps, self._decay = betas, eps, weight_decay
        self._first = self._keep("exp_avg", self._n_special)
        self._second = self._keep("exp_avg_sq", self._n_special)
        stretches = ((self._matrices, weight_decay), (self._vectors, 0.0))
        self._groups = [(part, decay) for part, decay in stretches if part.stop > part.start]

    def _update(self, lr: Any, divisor: Tensor | None, unusable: Tensor | None) -> None:
        start = self._special.stop
        for part, decay in self._groups:
            moments = slice(part.start - start, part.stop - start)
            torch._fused_adamw_(
                [self._flat["weights"][part]],
                [self._flat["gradient"][part]],
                [self._first[moments]],
                [self._second[moments]],
                [],
                [self._count],
                lr=lr,
                beta1=self._betas[0],
                beta2=self._betas[1],
                weight_decay=decay,
                eps=self._eps,
                amsgrad=False,
                maximize=False,
                grad_scale=divisor,
                found_inf=unusable,
            )

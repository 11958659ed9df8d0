"""AdamW with moments of one byte (Dettmers et al. 2022, 8-bit Optimizers via Block-wise Quantization)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from training.optimizers.adamw import AdamW
from training.optimizers.muon import is_hidden_matrix

BLOCK = 256
"""Values that share one scale."""


class AdamW8bit(AdamW):
    """bitsandbytes' block-wise 8-bit moments for the matrices inside the blocks; float32 ones for
    embeddings, readout and vectors, whose gradients are too uneven for it (section 2.3 of the paper).

    Args:
        named_parameters: (name, parameter) pairs, float32.
        options: those of `AdamW`.
    """

    queues = False

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
        from bitsandbytes import functional  # type: ignore[import-not-found]

        self._library = functional
        super().__init__(
            named_parameters,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            clip=clip,
            dtype=dtype,
            special=is_hidden_matrix,
        )
        count, place = self._special.stop, self.masters.device
        self._maps = [self._library.create_dynamic_map(signed=signed).to(place) for signed in (True, False)]
        self._bytes = [torch.zeros(count, dtype=torch.uint8, device=place) for _ in range(2)]
        for stored, values in zip(self._bytes, self._maps, strict=True):
            stored.fill_(int(values.abs().argmin()))  # the code of 0
        self._scales = [torch.zeros(-(-count // BLOCK), device=place) for _ in range(2)]
        for order, name in enumerate(("exp_avg", "exp_avg_sq") if count else ()):
            self._kept[f"{name}_8bit"] = self._bytes[order]
            self._kept[f"{name}_scale"] = self._scales[order]

    def _update(self, lr: Any, divisor: Tensor | None, unusable: Tensor | None) -> None:
        super()._update(lr, divisor, unusable)
        part = self._special
        if part.stop == part.start:
            return
        self._library.optimizer_update_8bit_blockwise(
            "adam",
            self.gradient[part],
            self.masters[part],
            state1=self._bytes[0],
            state2=self._bytes[1],
            beta1=self._betas[0],
            beta2=self._betas[1],
            beta3=0.0,
            alpha=0.0,
            eps=self._eps,
            step=int(self._count.item()),
            lr=lr,
            qmap1=self._maps[0],
            qmap2=self._maps[1],
            absmax1=self._scales[0],
            absmax2=self._scales[1],
            weight_decay=self._decay,
            gnorm_scale=1.0 if divisor is None else 1.0 / divisor.item(),
        )

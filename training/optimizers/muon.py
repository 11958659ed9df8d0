"""Muon: momentum, orthogonalised by Newton-Schulz (Jordan et al. 2024, Muon: for hidden layers)."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from training.optimizers.adamw import AdamW

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration; singular values end between about 0.7 and 1.2, not at 1 (Jordan et al. 2024)."""


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether it is a weight matrix inside a block: neither embedding, readout, table nor vector."""
    return parameter.ndim == 2 and name.startswith("blocks.") and name.endswith("_weight")


def orthogonalise(
    matrices: Float[Tensor, "matrix row column"], steps: int = 5
) -> Float[Tensor, "matrix row column"]:
    """The nearest semi-orthogonal matrices, roughly: U V^T of each U S V^T, by Newton-Schulz iteration.

    Computed in bf16 on a GPU, as its authors do, and in the given type elsewhere.
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.device.type == "cuda" else matrices
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(AdamW):
    """Muon for the matrices inside the blocks, AdamW for embeddings, readout and vectors.

    The update of a matrix is scaled by 0.2 sqrt(max(rows, columns)), which gives it the size of AdamW's, so
    that one learning rate and one weight decay serve both (Liu et al. 2025, Muon is Scalable for LLM
    Training, section 2.2).

    Args:
        named_parameters: (name, parameter) pairs, float32.
        pieces: of matrices that are several in one, such as queries, keys and values: how many rows each has.
        momentum: decay rate of the average of the gradients; Nesterov's form.
        options: those of `AdamW`.
    """

    queues = False

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        pieces: Mapping[str, tuple[int, ...]] | None = None,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        clip: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            named_parameters,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            clip=clip,
            dtype=dtype,
            special=is_hidden_matrix,
        )
        self._momentum = momentum
        self._average = self._keep("momentum", 0, self._n_special)
        self._by_shape: dict[torch.Size, list[tuple[int, int, int]]] = {}
        for index in range(self._n_special):
            rows = self._masters[index].shape[0]
            start = 0
            for count in (pieces or {}).get(self._names[index], (rows,)):
                shape = self._masters[index][start : start + count].shape
                self._by_shape.setdefault(shape, []).append((index, start, start + count))
                start += count

    def _update(self, lr: Any, divisor: Tensor | None, unusable: Tensor | None) -> None:
        super()._update(lr, divisor, unusable)
        part = self._special
        if part.stop == part.start:
            return
        gradient = self.gradient[part]
        if divisor is not None:
            gradient.div_(divisor)
        self._average.lerp_(gradient, 1 - self._momentum)
        gradient.lerp_(self._average, self._momentum)
        self.masters[part].mul_(1 - lr * self._decay)
        for shape, places in self._by_shape.items():
            found = torch.stack([self._gradients[index][start:stop] for index, start, stop in places])
            scale = 0.2 * math.sqrt(max(shape))
            for (index, start, stop), update in zip(places, orthogonalise(found), strict=True):
                self._masters[index][start:stop].add_(update, alpha=-lr * scale)

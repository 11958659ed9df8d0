"""The readout's cross-entropy on a GPU, where no step of it waits for the host; anywhere, the one with label
smoothing or z-loss."""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORE = -100
"""Target of a position that is not scored."""
SHARE_OF_MEMORY = 32
"""Logits held at a time take at most this fraction of the GPU's memory."""

_BUDGET = 2**26  # bytes of logits where the memory is not a GPU's


ALIGNED = 64
"""Rows of the readout's weight come in multiples of this: with 50,257 rows the matrix units are not used as
they could be, and the three products of a step took half of its time (166M parameters, H200)."""


def chunk_gradient(
    logits: Tensor, targets: Tensor, inverse: Tensor, d_vocab: int, smoothing: float, z_loss: float
) -> tuple[Tensor, Tensor]:
    """Losses of the rows, [row], and the gradient of `inverse` times their sum, [row padded] as `logits`.

    Of the logits' columns the first `d_vocab` are read; the gradient of the others is 0.

    In float32 inside, or float64 if the logits are. For probabilities p = softmax(z), Z = sum exp z,
    target t, smoothing s and weight w of log^2 Z: L = (1-s)(log Z - z_t) + s(log Z - mean z) + w log^2 Z and
    dL/dz = (1 + 2w log Z) p - (1-s) onehot(t) - s/d_vocab. Rows without a target give 0.
    """
    wide = logits[:, :d_vocab].to(torch.promote_types(logits.dtype, torch.float32))
    scored = (targets != IGNORE).unsqueeze(-1)
    safe = targets.unsqueeze(-1).where(scored, 0)
    log_z = wide.logsumexp(-1, keepdim=True)
    loss = log_z - (1 - smoothing) * wide.gather(-1, safe)
    if smoothing:
        loss = loss - smoothing * wide.mean(-1, keepdim=True)
    gradient = (wide - log_z).exp()
    if z_loss:
        loss = loss + z_loss * log_z.square()
        gradient = gradient * (1 + 2 * z_loss * log_z)
    hit = torch.arange(wide.shape[-1], device=wide.device) == safe
    gradient = gradient - hit.to(wide.dtype) * (1 - smoothing)
    if smoothing:
        gradient = gradient - smoothing / wide.shape[-1]
    gradient = torch.where(scored, gradient * inverse, 0.0).to(logits.dtype)
    gradient = torch.nn.functional.pad(gradient, (0, logits.shape[-1] - d_vocab))
    return torch.where(scored, loss, 0.0).squeeze(-1), gradient


@cache
def _compiled() -> Any:
    """`chunk_gradient` as one or two kernels."""
    return torch.compile(chunk_gradient, dynamic=False)


class DeviceLinearCrossEntropy(torch.autograd.Function):
    """Loss and gradients of a linear readout, in one pass over chunks of logits (Hsu et al. 2024, Liger)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float = 0.0,
        z_loss: float = 0.0,
        compiled: bool = False,
    ) -> Tensor:
        with_x, with_weight, with_bias = ctx.needs_input_grad[:3]
        rows_of = _compiled() if compiled else chunk_gradient
        d_vocab = weight.shape[0]
        more = -d_vocab % ALIGNED
        if more:
            weight = torch.nn.functional.pad(weight, (0, 0, 0, more))
            bias = None if bias is None else torch.nn.functional.pad(bias, (0, more))
        wide = torch.promote_types(x.dtype, torch.float32)
        inverse = 1.0 / (targets != IGNORE).sum().clamp(min=1).to(wide)
        dx = torch.empty_like(x) if with_x else None
        dweight = dbias = None
        total = inverse.new_zeros(())
        for part in _parts(x, weight):
            logits = x[part] @ weight.T if bias is None else torch.addmm(bias, x[part], weight.T)
            losses, gradient = rows_of(logits, targets[part], inverse, d_vocab, smoothing, z_loss)
            total += losses.sum()
            if dx is not None:
                torch.mm(gradient, weight, out=dx[part])
            if with_weight and dweight is None:
                dweight = gradient.T @ x[part]
            elif with_weight and dweight is not None:
                dweight.addmm_(gradient.T, x[part])
            if with_bias:
                here = gradient.sum(0, dtype=wide)
                dbias = here if dbias is None else dbias.add_(here)
        dweight = None if dweight is None else dweight[:d_vocab]
        dbias = None if dbias is None or bias is None else dbias[:d_vocab].to(bias.dtype)
        ctx.save_for_backward(dx, dweight, dbias)
        return total * inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts = (None if part is None else part * grad.to(part.dtype) for part in ctx.saved_tensors)
        return *parts, None, None, None, None


def _parts(x: Tensor, weight: Tensor) -> list[slice]:
    """Rows in equal chunks, so that there is one shape to compile for wherever they divide."""
    budget = _BUDGET
    if x.device.type == "cuda":
        budget = torch.cuda.get_device_properties(x.device).total_memory // SHARE_OF_MEMORY
    rows = x.shape[0]
    chunks = max(1, -(-rows * weight.shape[0] * x.element_size() // budget))
    size = max(1, -(-rows // chunks))
    return [slice(start, start + size) for start in range(0, rows, size)]

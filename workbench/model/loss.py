"""Cross-entropy of a linear readout: loss and gradients in one pass, never all logits at once."""

import threading
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench.model.device_loss import IGNORE, DeviceLinearCrossEntropy

CHUNK_BYTES = 64 * 2**20
"""Logits held at a time."""

_UNDERFLOW = 1e-30
"""Below this probability -log(softmax) is no longer the loss to rounding."""


class _LinearCrossEntropy(torch.autograd.Function):
    """For logits Z = X W^T + b and targets t over n scored rows, dL/dZ = (softmax(Z) - onehot(t)) / n.

    The forward pass turns each chunk of Z into that gradient and multiplies it out at once, so
    no logit is kept or computed twice (the idea of Hsu et al. 2024, Liger Kernel).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        with_x, with_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        scored = targets != IGNORE
        all_scored = bool(scored.all())
        wide = torch.promote_types(x.dtype, torch.float32)
        inverse = 1.0 / scored.sum().clamp(min=1).to(wide)
        safe = targets if all_scored else targets.where(scored, 0)
        dx = torch.empty_like(x) if with_x else None
        dweight = dbias = None
        with_bias = ctx.needs_input_grad[2]
        scaled = x * inverse.to(x.dtype) if with_weight else x
        total = inverse.new_zeros(())
        chunk = max(1, CHUNK_BYTES // (weight.shape[0] * x.element_size()))
        for start in range(0, x.shape[0], chunk):
            part = slice(start, start + chunk)
            targets_here = safe[part]
            rows = torch.arange(targets_here.shape[0], device=x.device)
            probabilities = _workspace(x, targets_here.shape[0], weight.shape[0])
            if bias is None:
                torch.mm(x[part], weight.T, out=probabilities)
            else:
                torch.addmm(bias, x[part], weight.T, out=probabilities)
            torch.softmax(probabilities, -1, out=probabilities)
            correct = probabilities[rows, targets_here]
            losses = -correct.to(wide).log()
            lost = correct < _UNDERFLOW
            if bool(lost.any()):
                losses[lost] = _exact(x[part][lost], weight, bias, targets_here[lost], wide)
            total += losses.sum() if all_scored else losses.where(scored[part], 0.0).sum()
            if not (with_x or with_weight or with_bias):
                continue
            probabilities[rows, targets_here] = correct - 1.0
            if not all_scored:
                probabilities.masked_fill_(~scored[part, None], 0.0)
            if dx is not None:
                torch.mm(probabilities, weight, out=dx[part])
            if with_bias:
                here = probabilities.sum(0, dtype=wide)
                dbias = here if dbias is None else dbias.add_(here)
            if not with_weight:
                continue
            if dweight is None:
                dweight = probabilities.T @ scaled[part]
            else:
                dweight.addmm_(probabilities.T, scaled[part])
        dx = None if dx is None else dx.mul_(inverse.to(x.dtype))
        dbias = None if dbias is None or bias is None else (dbias * inverse).to(bias.dtype)
        ctx.save_for_backward(dx, dweight, dbias)
        return total * inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if part is None else part * grad.to(part.dtype) for part in ctx.saved_tensors), None


_local = threading.local()


def _workspace(like: Tensor, rows: int, columns: int) -> Tensor:
    """An uninitialised matrix on the CPU. Each thread keeps one, because fresh pages cost more than
    the product that fills them (7 x at 2,048 rows of 10,000 logits)."""
    kept = getattr(_local, "kept", None)
    if kept is None or kept.dtype != like.dtype or kept.numel() < rows * columns:
        kept = _local.kept = torch.empty(rows * columns, dtype=like.dtype)
    return kept[: rows * columns].view(rows, columns)


def _exact(x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, wide: torch.dtype) -> Tensor:
    """Losses of rows whose target's probability underflows, one vector per row."""
    logits = F.linear(x, weight, bias).to(wide)
    return logits.logsumexp(-1) - logits.gather(1, targets[:, None])[:, 0]


def linear_cross_entropy(
    x: Float[Tensor, "row d_model"],
    weight: Float[Tensor, "d_vocab d_model"],
    targets: Int[Tensor, " row"],
    bias: Float[Tensor, " d_vocab"] | None = None,
    compiled: bool = False,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats of the logits `x @ weight.T + bias`, once differentiable.

    Args:
        x: residual vectors after the final norm.
        weight: the readout, as stored.
        targets: token ids, or `IGNORE` where nothing is scored; the mean over no rows is 0.
        bias: one number a token.
        compiled: on a GPU, run the steps between the matrix products as compiled kernels.
        label_smoothing: share of the target's probability that is spread over all tokens, itself included
            (Szegedy et al. 2016, section 7).
        z_loss: weight of the added mean of log^2 Z, Z the softmax's denominator (Chowdhery et al. 2022,
            PaLM, section 5: 1e-4).
    """
    if label_smoothing or z_loss or x.device.type != "cpu":
        return DeviceLinearCrossEntropy.apply(  # type: ignore[no-any-return]
            x, weight, bias, targets, label_smoothing, z_loss, compiled and x.device.type != "cpu"
        )
    return _LinearCrossEntropy.apply(x, weight, bias, targets)  # type: ignore[no-any-return]

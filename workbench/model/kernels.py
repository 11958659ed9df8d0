"""Fused operations for training: attention that keeps its pattern (bfloat16 on a CPU), and the cross-entropy
of a linear readout without holding all logits."""

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

# Attention for training in bfloat16 on a CPU, where the backward pass of PyTorch's fused kernel is slow: the
# pattern is kept for the backward pass instead of being recomputed.

MAX_KEPT_LENGTH = 512
"""Beyond this length keeping the pattern costs more memory than it saves time."""


def kept_pattern_is_faster(x: Tensor, length: int) -> bool:
    """Return True if self-attention over `length` tokens trains faster with its pattern kept.

    Measured by `make bench`: 1.9 x at 256 tokens, 8 heads of 64, in bfloat16; no gain in float32.
    """
    on_cpu_in_bf16 = x.dtype == torch.bfloat16 and x.device.type == "cpu"
    return on_cpu_in_bf16 and length <= MAX_KEPT_LENGTH and torch.is_grad_enabled()


def causal_attention(
    qkv: Float[Tensor, "batch pos three_heads_d_head"], n_heads: int, scale: float
) -> Float[Tensor, "batch pos heads_d_head"]:
    """Compute causal attention from the fused projection [q heads, k heads, v heads]; once differentiable."""
    return _FusedCausal.apply(qkv, n_heads, scale)  # type: ignore[no-any-return]


def kept_pattern_attention(
    q: Float[Tensor, "batch head pos d_head"],
    k: Float[Tensor, "batch head key_pos d_head"],
    v: Float[Tensor, "batch head key_pos d_value"],
    added: Float[Tensor, "#batch #head pos key_pos"] | None,
    scale: float,
) -> Float[Tensor, "batch head pos d_value"]:
    """Compute softmax(q k^T / scale + added) v; once differentiable, also in `added`."""
    return _KeptPattern.apply(q, k, v, added, scale)  # type: ignore[no-any-return]


def _pattern(added: Tensor, q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Return softmax(q k^T / scale + added) over stacks of heads."""
    pattern = torch.baddbmm(added, q, k.transpose(1, 2), alpha=1 / scale)
    return torch.softmax(pattern, -1, out=pattern)


def _scores_gradient(grad: Tensor, pattern: Tensor, v: Tensor) -> Tensor:
    """Return the gradient of the scores, given that of `pattern @ v`."""
    d_pattern = torch.bmm(grad, v.transpose(1, 2))
    return torch._softmax_backward_data(d_pattern, pattern, -1, pattern.dtype)


class _FusedCausal(torch.autograd.Function):
    """Causal attention on the fused projection: seven batched products, forward and backward."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, n_heads: int, scale: float) -> Tensor:
        batch, length, width = qkv.shape
        heads = (3, batch * n_heads, length, width // (3 * n_heads))
        split = qkv.view(batch, length, 3, n_heads, -1).permute(2, 0, 3, 1, 4).reshape(heads)
        q, k, v = split.unbind(0)
        future = torch.full((length, length), float("-inf"), dtype=qkv.dtype, device=qkv.device).triu_(1)
        pattern = _pattern(future, q, k, scale)
        z = torch.bmm(pattern, v)
        ctx.save_for_backward(split, pattern)
        ctx.shape, ctx.scale = (batch, n_heads, length), scale
        return z.view(batch, n_heads, length, -1).transpose(1, 2).reshape(batch, length, width // 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        split, pattern = ctx.saved_tensors
        batch, n_heads, length = ctx.shape
        q, k, v = split.unbind(0)
        grad = grad.view(batch, length, n_heads, -1).transpose(1, 2).reshape(q.shape)
        d_split = torch.empty_like(split)
        torch.bmm(pattern.transpose(1, 2), grad, out=d_split[2])
        d_scores = _scores_gradient(grad, pattern, v).mul_(1 / ctx.scale)
        torch.bmm(d_scores, k, out=d_split[0])
        torch.bmm(d_scores.transpose(1, 2), q, out=d_split[1])
        d_qkv = d_split.view(3, batch, n_heads, length, -1).permute(1, 3, 0, 2, 4)
        return d_qkv.reshape(batch, length, -1), None, None


class _KeptPattern(torch.autograd.Function):
    """Attention with any added scores, such as a mask or a position bias."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, scale: float) -> Tensor:
        shape = (*q.shape[:2], q.shape[2], k.shape[2])
        q, k, v = (part.flatten(0, 1) for part in (q, k, v))
        if added is None:
            scores = q.new_zeros(())
        elif added.shape[:2] == (1, 1):
            scores = added[0]
        else:
            scores = added.expand(shape).reshape(-1, *shape[2:])
        pattern = _pattern(scores, q, k, scale)
        ctx.save_for_backward(q, k, v, pattern)
        ctx.shape, ctx.scale = shape, scale
        ctx.added = None if added is None else added.shape
        return torch.bmm(pattern, v).unflatten(0, shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None]:
        q, k, v, pattern = ctx.saved_tensors
        grad = grad.flatten(0, 1)
        d_v = torch.bmm(pattern.transpose(1, 2), grad)
        d_scores = _scores_gradient(grad, pattern, v)
        d_added = None
        if ctx.needs_input_grad[3]:
            d_added = d_scores.view(ctx.shape).sum_to_size(ctx.added)
            d_scores = d_scores * (1 / ctx.scale)  # not in place: the sum may share its memory
        else:
            d_scores.mul_(1 / ctx.scale)
        d_q, d_k = torch.bmm(d_scores, k), torch.bmm(d_scores.transpose(1, 2), q)
        d_q, d_k, d_v = (part.unflatten(0, ctx.shape[:2]) for part in (d_q, d_k, d_v))
        return d_q, d_k, d_v, d_added, None


# Cross-entropy of a linear readout. For logits Z = X W^T + b and targets t over n scored rows, the gradient
# is dL/dZ = (softmax(Z) - onehot(t)) / n. The forward pass computes it for one chunk of rows at a time and
# multiplies it out to the gradients of X, W and b at once, so no logit is kept or computed twice (Hsu et al.
# 2024, Liger Kernel). There are two implementations: `_CPULinearCrossEntropy` works in place in a buffer that
# each thread keeps; `DeviceLinearCrossEntropy` never waits for the host, can be compiled, and has label
# smoothing and z-loss.
#
# torch.nn.functional.linear_cross_entropy (2.13) is slower on a CPU. Forward and backward of 4,096 rows in
# float32 on one thread take 185 ms here, 256 ms there (204 ms with its best chunk size) at the shape of the
# preset tiny, and 1,484 ms here, 1,704 ms there (1,538 ms) at that of base.

IGNORE = -100
"""Target of a position that is not scored."""

CHUNK_BYTES = 64 * 2**20
"""Bytes of logits held at a time on a CPU."""

DEVICE_MEMORY_FRACTION = 1 / 32
"""Fraction of a GPU's memory that the logits held at a time may take."""

ALIGNED = 64
"""Rows of the readout's weight are padded to a multiple of this: with 50,257 rows a GPU's matrix units are
poorly used, and the three products took half of a step's time (166M parameters, H200)."""

_UNDERFLOW = 1e-30
"""Below this probability -log(softmax) is no longer the loss to rounding."""


def linear_cross_entropy(
    x: Float[Tensor, "row d_model"],
    weight: Float[Tensor, "d_vocab d_model"],
    targets: Int[Tensor, " row"],
    bias: Float[Tensor, " d_vocab"] | None = None,
    compiled: bool = False,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy in nats of the logits `x @ weight.T + bias`; once differentiable.

    Args:
        x: residual vectors after the final norm.
        weight: the unembedding, as stored.
        targets: token ids, or `IGNORE` for rows that are not scored; the mean over no rows is 0.
        bias: added to the logits.
        compiled: on a GPU, run the steps between the matrix products as compiled kernels.
        label_smoothing: fraction of the target's probability that is spread over all tokens, the target
            included (Szegedy et al. 2016, section 7).
        z_loss: weight of the added mean of log^2 Z, Z the softmax's denominator (Chowdhery et al. 2022,
            PaLM, section 5: 1e-4).
    """
    if label_smoothing or z_loss or x.device.type != "cpu":
        return DeviceLinearCrossEntropy.apply(  # type: ignore[no-any-return]
            x, weight, bias, targets, label_smoothing, z_loss, compiled and x.device.type != "cpu"
        )
    return _CPULinearCrossEntropy.apply(x, weight, bias, targets)  # type: ignore[no-any-return]


class _CPULinearCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass, in place in the buffer of `_workspace`."""

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
            chunk_targets = safe[part]
            rows = torch.arange(chunk_targets.shape[0], device=x.device)
            probabilities = _workspace(x, chunk_targets.shape[0], weight.shape[0])
            if bias is None:
                torch.mm(x[part], weight.T, out=probabilities)
            else:
                torch.addmm(bias, x[part], weight.T, out=probabilities)
            torch.softmax(probabilities, -1, out=probabilities)
            correct = probabilities[rows, chunk_targets]
            losses = -correct.to(wide).log()
            underflow = correct < _UNDERFLOW
            if bool(underflow.any()):
                losses[underflow] = _exact(x[part][underflow], weight, bias, chunk_targets[underflow], wide)
            total += losses.sum() if all_scored else losses.where(scored[part], 0.0).sum()
            if not (with_x or with_weight or with_bias):
                continue
            probabilities[rows, chunk_targets] = correct - 1.0
            if not all_scored:
                probabilities.masked_fill_(~scored[part, None], 0.0)
            if dx is not None:
                torch.mm(probabilities, weight, out=dx[part])
            if with_bias:
                added = probabilities.sum(0, dtype=wide)
                dbias = added if dbias is None else dbias.add_(added)
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
        return *_scaled(ctx.saved_tensors, grad), None


_local = threading.local()


def _workspace(like: Tensor, rows: int, columns: int) -> Tensor:
    """Return an uninitialised matrix on the CPU.

    Each thread keeps one, because fresh memory pages cost more than the product that fills them (7 x at 2,048
    rows of 10,000 logits).
    """
    buffer = getattr(_local, "buffer", None)
    if buffer is None or buffer.dtype != like.dtype or buffer.numel() < rows * columns:
        buffer = _local.buffer = torch.empty(rows * columns, dtype=like.dtype)
    return buffer[: rows * columns].view(rows, columns)


def _exact(x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, wide: torch.dtype) -> Tensor:
    """Return the losses of rows whose target's probability underflows."""
    logits = F.linear(x, weight, bias).to(wide)
    return logits.logsumexp(-1) - logits.gather(1, targets[:, None])[:, 0]


def chunk_gradient(
    logits: Tensor, targets: Tensor, inverse: Tensor, d_vocab: int, smoothing: float, z_loss: float
) -> tuple[Tensor, Tensor]:
    """Return the losses of the rows, [row], and the gradient of `inverse` times their sum, like `logits`.

    Only the first `d_vocab` columns of the logits are read; the gradient of the padding is 0. Computes in
    float32, or float64 if the logits are. For probabilities p = softmax(z), Z = sum exp z, target t,
    smoothing s and weight w of log^2 Z: L = (1-s)(log Z - z_t) + s(log Z - mean z) + w log^2 Z and
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
    gradient = F.pad(gradient, (0, logits.shape[-1] - d_vocab))
    return torch.where(scored, loss, 0.0).squeeze(-1), gradient


@cache
def _compiled_chunk_gradient() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(chunk_gradient, dynamic=False)


class DeviceLinearCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass, without synchronising with the host."""

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
        chunk_function = _compiled_chunk_gradient() if compiled else chunk_gradient
        d_vocab = weight.shape[0]
        padding = -d_vocab % ALIGNED
        if padding:
            weight = F.pad(weight, (0, 0, 0, padding))
            bias = None if bias is None else F.pad(bias, (0, padding))
        wide = torch.promote_types(x.dtype, torch.float32)
        inverse = 1.0 / (targets != IGNORE).sum().clamp(min=1).to(wide)
        dx = torch.empty_like(x) if with_x else None
        dweight = dbias = None
        total = inverse.new_zeros(())
        for part in _device_chunks(x, weight):
            logits = x[part] @ weight.T if bias is None else torch.addmm(bias, x[part], weight.T)
            losses, gradient = chunk_function(logits, targets[part], inverse, d_vocab, smoothing, z_loss)
            total += losses.sum()
            if dx is not None:
                torch.mm(gradient, weight, out=dx[part])
            if with_weight and dweight is None:
                dweight = gradient.T @ x[part]
            elif with_weight and dweight is not None:
                dweight.addmm_(gradient.T, x[part])
            if with_bias:
                added = gradient.sum(0, dtype=wide)
                dbias = added if dbias is None else dbias.add_(added)
        dweight = None if dweight is None else dweight[:d_vocab]
        dbias = None if dbias is None or bias is None else dbias[:d_vocab].to(bias.dtype)
        ctx.save_for_backward(dx, dweight, dbias)
        return total * inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *_scaled(ctx.saved_tensors, grad), None, None, None, None


def _scaled(gradients: tuple[Tensor | None, ...], grad: Tensor) -> list[Tensor | None]:
    return [None if part is None else part * grad.to(part.dtype) for part in gradients]


def _device_chunks(x: Tensor, weight: Tensor) -> list[slice]:
    """Return slices of equally many rows where possible, so that only one shape is compiled."""
    budget = CHUNK_BYTES
    if x.device.type == "cuda":
        budget = int(torch.cuda.get_device_properties(x.device).total_memory * DEVICE_MEMORY_FRACTION)
    rows = x.shape[0]
    chunks = max(1, -(-rows * weight.shape[0] * x.element_size() // budget))
    size = max(1, -(-rows // chunks))
    return [slice(start, start + size) for start in range(0, rows, size)]

"""Cross-entropy of a linear readout: loss and gradients in one pass, never all logits at once."""

import threading
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

# Attention for training in bfloat16 on a CPU, where PyTorch's fused backward pass is slow.


LONGEST = 512
"""Beyond this length keeping the pattern costs more memory than the kernel saves time."""


def kept_pattern_is_faster(x: Tensor, length: int) -> bool:
    """Whether self-attention of `length` tokens trains faster with its pattern kept.

    Measured by `make bench`: 1.9 x at 256 tokens, 8 heads of 64, in bfloat16; no gain in float32.
    """
    low = x.dtype == torch.bfloat16 and x.device.type == "cpu"
    return low and length <= LONGEST and torch.is_grad_enabled()


def _pattern(added: Tensor, q: Tensor, k: Tensor, scale: float) -> Tensor:
    """softmax(q k^T / scale + added), over stacks of heads."""
    pattern = torch.baddbmm(added, q, k.transpose(1, 2), alpha=1 / scale)
    return torch.softmax(pattern, -1, out=pattern)


def _scores_gradient(grad: Tensor, pattern: Tensor, v: Tensor) -> Tensor:
    """The gradient of the scores from that of `pattern @ v`."""
    d_pattern = torch.bmm(grad, v.transpose(1, 2))
    return torch._softmax_backward_data(d_pattern, pattern, -1, pattern.dtype)


class _FusedCausal(torch.autograd.Function):
    """Causal attention on the fused projection, as seven batched products; keeps the pattern."""

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
    """Attention with any added scores, as five batched products and four back; keeps the pattern."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, scale: float) -> Tensor:
        shape = (*q.shape[:2], q.shape[2], k.shape[2])
        q, k, v = (part.flatten(0, 1) for part in (q, k, v))
        if added is None:
            wide = q.new_zeros(())
        elif added.shape[:2] == (1, 1):
            wide = added[0]
        else:
            wide = added.expand(shape).reshape(-1, *shape[2:])
        pattern = _pattern(wide, q, k, scale)
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
            d_scores = d_scores * (1 / ctx.scale)  # not in place: the sum may be the same memory
        else:
            d_scores.mul_(1 / ctx.scale)
        d_q, d_k = torch.bmm(d_scores, k), torch.bmm(d_scores.transpose(1, 2), q)
        d_q, d_k, d_v = (part.unflatten(0, ctx.shape[:2]) for part in (d_q, d_k, d_v))
        return d_q, d_k, d_v, d_added, None


def causal_attention(
    qkv: Float[Tensor, "batch pos three_heads_d_head"], n_heads: int, scale: float
) -> Float[Tensor, "batch pos heads_d_head"]:
    """Causal attention on the fused projection [q heads, k heads, v heads]; once differentiable."""
    return _FusedCausal.apply(qkv, n_heads, scale)  # type: ignore[no-any-return]


def kept_pattern_attention(
    q: Float[Tensor, "batch head pos d_head"],
    k: Float[Tensor, "batch head key_pos d_head"],
    v: Float[Tensor, "batch head key_pos d_value"],
    added: Float[Tensor, "#batch #head pos key_pos"] | None,
    scale: float,
) -> Float[Tensor, "batch head pos d_value"]:
    """softmax(q k^T / scale + added) v; once differentiable, `added` included."""
    return _KeptPattern.apply(q, k, v, added, scale)  # type: ignore[no-any-return]


# The readout's cross-entropy on a GPU, where no step of it waits for the host; anywhere, the one with label
# smoothing or z-loss.


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

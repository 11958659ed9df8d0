"""Attention for training in bfloat16 on a CPU, where PyTorch's fused backward pass is slow."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

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

"""Attention for training in bfloat16 on a CPU, where PyTorch's fused backward pass is slow."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

LONGEST = 512
"""Beyond this length keeping the pattern costs more memory than the kernel saves time."""


def kept_pattern_is_faster(x: Tensor, length: int) -> bool:
    """Whether causal self-attention of `length` tokens trains faster with its pattern kept.

    Measured by `make bench`: 1.9 x at 256 tokens, 8 heads of 64, in bfloat16; no gain in float32.
    """
    low = x.dtype == torch.bfloat16 and x.device.type == "cpu"
    return low and length <= LONGEST and torch.is_grad_enabled()


class _CausalAttention(torch.autograd.Function):
    """softmax(Q K^T / scale) V on the fused projection, as seven batched products; keeps the pattern."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, n_heads: int, scale: float) -> Tensor:
        batch, length, width = qkv.shape
        heads = (3, batch * n_heads, length, width // (3 * n_heads))
        split = qkv.view(batch, length, 3, n_heads, -1).permute(2, 0, 3, 1, 4).reshape(heads)
        q, k, v = split.unbind(0)
        future = torch.full((length, length), float("-inf"), dtype=qkv.dtype, device=qkv.device).triu_(1)
        pattern = torch.baddbmm(future, q, k.transpose(1, 2), alpha=1 / scale)
        torch.softmax(pattern, -1, out=pattern)
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
        d_pattern = torch.bmm(grad, v.transpose(1, 2))
        d_scores = torch._softmax_backward_data(d_pattern, pattern, -1, pattern.dtype).mul_(1 / ctx.scale)
        torch.bmm(d_scores, k, out=d_split[0])
        torch.bmm(d_scores.transpose(1, 2), q, out=d_split[1])
        d_qkv = d_split.view(3, batch, n_heads, length, -1).permute(1, 3, 0, 2, 4)
        return d_qkv.reshape(batch, length, -1), None, None


def causal_attention(
    qkv: Float[Tensor, "batch pos three_heads_d_head"], n_heads: int, scale: float
) -> Float[Tensor, "batch pos heads_d_head"]:
    """Causal attention on the fused projection [q heads, k heads, v heads]; once differentiable."""
    return _CausalAttention.apply(qkv, n_heads, scale)  # type: ignore[no-any-return]

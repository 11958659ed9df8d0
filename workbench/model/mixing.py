"""A residual stream with learned weights over all earlier layers."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint


class LayerMix(nn.Module):
    """The mean of what was written so far, with learned weights (Charpentier & Samuel 2023, ELC-BERT).

    Weights are a softmax, so they are positive and sum to one; they start equal.

    Args:
        count: how many outputs are mixed: the embedding's and those of the blocks so far.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(count))

    def forward(
        self, written: Sequence[Float[Tensor, "batch pos d_model"]], hook: HookPoint
    ) -> Float[Tensor, "batch pos d_model"]:
        weights = hook(self.logits.softmax(-1))
        return torch.einsum("n,nbpd->bpd", weights, torch.stack(list(written)))

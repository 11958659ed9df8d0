"""The feed-forward block: plain (Vaswani et al. 2017) or gated (Shazeer 2020)."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.model.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class MLP(nn.Module):
    """`post = activation(pre)`, times `pre_linear` if gated; `out = post @ W_out + b_out`.

    Weights are stored as `torch.nn.functional.linear` reads them, [out in]; `W_in`, `W_out` and
    `W_gate` are views of them in transformer-lens' orientation. In a gated block `W_gate` feeds the
    activation (`hook_pre`) and `W_in` the linear factor (`hook_pre_linear`), as there.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model, d_mlp = config.d_model, config.mlp_width
        self.activation = ACTIVATIONS[config.activation]
        self.in_weight = nn.Parameter(torch.empty(d_mlp, d_model))
        self.gate_weight = nn.Parameter(torch.empty(d_mlp, d_model)) if config.gated else None
        self.out_weight = nn.Parameter(torch.empty(d_model, d_mlp))
        self.b_in = nn.Parameter(torch.zeros(d_mlp)) if config.mlp_bias else None
        self.b_out = nn.Parameter(torch.zeros(d_model)) if config.mlp_bias else None
        self.hook_pre = HookPoint()
        if config.gated:
            self.hook_pre_linear = HookPoint()
        self.hook_post = HookPoint()

    @property
    def W_in(self) -> Float[Tensor, "d_model d_mlp"]:
        return self.in_weight.T

    @property
    def W_gate(self) -> Float[Tensor, "d_model d_mlp"] | None:
        return None if self.gate_weight is None else self.gate_weight.T

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        return self.out_weight.T

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        if self.gate_weight is None:
            post = self.activation(self.hook_pre(F.linear(x, self.in_weight, self.b_in)))
        else:
            pre = self.hook_pre(F.linear(x, self.gate_weight))
            linear = self.hook_pre_linear(F.linear(x, self.in_weight, self.b_in))
            post = self.activation(pre) * linear
        return F.linear(self.hook_post(post), self.out_weight, self.b_out)

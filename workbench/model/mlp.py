"""The feed-forward block: plain (Vaswani et al. 2017), gated (Shazeer 2020), of one hidden layer or more."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.model.config import ModelConfig
from workbench.model.norms import NORMS, normed


def solu(x: Float[Tensor, "*batch d_mlp"]) -> Float[Tensor, "*batch d_mlp"]:
    """x softmax(x) over the neurons (Elhage et al. 2022, Softmax Linear Units); no fused kernel."""
    return x * x.softmax(-1)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "solu": solu,
    "solu_ln": solu,
}
"""All but `prelu`, whose slopes are weights of the layer."""


class Hidden(nn.Module):
    """One hidden layer: `post = activation(pre)`, times `pre_linear` if gated.

    Weights are stored as `torch.nn.functional.linear` reads them, [out in]. In a gated layer
    `gate_weight` feeds the activation (`hook_pre`) and `in_weight` the linear factor
    (`hook_pre_linear`), as in transformer-lens.
    """

    def __init__(self, config: ModelConfig, width: int, norm_after: bool) -> None:
        super().__init__()
        d_mlp = config.mlp_width
        self.activation = ACTIVATIONS.get(config.activation)
        self.in_weight = nn.Parameter(torch.empty(d_mlp, width))
        self.gate_weight = nn.Parameter(torch.empty(d_mlp, width)) if config.gated else None
        self.b_in = nn.Parameter(torch.zeros(d_mlp)) if config.mlp_bias else None
        self.slope = nn.Parameter(torch.full((d_mlp,), 0.25)) if self.activation is None else None
        after = NORMS.get(config.norm, NORMS["LayerNorm"])
        self.ln = after(d_mlp, config.eps) if norm_after else None
        self.hook_pre = HookPoint()
        if config.gated:
            self.hook_pre_linear = HookPoint()
        if norm_after:
            self.hook_mid = HookPoint()
        self.hook_post = HookPoint()

    def hidden(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_mlp"]:
        """The layer's output, before any projection back."""
        if self.gate_weight is None:
            post = self._activate(self.hook_pre(F.linear(x, self.in_weight, self.b_in)))
        else:
            pre = self.hook_pre(F.linear(x, self.gate_weight))
            linear = self.hook_pre_linear(F.linear(x, self.in_weight, self.b_in))
            post = self._activate(pre) * linear
        if self.ln is not None:
            post = normed(self.ln, self.hook_mid(post))
        return self.hook_post(post)

    def _activate(self, pre: Tensor) -> Tensor:
        if self.activation is not None:
            return self.activation(pre)
        assert self.slope is not None
        return F.prelu(pre.flatten(0, -2), self.slope).view(pre.shape)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_mlp"]:
        return self.hidden(x)


class MLP(Hidden):
    """Hidden layers, the last of them this module's own, then `out = post @ W_out + b_out`.

    `W_in` and `W_gate` are the first hidden layer's, which reads the residual stream, `W_out` the last
    one's, which writes to it; all are views in transformer-lens' orientation.
    """

    def __init__(self, config: ModelConfig) -> None:
        earlier = config.mlp_depth - 1
        widths = [config.d_model] + [config.mlp_width] * earlier
        each = config.activation == "solu_ln"
        super().__init__(config, widths[-1], each or config.norm_place == "normformer")
        self.out_weight = nn.Parameter(torch.empty(config.d_model, config.mlp_width))
        self.b_out = nn.Parameter(torch.zeros(config.d_model)) if config.mlp_bias else None
        self.inner = nn.ModuleList(Hidden(config, width, each) for width in widths[:-1])

    @property
    def _first(self) -> Hidden:
        return self.inner[0] if len(self.inner) else self  # type: ignore[return-value]

    @property
    def W_in(self) -> Float[Tensor, "d_model d_mlp"]:
        return self._first.in_weight.T

    @property
    def W_gate(self) -> Float[Tensor, "d_model d_mlp"] | None:
        gate = self._first.gate_weight
        return None if gate is None else gate.T

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        return self.out_weight.T

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        for layer in self.inner:
            x = layer(x)
        return F.linear(self.hidden(x), self.out_weight, self.b_out)

"""Small models that laws are tried on: one per value of every architectural field."""

import torch

from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

VARIANTS: dict[str, dict] = {
    "default": {},
    "rotary": dict(positions="rotary"),
    "rmsnorm": dict(norm="RMSNorm"),
    "relu": dict(activation="relu"),
    "silu": dict(activation="silu"),
    "gelu_tanh": dict(activation="gelu_tanh"),
    "gated": dict(gated=True),
    "untied": dict(tied=False),
    "no biases": dict(qkv_bias=False, out_bias=False, mlp_bias=False),
    "unscaled attention": dict(attention_scale=1.0),
    "wide heads": dict(d_head=20),
    "one layer": dict(n_layers=1),
    "bidirectional": dict(attention="bidirectional"),
    "bidirectional rotary": dict(attention="bidirectional", positions="rotary"),
    "llama-like": dict(positions="rotary", norm="RMSNorm", activation="silu", gated=True, tied=False,
                       qkv_bias=False, out_bias=False, mlp_bias=False),
}  # fmt: skip


def build(**fields) -> HookedTransformer:
    """A small model in float64 whose every parameter, biases and gains included, is random."""
    shape = dict(d_model=32, n_layers=2, n_heads=4, d_mlp=48, d_vocab=61, n_ctx=24) | fields
    model = HookedTransformer(ModelConfig(**shape)).double().eval()
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return model

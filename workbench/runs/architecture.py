"""An architecture in words: the usual figures, and every field that is not at its default."""

import dataclasses
from collections.abc import Callable
from itertools import groupby
from typing import Any

from workbench.model.config import ModelConfig

LONGEST_LIST = 12
"""Runs of like blocks, or windows, that are spelled out."""


def in_words(config: ModelConfig) -> str:
    """`figures` and `peculiarities` as a text."""
    parts = filter(None, (figures(config), "; ".join(peculiarities(config))))
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)


def figures(config: ModelConfig) -> str:
    """Kind, parameters and size in one line, as far as the layout has what is sized."""
    parts = [_count(config.n_layers, "layer"), f"d_model {config.d_model}"]
    if any("a" in kind for kind in config.blocks):
        parts.append(f"{_count(config.n_heads, 'head')} of {config.d_head}")
    if any("m" in kind for kind in config.blocks):
        parts.append(f"d_mlp {config.d_mlp}")
    positions = "no" if config.positions == "none" else config.positions
    parts += [f"{positions} positions", f"vocabulary {config.d_vocab:,}", f"context {config.n_ctx:,}"]
    kind = "masked" if config.objective == "mlm" else "causal"
    return f"{kind}, {config.n_params:,} parameters: {', '.join(parts)}"


def peculiarities(config: ModelConfig) -> list[str]:
    """A phrase for each field that `figures` leaves out and that is not at its default."""
    changed = [name for name in _WORDS if getattr(config, name) != _default(config, name)]
    return [_WORDS[name](config) for name in changed]


def _default(config: ModelConfig, name: str) -> Any:
    follows = {"n_key_value_heads": "n_heads", "d_value": "d_head"}
    if name in follows:
        return getattr(config, follows[name])
    return next(field.default for field in dataclasses.fields(ModelConfig) if field.name == name)


def _count(number: int | None, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listed(words: list[str]) -> str:
    return ", ".join(words if len(words) <= LONGEST_LIST else [*words[:LONGEST_LIST], "..."])


def _order(config: ModelConfig) -> str:
    runs = [(kind, len(list(same))) for kind, same in groupby(config.blocks)]
    shown = _listed([kind if count == 1 else f"{count} × {kind}" for kind, count in runs])
    beside = ", (am) side by side" if "(am)" in config.blocks else ""
    return f"blocks {shown} (a attention, m MLP{beside})"


def _windows(config: ModelConfig) -> str:
    sizes = _listed(["all" if window == 0 else f"{window:,}" for window in config.windows])
    return f"attention window{'s in turn:' if len(config.windows) > 1 else ''} {sizes}"


_SHARED = {"all": "all", "attention": "their attention", "mlp": "their MLP"}

_WORDS: dict[str, Callable[[ModelConfig], str]] = {
    "layout": _order,
    "sharing": lambda c: f"layers share {_SHARED.get(c.sharing)} weights",
    "residual": lambda c: "residual stream with learned weights over earlier layers",
    "n_key_value_heads": lambda c: f"keys and values of {_count(c.n_key_value_heads, 'head')}",
    "d_value": lambda c: f"values of width {c.d_value}",
    "windows": _windows,
    "attention_scale": lambda c: f"attention scores divided by {c.attention_scale:g}",
    "qkv_bias": lambda c: "no biases on queries, keys and values",
    "out_bias": lambda c: "no bias on the attention output",
    "position_offset": lambda c: f"{_count(c.position_offset, 'unread position vector')} in front",
    "rotary_base": lambda c: f"rotary base {c.rotary_base:,g}",
    "rotary_adjacent": lambda c: "neighbouring dimensions rotated together",
    "relative_buckets": lambda c: f"{c.relative_buckets} buckets of distances",
    "relative_distance": lambda c: f"distances alike from {_count(c.relative_distance, 'token')} on",
    "norm": lambda c: "no norms" if c.norm == "none" else c.norm,
    "norm_place": lambda c: "norms behind sums (post)" if c.norm_place == "post" else "NormFormer's norms",
    "eps": lambda c: f"norm eps {c.eps:g}",
    "activation": lambda c: f"activation {c.activation}",
    "gated": lambda c: "gated MLPs",
    "mlp_depth": lambda c: f"{c.mlp_depth} hidden layers in each MLP",
    "mlp_bias": lambda c: "no biases in the MLPs",
    "tied": lambda c: "unembedding of its own (untied)",
    "d_embed": lambda c: f"factorised embedding of width {c.d_embed}",
    "token_types": lambda c: _count(c.token_types, "token type"),
    "embed_norm": lambda c: "normalised embedding",
    "mlm_head": lambda c: "masked-model head before the unembedding",
    "unembed_bias": lambda c: "bias on the logits",
    "dropout": lambda c: f"dropout {c.dropout:g}",
    "init_std": lambda c: f"initial weights of standard deviation {c.init_std:g}",
    "depth_scaled_init": lambda c: "initial weights not scaled by depth",
    "seed": lambda c: f"initial weights from seed {c.seed}",
}  # fmt: skip
"""Field -> what a value that is not the default is called."""

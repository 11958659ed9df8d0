"""Llama (Touvron et al. 2023), as `LlamaForCausalLM`: rotary positions, RMSNorm, SwiGLU, grouped heads."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from workbench.errors import ConfigError
from workbench.model.config import ModelConfig
from workbench.model.hf.family import (
    ACTIVATIONS,
    Family,
    Pair,
    Settings,
    Tensors,
    activation_of,
    known,
    no_windows,
    usual_scale,
)


def _read(s: Settings) -> dict[str, Any]:
    return {
        "activation": known(s["hidden_act"], ACTIVATIONS, "hidden_act"),
        "qkv_bias": s["attention_bias"],
        "out_bias": s["attention_bias"],
        "rotary_base": _base(s),
    }


def _base(s: Settings) -> float:
    """Return the rotary base: in `rope_parameters` since transformers 5, next to `rope_scaling` before."""
    base = s.get("rope_theta", 10000.0)
    for key in ("rope_parameters", "rope_scaling"):
        rope = s.get(key)
        if rope is None:
            continue
        if not isinstance(rope, Mapping):
            raise ConfigError(f"{key} = {rope!r} should be a mapping.")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise ConfigError(f"{key} has type {kind!r}: rescaled rotary angles are not supported.")
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise ConfigError(f"{key}: heads that are rotated in part are not supported.")
        base = rope.get("rope_theta", base)
    return float(base)


def _write(c: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_act": activation_of(c),
        "attention_bias": c.qkv_bias,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "rope_theta": c.rotary_base,  # transformers 4 reads this one
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rotary_base},
    }


def _pairs(c: ModelConfig) -> Iterator[Pair]:
    d, m, n_vocab = c.d_model, c.mlp_width, c.d_vocab
    q, kv = c.n_heads * c.head_width, c.kv_heads * c.head_width
    yield Pair("embed.W_E", "model.embed_tokens.weight", (n_vocab, d))
    for i in range(c.n_layers):
        a, b = f"blocks.{i}", f"model.layers.{i}"
        yield Pair(f"{a}.ln1.w", f"{b}.input_layernorm.weight", (d,))
        yield Pair(f"{a}.ln2.w", f"{b}.post_attention_layernorm.weight", (d,))
        for ours, theirs, shape in (("weight", "weight", (q + 2 * kv, d)), ("bias", "bias", (q + 2 * kv,))):
            if theirs == "weight" or c.qkv_bias:
                three = tuple(f"{b}.self_attn.{part}_proj.{theirs}" for part in "qkv")
                yield Pair(f"{a}.attn.qkv_{ours}", three, shape, rows=(q, kv, kv))
        yield Pair(f"{a}.attn.out_weight", f"{b}.self_attn.o_proj.weight", (d, q))
        if c.out_bias:
            yield Pair(f"{a}.attn.out_bias", f"{b}.self_attn.o_proj.bias", (d,))
        yield Pair(f"{a}.mlp.gate_weight", f"{b}.mlp.gate_proj.weight", (m, d))
        yield Pair(f"{a}.mlp.in_weight", f"{b}.mlp.up_proj.weight", (m, d))
        yield Pair(f"{a}.mlp.out_weight", f"{b}.mlp.down_proj.weight", (d, m))
    yield Pair("ln_final.w", "model.norm.weight", (d,))
    if not c.tied:
        yield Pair("unembed_weight", "lm_head.weight", (n_vocab, d))


def _move(before: ModelConfig, after: ModelConfig, ours: Tensors) -> Tensors:
    """Reorder the dimensions of queries and keys from adjacent pairs to halves.

    Scores are sums over a head's dimensions, so their order is free.
    """
    if before.rotary_adjacent == after.rotary_adjacent:
        return ours
    heads, width = before.n_heads + before.kv_heads, before.head_width
    order = torch.arange(width).view(-1, 2).T.flatten()
    moved = dict(ours)
    for name, tensor in ours.items():
        if name.endswith(("attn.qkv_weight", "attn.qkv_bias")):
            rotated, values = tensor.split([heads * width, len(tensor) - heads * width])
            rotated = rotated.unflatten(0, (heads, width))[:, order].flatten(0, 1)
            moved[name] = torch.cat([rotated, values])
    return moved


LLAMA = Family(
    title="Llama",
    model_type="llama",
    architecture="LlamaForCausalLM",
    prefix="model.",
    defaults={
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": None, "hidden_act": "silu",
        "max_position_embeddings": 2048, "initializer_range": 0.02, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, "attention_bias": False, "head_dim": None,
    },
    names={
        "d_vocab": "vocab_size", "n_ctx": "max_position_embeddings", "d_model": "hidden_size",
        "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads", "d_head": "head_dim",
        "n_key_value_heads": "num_key_value_heads", "d_mlp": "intermediate_size", "eps": "rms_norm_eps",
        "init_std": "initializer_range", "tied": "tie_word_embeddings",
    },
    constants={
        "attention": "causal", "objective": "clm", "positions": "rotary", "position_offset": 0,
        "rotary_adjacent": False, "norm": "RMSNorm", "norm_place": "pre", "gated": True, "mlp_bias": False,
        "token_types": 0, "embed_norm": False, "mlm_head": False, "unembed_bias": False,
    },
    rules=(
        usual_scale,
        no_windows,
        ("n_heads", lambda c: c.d_model % c.n_heads == 0, "has a d_model that n_heads divides"),
        ("out_bias", lambda c: c.out_bias == c.qkv_bias, "has biases in all of its attention or nowhere"),
    ),
    refused={
        "mlp_bias": ((False,), "a gated MLP with a bias on its gate is not supported"),
    },
    read=_read,
    write=_write,
    pairs=_pairs,
    copies=lambda c: {"lm_head.weight": "model.embed_tokens.weight"} if c.tied else {},
    arrange=lambda c, pad: dataclasses.replace(c, rotary_adjacent=False),
    move=_move,
    harmless=r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
)  # fmt: skip

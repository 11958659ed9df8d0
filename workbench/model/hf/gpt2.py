"""GPT-2 (Radford et al. 2019), as `GPT2LMHeadModel`. Its weights are stored [in out]."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from workbench.model.config import ModelConfig
from workbench.model.hf.family import (
    ACTIVATIONS,
    Family,
    Pair,
    Settings,
    activation_of,
    known,
    no_windows,
    norm_pairs,
    one_head_width,
    one_key_each,
)


def _read(s: Settings) -> dict[str, Any]:
    return {
        "activation": known(s["activation_function"], ACTIVATIONS, "activation_function"),
        "attention_scale": None if s["scale_attn_weights"] else 1.0,
    }


def _write(c: ModelConfig) -> dict[str, Any]:
    return {
        "activation_function": activation_of(c),
        "scale_attn_weights": c.scale != 1.0 or c.head_width == 1,
        "embd_pdrop": c.dropout,
        "attn_pdrop": 0.0,
    }


def gpt_pairs(c: ModelConfig, attention: Callable[[int], Iterable[Pair]], transposed: bool) -> Iterator[Pair]:
    """Yield all tensors of GPT-2 and of GPT-Neo, which have the same names outside attention.

    Args:
        c: the shape.
        attention: returns the tensors of a layer's attention.
        transposed: True if the weights of the MLPs are stored [in out].
    """
    d, m, n_vocab = c.d_model, c.mlp_width, c.d_vocab
    yield Pair("embed.W_E", "transformer.wte.weight", (n_vocab, d))
    yield Pair("pos_embed.W_pos", "transformer.wpe.weight", (c.n_ctx, d))
    for i in range(c.n_layers):
        a, b = f"blocks.{i}", f"transformer.h.{i}"
        yield from norm_pairs([(f"{a}.ln1", f"{b}.ln_1"), (f"{a}.ln2", f"{b}.ln_2")], d)
        yield from attention(i)
        yield Pair(f"{a}.mlp.in_weight", f"{b}.mlp.c_fc.weight", (m, d), transposed=transposed)
        yield Pair(f"{a}.mlp.b_in", f"{b}.mlp.c_fc.bias", (m,))
        yield Pair(f"{a}.mlp.out_weight", f"{b}.mlp.c_proj.weight", (d, m), transposed=transposed)
        yield Pair(f"{a}.mlp.b_out", f"{b}.mlp.c_proj.bias", (d,))
    yield from norm_pairs([("ln_final", "transformer.ln_f")], d)
    if not c.tied:
        yield Pair("unembed_weight", "lm_head.weight", (n_vocab, d))


def _pairs(c: ModelConfig) -> Iterator[Pair]:
    d = c.d_model

    def attention(i: int) -> Iterator[Pair]:
        a, b = f"blocks.{i}.attn", f"transformer.h.{i}.attn"
        yield Pair(f"{a}.qkv_weight", f"{b}.c_attn.weight", (3 * d, d), transposed=True)
        yield Pair(f"{a}.qkv_bias", f"{b}.c_attn.bias", (3 * d,))
        yield Pair(f"{a}.out_weight", f"{b}.c_proj.weight", (d, d), transposed=True)
        yield Pair(f"{a}.out_bias", f"{b}.c_proj.bias", (d,))

    return gpt_pairs(c, attention, transposed=True)


GPT2 = Family(
    title="GPT-2",
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    prefix="transformer.",
    defaults={
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
        "activation_function": "gelu_new", "resid_pdrop": 0.1, "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02, "scale_attn_weights": True, "tie_word_embeddings": True,
    },
    names={
        "d_vocab": "vocab_size", "n_ctx": "n_positions", "d_model": "n_embd", "n_layers": "n_layer",
        "n_heads": "n_head", "d_mlp": "n_inner", "eps": "layer_norm_epsilon", "dropout": "resid_pdrop",
        "init_std": "initializer_range", "tied": "tie_word_embeddings",
    },
    constants={
        "attention": "causal", "objective": "clm", "positions": "learned", "position_offset": 0,
        "norm": "LayerNorm", "norm_place": "pre", "gated": False, "mlp_bias": True, "qkv_bias": True,
        "out_bias": True, "token_types": 0, "embed_norm": False, "mlm_head": False, "unembed_bias": False,
    },
    rules=(
        one_head_width,
        one_key_each,
        no_windows,
        (
            "attention_scale",
            lambda c: c.scale == 1.0 or abs(c.scale - c.head_width**0.5) <= 1e-12 * c.scale,
            "divides attention scores by sqrt(d_head), or not at all",
        ),
    ),
    refused={
        "scale_attn_by_inverse_layer_idx": ((False,), "a scale that differs by layer is not supported"),
    },
    read=_read,
    write=_write,
    pairs=_pairs,
    copies=lambda c: {"lm_head.weight": "transformer.wte.weight"} if c.tied else {},
    harmless=r"transformer\.h\.\d+\.attn\.(masked_)?bias",
)  # fmt: skip

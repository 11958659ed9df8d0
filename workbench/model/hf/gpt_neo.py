"""GPT-Neo (Black et al. 2021), as `GPTNeoForCausalLM`: unscaled attention, every second layer local."""

from collections.abc import Iterator
from typing import Any

from workbench.errors import ConfigError
from workbench.model.config import MAX_LAYERS, ModelConfig
from workbench.model.hf.family import (
    ACTIVATIONS,
    Family,
    Pair,
    Settings,
    activation_of,
    known,
    one_head_width,
    one_key_each,
    repeating,
)
from workbench.model.hf.gpt2 import gpt_pairs


def _read(s: Settings) -> dict[str, Any]:
    """`attention_types` is a list of (kinds, times): [[["global", "local"], 12]]."""
    types, layers = s["attention_types"], s["num_layers"]
    few = all(kinds and 0 < times <= MAX_LAYERS for kinds, times in types)
    count = sum(len(kinds) * times for kinds, times in types)
    if not few or count != layers or count > MAX_LAYERS:
        raise ConfigError(f"attention_types names {count:,} layers and num_layers is {layers!r}.")
    kinds = [kind for names, times in types for _ in range(times) for kind in names]
    if set(kinds) - {"global", "local"}:
        raise ConfigError(f"attention_types names {sorted(set(kinds))}; there are global and local layers.")
    windows = repeating([s["window_size"] if kind == "local" else 0 for kind in kinds])
    return {
        "activation": known(s["activation_function"], ACTIVATIONS, "activation_function"),
        "windows": windows if any(windows) else [],
    }


def _write(c: ModelConfig) -> dict[str, Any]:
    windows = repeating([c.window(i) for i in range(c.n_layers)])
    return {
        "activation_function": activation_of(c),
        "attention_types": [[["local" if w else "global" for w in windows], c.n_layers // len(windows)]],
        "window_size": max(windows) or 256,
        "embed_dropout": c.dropout,
        "attention_dropout": 0.0,
    }


def _pairs(c: ModelConfig) -> Iterator[Pair]:
    d = c.d_model

    def attention(i: int) -> Iterator[Pair]:
        a, b = f"blocks.{i}.attn", f"transformer.h.{i}.attn.attention"
        three = tuple(f"{b}.{part}_proj.weight" for part in "qkv")
        yield Pair(f"{a}.qkv_weight", three, (3 * d, d), rows=(d, d, d))
        yield Pair(f"{a}.out_weight", f"{b}.out_proj.weight", (d, d))
        yield Pair(f"{a}.out_bias", f"{b}.out_proj.bias", (d,))

    return gpt_pairs(c, attention, transposed=False)


GPT_NEO = Family(
    title="GPT-Neo",
    model_type="gpt_neo",
    architecture="GPTNeoForCausalLM",
    prefix="transformer.",
    defaults={
        "vocab_size": 50257, "max_position_embeddings": 2048, "hidden_size": 2048, "num_layers": 24,
        "attention_types": [[["global", "local"], 12]], "num_heads": 16, "intermediate_size": None,
        "window_size": 256, "activation_function": "gelu_new", "resid_dropout": 0.0,
        "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "tie_word_embeddings": True,
    },
    names={
        "d_vocab": "vocab_size", "n_ctx": "max_position_embeddings", "d_model": "hidden_size",
        "n_layers": "num_layers", "n_heads": "num_heads", "d_mlp": "intermediate_size",
        "eps": "layer_norm_epsilon", "dropout": "resid_dropout", "init_std": "initializer_range",
        "tied": "tie_word_embeddings",
    },
    constants={
        "attention": "causal", "objective": "clm", "attention_scale": 1.0, "positions": "learned",
        "position_offset": 0, "norm": "LayerNorm", "norm_place": "pre", "gated": False, "mlp_bias": True,
        "qkv_bias": False, "out_bias": True, "token_types": 0, "embed_norm": False, "mlm_head": False,
        "unembed_bias": False,
    },
    rules=(
        one_head_width,
        one_key_each,
        ("windows", lambda c: len(set(c.windows) - {0}) <= 1, "has one window for all its local layers"),
    ),
    refused={},
    read=_read,
    write=_write,
    pairs=_pairs,
    copies=lambda c: {"lm_head.weight": "transformer.wte.weight"} if c.tied else {},
    harmless=r"transformer\.h\.\d+\.attn\.attention\.(masked_)?bias",
)  # fmt: skip

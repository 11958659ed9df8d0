"""Named shapes. A preset is a mapping of `ModelConfig` fields; anything can be overridden.

The published ones have the architecture and the exact number of parameters of their source (see `SOURCES`).
Initial weights, dropout (0 unless set) and training are the workbench's own, and so is the tokenizer: one of
at most `d_vocab` tokens is trained on the corpus, unless a tokenizer.json is given.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from workbench.errors import ConfigError, nearest
from workbench.model.config import ModelConfig

_GPT_NEO = dict(attention_scale=1.0, qkv_bias=False, activation="gelu_tanh", windows=(0, 256))
# The heads of llama2.c rotate neighbouring dimensions; its exports to Hugging Face are permuted to halves.
_LLAMA = dict(
    positions="rotary", rotary_adjacent=True, norm="RMSNorm", activation="silu", gated=True,
    qkv_bias=False, out_bias=False, mlp_bias=False,
)  # fmt: skip
_BERT = dict(
    n_ctx=512, attention="bidirectional", norm_place="post", embed_norm=True, mlm_head=True,
    unembed_bias=True,
)  # fmt: skip
_BASE = dict(n_layers=12, d_model=768, n_heads=12, d_mlp=3072)
_STORIES = dict(n_heads=16, d_vocab=50257, n_ctx=2048, **_GPT_NEO)

PRESETS: dict[str, dict[str, Any]] = {
    "nano": dict(n_layers=2, d_model=64, n_heads=4, d_mlp=256, d_vocab=2000, n_ctx=128),
    "tiny": dict(n_layers=4, d_model=128, n_heads=4, d_mlp=512, d_vocab=4000, n_ctx=256),
    "small": dict(n_layers=4, d_model=256, n_heads=8, d_mlp=1024, d_vocab=8000, n_ctx=256),
    "base": dict(n_layers=4, d_model=512, n_heads=8, d_mlp=1024, d_vocab=10000, n_ctx=256),
    "gpt-neo-9m": dict(n_layers=2, d_model=512, n_heads=4, d_mlp=1024, d_vocab=10000, n_ctx=512, **_GPT_NEO),
    "tinystories-1m": dict(n_layers=8, d_model=64, d_mlp=256, **_STORIES),
    "tinystories-3m": dict(n_layers=8, d_model=128, d_mlp=512, **_STORIES),
    "tinystories-8m": dict(n_layers=8, d_model=256, d_mlp=1024, **_STORIES),
    "tinystories-28m": dict(n_layers=8, d_model=512, d_mlp=2048, **_STORIES),
    "tinystories-33m": dict(n_layers=4, d_model=768, d_mlp=3072, **_STORIES),
    "stories260k": dict(
        n_layers=5, d_model=64, n_heads=8, n_key_value_heads=4, d_mlp=172, d_vocab=512, n_ctx=512, **_LLAMA
    ),
    "stories15m": dict(n_layers=6, d_model=288, n_heads=6, d_mlp=768, d_vocab=32000, n_ctx=256, **_LLAMA),
    "stories42m": dict(n_layers=8, d_model=512, n_heads=8, d_mlp=1376, d_vocab=32000, n_ctx=1024, **_LLAMA),
    "stories110m": dict(**_BASE | dict(d_mlp=2048), d_vocab=32000, n_ctx=1024, **_LLAMA),
    "gpt2": dict(**_BASE, d_vocab=50257, n_ctx=1024, activation="gelu_tanh"),
    "mini-llm-166m": dict(**_BASE | dict(n_layers=18), d_vocab=50257, n_ctx=1024, activation="gelu_tanh"),
    "roberta-9m": dict(
        n_layers=2, d_model=512, n_heads=4, d_mlp=1024, d_vocab=10000, token_types=1, position_offset=2,
        **_BERT,
    ),
    "bert-base": dict(**_BASE, d_vocab=30522, token_types=2, eps=1e-12, **_BERT),
    "roberta-base": dict(**_BASE, d_vocab=50265, token_types=1, position_offset=2, **_BERT),
    "albert-base": dict(
        **_BASE, d_vocab=30000, d_embed=128, sharing="all", token_types=2, activation="gelu_tanh", eps=1e-12,
        **_BERT,
    ),
    "elc-bert-small": dict(
        n_layers=12, d_model=384, n_heads=6, d_mlp=1024, d_vocab=6144, positions="t5", residual="weighted",
        activation="gelu_tanh", gated=True, mlp_bias=False, eps=1e-7, **_BERT | dict(norm_place="normformer"),
    ),
}  # fmt: skip


class Source(NamedTuple):
    """Where a preset comes from."""

    tokenizer: str
    """Kind of tokenizer it was published with."""
    citation: str
    n_params: int | None = None
    """Its published number of parameters, which ours is exactly; None if ours is not."""


_OURS = "a shape of this workbench's own, for CPUs"
_DELFT = "Tiny Transformers (AISE, TU Delft)"
_ELDAN = "Eldan & Li 2023, TinyStories, arXiv:2305.07759; Hugging Face roneneldan/TinyStories"
_KARPATHY = "Karpathy 2023, llama2.c; architecture of Touvron et al. 2023, arXiv:2307.09288"

SOURCES: dict[str, Source] = {
    "nano": Source("BPE", _OURS),
    "tiny": Source("BPE", _OURS),
    "small": Source("BPE", _OURS),
    "base": Source("BPE", _OURS),
    "gpt-neo-9m": Source("BPE", f"{_DELFT}; architecture of Black et al. 2021, GPT-Neo", 9_585_664),
    "tinystories-1m": Source("BPE", f"{_ELDAN}-1M", 3_745_984),
    "tinystories-3m": Source("BPE", f"{_ELDAN}-3M", 8_278_400),
    "tinystories-8m": Source("BPE", f"{_ELDAN}-8M", 19_702_528),
    "tinystories-28m": Source("BPE", f"{_ELDAN}-28M", 51_987_968),
    "tinystories-33m": Source("BPE", f"{_ELDAN}-33M", 68_514_048),
    "stories260k": Source("SentencePiece", _KARPATHY, 260_032),
    "stories15m": Source("SentencePiece", _KARPATHY, 15_191_712),
    "stories42m": Source("SentencePiece", _KARPATHY, 41_689_600),
    "stories110m": Source("SentencePiece", _KARPATHY, 109_529_856),
    "gpt2": Source("BPE", "Radford et al. 2019, GPT-2, the smallest", 124_439_808),
    "mini-llm-166m": Source(
        "BPE",
        "the Mini LLM challenge, published as 166M: 18 layers, 768 wide, 12 heads; the rest is GPT-2's, and "
        "so the exact count may not be theirs",
    ),
    "roberta-9m": Source("BPE", f"{_DELFT}; architecture of Liu et al. 2019, RoBERTa", 9_863_952),
    "bert-base": Source(
        "WordPiece", "Devlin et al. 2019, BERT, arXiv:1810.04805; with its MLM head", 109_514_298
    ),
    "roberta-base": Source(
        "BPE", "Liu et al. 2019, RoBERTa, arXiv:1907.11692; with its MLM head", 124_697_433
    ),
    "albert-base": Source(
        "SentencePiece", "Lan et al. 2020, ALBERT, arXiv:1909.11942, version 2; with its MLM head", 11_221_680
    ),
    # Theirs has DeBERTa's attention to positions, and norms without gains where ours have them.
    "elc-bert-small": Source(
        "WordPiece",
        "after Charpentier & Samuel 2023, ELC-BERT, arXiv:2311.02265, small (24M): its widths, GEGLU and "
        "weights over layers, but T5's positions and NormFormer's norms, so the exact count is not theirs",
    ),
}

# Where the key is overridden, what the preset says of these no longer applies.
_FOLLOWERS = {
    "layout": ("n_layers",),
    "n_layers": ("layout",),
    "positions": ("position_offset", "rotary_adjacent"),
}


def merge(name: object, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the preset called `name`, with `overrides` on top.

    A layout that is given decides the number of layers, not the preset, and the other way round; and what
    only fits the preset's positions is left out where other positions are given.

    Raises:
        ConfigError: no preset of that name (with the nearest one).
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"no preset is called {name!r}. {nearest(name, PRESETS)}")
    fields = dict(PRESETS[name])
    for leader, followers in _FOLLOWERS.items():
        own = fields.get(leader, getattr(ModelConfig, leader))
        if overrides.get(leader, own) != own:
            for follower in followers:
                fields.pop(follower, None)
    return fields | dict(overrides)


def preset(name: str, **overrides: Any) -> ModelConfig:
    """The configuration called `name`, with `overrides` on top (see `merge`).

    Raises:
        ConfigError: no preset of that name (with the nearest one), or an override that does not fit.
    """
    return ModelConfig.from_dict(merge(name, overrides))

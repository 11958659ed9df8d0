"""Small models that laws are tried on: each value of each architectural field, changed in each of several bases.

A new field or a new value is one line in `CHANGES` or `SIMPLE`; every law then holds it. `VARIANTS` maps a name such as
`bert-like / positions=t5` to the fields of its configuration; what `ModelConfig` refuses is left out.
"""

from collections.abc import Iterable
from typing import Any

import pytest
import torch

from workbench.errors import ConfigError
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

SHAPE = dict(d_model=32, n_layers=2, n_heads=4, d_mlp=48, d_vocab=61, n_ctx=24)

NO_BIASES = dict(qkv_bias=False, out_bias=False, mlp_bias=False)
MASKED = dict(attention="bidirectional", norm_place="post", embed_norm=True, mlm_head=True, token_types=2)

BASES: dict[str, dict[str, Any]] = {
    "default": {},
    "llama-like": dict(positions="rotary", norm="RMSNorm", activation="silu", gated=True, tied=False) | NO_BIASES,
    "gpt-neo-like": dict(activation="gelu_tanh", attention_scale=1.0, qkv_bias=False, windows=(0, 5)),
    "gpt-j-like": dict(layout="(am)(am)", positions="rotary", rotary_adjacent=True, tied=False, unembed_bias=True,
                       qkv_bias=False, out_bias=False),
    "bert-like": dict(unembed_bias=True) | MASKED,
    "albert-like": dict(sharing="all", d_embed=12, activation="gelu_tanh", unembed_bias=True) | MASKED,
    "elc-like": dict(attention="bidirectional", residual="weighted", norm_place="normformer", gated=True,
                     positions="t5", mlm_head=True, unembed_bias=True),
}  # fmt: skip

SWITCHES = (
    "qkv_bias", "out_bias", "mlp_bias", "gated", "tied", "embed_norm", "mlm_head", "unembed_bias",
)  # fmt: skip
ROTARY, T5, PRE = dict(positions="rotary"), dict(positions="t5"), dict(norm_place="pre")

CHANGES: list[dict[str, Any]] = [
    # The first field is the one that changes; any others are what its value needs.
    *(dict(layout=layout) for layout in ("aamm", "aamamm", "(am)(am)", "aa", "mm", "mam", "ma(am)")),
    *(dict(n_key_value_heads=count) for count in (1, 2)),
    *(dict(d_value=width) for width in (4, 12)),
    *(dict(mlp_depth=depth) for depth in (2, 3)),
    dict(attention="causal", mlm_head=False),
    dict(attention="bidirectional"),
    *(dict(windows=windows) for windows in ((), (5,), (0, 5), (5, 2))),
    *(
        dict(positions=kind, rotary_adjacent=False)
        for kind in ("learned", "sinusoidal", "rotary", "alibi", "t5", "shaw", "none")
    ),
    dict(rotary_adjacent=True) | ROTARY,
    *(dict(norm=norm) for norm in ("LayerNorm", "RMSNorm")),
    dict(norm="none", embed_norm=False) | PRE,
    *(dict(norm_place=place) for place in ("pre", "post", "normformer")),
    dict(norm_place="post", residual="plain"),
    *(dict(activation=name) for name in ("gelu", "solu_ln", "prelu")),
    *({field: value} for field in SWITCHES for value in (True, False)),
    *(dict(d_embed=width) for width in (None, 12)),
    *(dict(token_types=count) for count in (0, 2)),
    *(dict(sharing=what) for what in ("none", "all", "attention", "mlp")),
    *(dict(residual=kind) for kind in ("plain", "weighted")),
    dict(residual="weighted") | PRE,
]
"""Tried in every base."""

SIMPLE: list[dict[str, Any]] = [
    dict(d_model=24),
    *(dict(n_layers=count) for count in (1, 3)),
    *(dict(n_heads=count) for count in (1, 2)),
    *(dict(d_head=width) for width in (4, 20)),
    dict(d_mlp=20),
    dict(d_vocab=67),
    dict(n_ctx=19),
    *(dict(attention_scale=scale) for scale in (1.0, 3.0)),
    dict(position_offset=2),
    dict(rotary_base=100.0) | ROTARY,
    dict(relative_buckets=8, relative_distance=12) | T5,
    dict(relative_distance=40) | T5,
    dict(relative_distance=3, positions="shaw"),
    dict(eps=0.01),
    *(dict(activation=name) for name in ("gelu_tanh", "relu", "silu", "solu")),
]
"""One number or one function in one formula: tried in the default only."""

NOT_ARCHITECTURAL = {"dropout", "init_std", "depth_scaled_init", "seed"}
"""Fields that change what training does, not what the model computes; they have tests of their own."""


def configuration(**fields: Any) -> ModelConfig:
    """The small shape with some fields changed."""
    shape = {name: value for name, value in SHAPE.items() if name != "n_layers" or not fields.get("layout")}
    return ModelConfig(**shape | fields)


def _product() -> dict[str, dict[str, Any]]:
    """Bases, then each with each change that it takes and that makes it another configuration."""
    made = {name: dict(fields) for name, fields in BASES.items()}
    known = {configuration(**fields) for fields in made.values()}
    for base, kept in BASES.items():
        for change in CHANGES + (SIMPLE if base == "default" else []):
            try:
                config = configuration(**kept | change)
            except ConfigError:
                continue
            if config not in known:
                known.add(config)
                made[f"{base} / {_name(kept, change)}"] = kept | change
    return made


def _name(kept: dict[str, Any], change: dict[str, Any]) -> str:
    """The changed field, and what had to change with it."""
    (field, value), *needs = change.items()
    default = configuration(**kept)
    needs = [f"{name}={need}" for name, need in needs if need != getattr(default, name)]
    value = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return f"{field}={value}" + (f" ({', '.join(needs)})" if needs else "")


VARIANTS = _product()


def _daily() -> set[str]:
    """Bases, all changes of the default, and of the others' changes a third: each in two of the six, dealt out."""
    others = [base for base in BASES if base != "default"]
    changes = [tuple(change.items()) for change in CHANGES]
    dealt = {
        f"{base} / {_name(BASES[base], dict(change))}"
        for turn, change in enumerate(changes)
        for place, base in enumerate(others)
        if (turn + place) % 3 == 0
    }
    return {name for name in VARIANTS if "/" not in name or name.startswith("default / ") or name in dealt}


DAILY = _daily()
"""Variants that every run of the tests tries; `make laws` tries all."""


def marked(names: Iterable[str]) -> list[Any]:
    """The names as pytest's parameters; those that are not tried every day carry the mark `every_variant`."""
    aside = pytest.mark.every_variant
    return [pytest.param(name, id=name, marks=() if name in DAILY else aside) for name in names]


SINGLE = {name: fields for name, fields in VARIANTS.items() if name in BASES or name.startswith("default / ")}
"""Every base, and every change of the default: for tests that cost more than a law."""


def build(**fields: Any) -> HookedTransformer:
    """A small model in float64 whose every parameter, biases and gains included, is random."""
    model = HookedTransformer(configuration(**fields)).double().eval()
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return model

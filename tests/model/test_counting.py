"""Parameters and FLOPs by formula are those of the module, for random mixtures of all fields."""

import dataclasses
import random
from collections import Counter

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from workbench.errors import ConfigError
from workbench.model.config import ModelConfig, check_fits_memory, count_parameters, flops_per_token
from workbench.model.transformer import HookedTransformer

CHOICES: dict[str, list] = {
    "d_model": [8, 12, 24],
    "layout": [None, None, "aamm", "amaamm", "(am)(am)", "aa", "mm", "m(am)a", "aaaammmm"],
    "n_heads": [1, 2, 4],
    "n_key_value_heads": [None, 1, 2],
    "d_head": [None, 2, 6, 10],
    "d_value": [None, 2, 6, 14],
    "d_mlp": [None, 7, 20],
    "mlp_depth": [1, 2, 3, 4],
    "d_vocab": [13, 31],
    "n_ctx": [4, 9],
    "attention": ["causal", "bidirectional"],
    "windows": [(), (3,), (0, 3)],
    "attention_scale": [None, 1.0],
    "qkv_bias": [True, False],
    "out_bias": [True, False],
    "positions": ["learned", "sinusoidal", "rotary", "alibi", "t5", "shaw", "none"],
    "position_offset": [0, 2],
    "rotary_adjacent": [False, True],
    "relative_buckets": [4, 8, 32],
    "relative_distance": [None, 40, 6],
    "norm": ["LayerNorm", "RMSNorm", "none"],
    "norm_place": ["pre", "post", "normformer"],
    "activation": ["gelu", "gelu_tanh", "relu", "silu", "solu", "solu_ln", "prelu"],
    "gated": [False, True],
    "mlp_bias": [True, False],
    "tied": [True, False],
    "d_embed": [None, 6, 16],
    "token_types": [0, 1, 2],
    "embed_norm": [False, True],
    "mlm_head": [False, True],
    "unembed_bias": [False, True],
    "sharing": ["none", "all", "attention", "mlp"],
    "residual": ["plain", "weighted"],
}
# Fields that move no parameter, or that the others decide.
ELSEWHERE = {
    "n_layers",
    "objective",
    "rotary_base",
    "eps",
    "dropout",
    "init_std",
    "depth_scaled_init",
    "seed",
}
SEEDS = range(120)


def shape(fields: dict) -> dict:
    """Small where nothing else is said."""
    layers = {} if fields.get("layout") else {"n_layers": 3}
    return dict(d_model=12, n_heads=2) | layers | fields


def mixture(seed: int) -> dict:
    """Fields in a random order, each given a random value if the configuration so far takes it."""
    dice = random.Random(seed)
    fields: dict = {}
    for name in dice.sample(list(CHOICES), len(CHOICES)):
        trial = fields | {name: dice.choice(CHOICES[name])}
        try:
            ModelConfig(**shape(trial))
        except ConfigError:
            continue
        fields = trial
    return shape(fields)


def part_of(name: str) -> str:
    """The part that a parameter is counted in, by its name."""
    first, *_ = path = name.split(".")
    if first == "blocks":
        return {"attn": "attention", "mlp": "mlp", "mix": "mixing"}.get(path[2], "norms")
    if first == "ln_final" or path[:2] == ["embed", "norm"]:
        return "norms"
    return "embedding" if first in ("embed", "pos_embed", "position_bias") else "readout"


@pytest.mark.parametrize("seed", SEEDS)
def test_each_part_counts_what_the_module_has(seed):
    config = ModelConfig(**mixture(seed))
    found = Counter(dict.fromkeys(("embedding", "attention", "mlp", "norms", "mixing", "readout"), 0))
    for name, parameter in HookedTransformer(config).named_parameters():
        found[part_of(name)] += parameter.numel()
    assert count_parameters(config) == dict(found), config
    assert config.n_params == found.total()


def test_the_mixtures_have_every_value_of_every_field():
    made = [mixture(seed) for seed in SEEDS]
    for name, values in CHOICES.items():
        for value in values:
            assert any(fields.get(name, object()) == value for fields in made), (name, value)
    assert CHOICES.keys() | ELSEWHERE == set(ModelConfig.__dataclass_fields__)


def matrix_flops(model: HookedTransformer, length: int) -> int:
    """FLOPs of the matrix products of one forward pass on the explicit path, for one row."""
    tokens = torch.randint(4, model.config.d_vocab, (1, length))
    attends = [name for name in model.hook_dict if name.endswith("hook_attn_scores")]
    with (
        FlopCounterMode(display=False) as counter,
        model.hooks([(name, lambda x, hook: None) for name in attends]),
    ):
        model(tokens)
    return counter.get_total_flops()


@pytest.mark.parametrize("seed", SEEDS[::2])
def test_flops_are_those_of_the_matrix_products(seed):
    """With attention both ways and no window every query sees every key, so the counts agree exactly."""
    # Sums over earlier layers and Shaw's products with relative vectors are not counted.
    fields = mixture(seed) | dict(attention="bidirectional", windows=(), residual="plain")
    if fields.get("positions") == "shaw":
        fields |= dict(positions="none", relative_distance=None)
    config = ModelConfig(**fields)
    model = HookedTransformer(config)
    assert 3 * matrix_flops(model, config.n_ctx) == flops_per_token(config) * config.n_ctx, config


@pytest.mark.parametrize("window", [0, 1, 5, 64, 100])
def test_flops_of_attention_follow_what_is_seen(window):
    heads, width, length = 2, 4, 64
    config = ModelConfig(d_model=8, n_heads=heads, n_layers=1, n_ctx=length, windows=(window,))
    unseen = flops_per_token(dataclasses.replace(config, n_ctx=1, windows=(1,)))
    seen = sum(min(query + 1, window or length) for query in range(length)) / length
    # Two products of `width`, 2 FLOPs each, three times for training. The formula drops the half keys of
    # (w + 1) / 2, which are all that is left of the context of one token.
    attention = 6 * 2 * heads * width
    assert flops_per_token(config) - unseen == pytest.approx(attention * (seen - 0.5), abs=attention / 2)


def test_a_model_larger_than_the_memory_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"needs [\d,.]+ GiB and this machine has .*; make model\.n_layers"):
        check_fits_memory(ModelConfig(n_layers=10**9))
    with pytest.raises(ConfigError, match="parameters needs"):
        HookedTransformer(ModelConfig(d_vocab=10**12))
    check_fits_memory(ModelConfig())

"""What no model can be is refused in one line that names the field and the rule, before anything is allocated."""

import time
import tracemalloc

import pytest
import torch

from workbench.errors import ConfigError
from workbench.model.config import MAX_LAYERS, ModelConfig, parse_layout
from workbench.model.transformer import HookedTransformer

CONTRADICTIONS = [
    (dict(attention="bidirectional", objective="clm"), "objective", "clm goes with causal"),
    (dict(objective="mlm"), "objective", "contradicts model.attention = causal"),
    (dict(n_heads=4, n_key_value_heads=3), "n_key_value_heads", "must divide model.n_heads = 4"),
    (dict(n_heads=4, n_key_value_heads=8), "n_key_value_heads", "must divide model.n_heads = 4"),
    (dict(n_key_value_heads=2, d_value=8), "d_value", "must be model.d_head where"),
    (dict(n_heads=3), "n_heads", "does not divide model.d_model = 128"),
    (dict(layout="mm", windows=(4,)), "windows", "needs attention, and model.layout has none"),
    (dict(layout="am", windows=(4, 8)), "windows", "names more windows than .* has attention modules [(]1[)]"),
    (dict(layout="mm", windows=(0, 0)), "windows", "names more windows"),
    *((dict(layout="mm", positions=kind), "positions", "acts inside attention, and model.layout has none")
      for kind in ("rotary", "alibi", "t5", "shaw")),
    (dict(positions="rotary", d_head=5), "d_head", "must be even for rotary"),
    (dict(positions="sinusoidal", d_model=15, n_heads=3), "d_model", "must be even for sinusoidal"),
    (dict(positions="rotary", position_offset=2), "position_offset", "belongs to learned positions, not to rotary"),
    (dict(positions="t5", relative_buckets=3), "relative_buckets", "must be at least 4 for t5"),
    (dict(positions="t5", relative_distance=32), "relative_distance", "must be above model.relative_buckets = 32"),
    (dict(relative_distance=9), "relative_distance", "belongs to t5 or shaw positions, not to learned"),
    (dict(rotary_adjacent=True), "rotary_adjacent", "belongs to rotary positions, not to learned"),
    (dict(norm="none", norm_place="post"), "norm_place", "needs a norm, and model.norm is none"),
    (dict(norm="none", norm_place="normformer"), "norm_place", "needs a norm, and model.norm is none"),
    (dict(norm="none", embed_norm=True), "embed_norm", "needs a norm, and model.norm is none"),
    (dict(layout="aa", gated=True), "gated", "needs an MLP, and model.layout has none"),
    (dict(layout="aa", mlp_depth=2), "mlp_depth", "needs an MLP, and model.layout has none"),
    (dict(layout="mm", sharing="attention"), "sharing", "needs attention, and model.layout has none"),
    (dict(layout="aa", sharing="mlp"), "sharing", "needs an MLP, and model.layout has none"),
    (dict(residual="weighted", norm_place="post"), "residual", "mixes unnormalised outputs"),
    (dict(mlm_head=True), "mlm_head", "belongs to model.objective = mlm, not to clm"),
    (dict(layout="amam", n_layers=3), "n_layers", "contradicts model.layout, which has 2 blocks"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "field", "rule"), CONTRADICTIONS, ids=str)
def test_a_contradiction_names_the_field_and_the_rule(fields, field, rule):
    for make in (lambda: ModelConfig(**fields), lambda: ModelConfig.from_dict(fields)):
        with pytest.raises(ConfigError, match=rule) as caught:
            make()
        assert f"model.{field}" in str(caught.value)
        assert "\n" not in str(caught.value)


LAYOUTS = {
    "": "is empty",
    "amx": "'x' at letter 3 is none of a",
    "AM": "'A' at letter 1",
    "am am": "' ' at letter 3",
    "am(am": "the parallel group opened at letter 3 is not closed",
    "(": "the parallel group opened at letter 1 is not closed",
    "am)": "the parenthesis at letter 3 closes nothing",
    ")(": "the parenthesis at letter 1 closes nothing",
    "()": r"a parallel group holds one a and one m; found \(\)",
    "(a)": r"holds one a and one m; found \(a\)",
    "(aam)": r"holds one a and one m; found \(aam\)",
    "((am))": r"holds one a and one m; found \(\(am\)",
    "am\n": r"'\\n' at letter 3",
    "аm": "at letter 1 is none of",  # a Cyrillic a
    "am" * MAX_LAYERS: "letters; at most 20,000 are allowed",
    "am" * 5000 + "x": "'x' at letter 10001",
}


@pytest.mark.parametrize(("layout", "trouble"), LAYOUTS.items(), ids=[text[:12] for text in LAYOUTS])
def test_a_layout_that_does_not_parse(layout, trouble):
    with pytest.raises(ConfigError, match=trouble) as caught:
        ModelConfig(layout=layout)
    assert "model.layout" in str(caught.value)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_layouts_that_parse():
    for layout, blocks in {
        "amam": ("am", "am"),
        "aaaammmm": ("a", "a", "a", "am", "m", "m", "m"),
        "aamamm": ("a", "am", "am", "m"),
        "(am)(ma)": ("(am)", "(am)"),
        "ma(am)a": ("m", "a", "(am)", "a"),
        "m": ("m",),
    }.items():
        assert parse_layout(layout) == blocks
        config = ModelConfig(layout=layout)
        assert config.blocks == blocks
        assert config.n_layers == len(blocks)
        assert ModelConfig.from_dict(config.to_dict()) == config


TOO_LARGE = [
    dict(n_layers=10**9), dict(d_vocab=10**12), dict(d_model=10**7), dict(d_mlp=10**13), dict(d_head=10**12),
    dict(d_value=10**12), dict(n_ctx=10**13), dict(mlp_depth=10**9), dict(n_layers=10**15, sharing="all"),
    dict(n_heads=10**9, d_head=1000), dict(positions="t5", relative_buckets=10**12, relative_distance=10**13),
    dict(positions="shaw", relative_distance=10**13), dict(token_types=10**12), dict(position_offset=10**13),
    dict(d_embed=10**10), dict(n_layers=10**9, residual="weighted"),
    dict(n_ctx=10**13, positions="rotary"), dict(n_ctx=10**13, positions="sinusoidal"),
]  # fmt: skip


@pytest.mark.parametrize("fields", TOO_LARGE, ids=str)
def test_a_model_larger_than_the_memory_is_refused_at_once(fields):
    started = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="GiB") as caught:
            HookedTransformer(ModelConfig(**fields))
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 0.5
    assert "\n" not in str(caught.value)


def test_a_model_on_paper_may_be_large():
    """Without memory there is nothing to refuse: shapes of a 70 B model, in no space."""
    with torch.device("meta"):
        model = HookedTransformer(
            ModelConfig(d_model=8192, n_layers=2, n_heads=64, d_mlp=28672, d_vocab=10**9)
        )
    assert sum(parameter.numel() for parameter in model.parameters()) == model.config.n_params

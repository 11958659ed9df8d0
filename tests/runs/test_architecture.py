"""An architecture in words leaves out no field."""

import dataclasses

import pytest
from small_models import CHANGES, SIMPLE, configuration

from workbench.model.config import PRESETS, ModelConfig, preset
from workbench.runs.card import duration, figures, in_words, peculiarities

OTHERS = [
    dict(dropout=0.1),
    dict(init_std=0.1),
    dict(depth_scaled_init=False),
    dict(seed=5),
    dict(windows=(7,)),
]


def test_every_field_is_named_by_a_change():
    changed = {field for change in [*CHANGES, *SIMPLE, *OTHERS] for field in change}
    derived = {"objective"}
    assert changed | derived == {field.name for field in dataclasses.fields(ModelConfig)}


@pytest.mark.parametrize("change", [*CHANGES, *SIMPLE, *OTHERS], ids=str)
def test_each_change_of_a_field_is_told(change):
    """Whatever a field does to a configuration, the words differ from those without it."""
    field = next(iter(change))
    masked = (
        {"attention": "bidirectional"} if change.get("mlm_head") or change.get("norm_place") == "post" else {}
    )
    others = {name: value for name, value in change.items() if name not in (field, "relative_distance")}
    with_it, without = configuration(**masked | change), configuration(**masked | others)
    same = with_it == without or (field == "layout" and with_it.blocks == without.blocks)
    assert (in_words(with_it) == in_words(without)) == same


def test_the_usual_shape_needs_no_more_words():
    config = ModelConfig()
    assert peculiarities(config) == []
    assert in_words(config) == figures(config)[0].upper() + figures(config)[1:] + "."
    assert "4 layers, d_model 128, 4 heads of 32, d_mlp 512, learned positions" in figures(config)


def test_what_is_absent_is_not_told():
    assert "head" not in figures(ModelConfig(layout="mm", positions="none"))
    assert "no positions" in figures(ModelConfig(layout="mm", positions="none"))
    assert "d_mlp" not in figures(ModelConfig(layout="aa"))


def test_words():
    config = ModelConfig(
        layout="aam(am)(am)", windows=(0, 64), n_key_value_heads=1, sharing="attention", residual="weighted"
    )
    assert peculiarities(config) == [
        "blocks a, am, 2 × (am) (a attention, m MLP, (am) parallel)",
        "layers share their attention weights",
        "residual stream with learned weights over earlier layers",
        "keys and values of 1 head",
        "attention windows in turn: all, 64",
    ]
    assert len(in_words(ModelConfig(layout="am" * 1000 + "aamm" * 1000))) < 500


@pytest.mark.parametrize("name", PRESETS)
def test_presets_in_words(name):
    assert f"{preset(name).n_params:,} parameters" in in_words(preset(name))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.004, "0.004 s"),
        (3.14, "3.1 s"),
        (37.4, "37 s"),
        (119.0, "119 s"),
        (600.0, "10.0 min"),
        (1e4, "2.8 h"),
    ],
)
def test_times_have_the_unit_that_suits_them(seconds, text):
    assert duration(seconds) == text

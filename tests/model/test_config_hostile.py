"""Whatever stands in a configuration file, a `ModelConfig` comes out, or one `ConfigError` that says why not."""

import dataclasses
import json
import math

import jaxtyping
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import ConfigError
from workbench.model.config import ModelConfig


@pytest.fixture(autouse=True, scope="module")
def unchecked():
    """Without the tests' own check of types, which would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


FIELDS = [field.name for field in dataclasses.fields(ModelConfig)]

HOSTILE = [
    None, True, False, 0, 1, -1, 2, 3, 5, 10**9, 10**40, -(10**40), 10**400, 2**63, 0.0, -0.0, 0.5, 1.0, 2.5, 1e308, -1e308,
    5e-324, math.nan, math.inf, -math.inf, "", " ", "4", "1e3", "nan", "inf", "None", "true", "am", "(am", "\x00", "й",
    "a" * 30_000, "learned", "RMSNorm", b"am", [], [4], [[4]], [None], ["5"], (5,), (True,), (1.5,), (10**40,), {},
    {"a": 1}, {4}, object, 1j, range(3), ModelConfig, lambda: 4,
]  # fmt: skip

values = st.sampled_from(HOSTILE) | st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["am", "mm", "aa"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


def outcome(make, fields) -> ModelConfig | None:
    """The configuration, or None if it was refused in one readable line; anything else is an error."""
    try:
        config = make(fields)
    except ConfigError as error:
        text = str(error)
        assert "\n" not in text
        assert len(text) < 600
        assert "model" in text
        return None
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config, "what was taken can be written and read"
    assert config.n_params > 0
    return config


WAYS = [lambda fields: ModelConfig(**fields), ModelConfig.from_dict]


@pytest.mark.parametrize("make", WAYS, ids=["ModelConfig", "from_dict"])
@pytest.mark.parametrize("name", FIELDS)
def test_one_hostile_field(make, name):
    taken = [value for value in [*HOSTILE, 10**5000, (10**5000,)] if outcome(make, {name: value}) is not None]
    assert len(taken) < len(HOSTILE) - 20, "some values are refused"
    for value in taken:
        assert not (isinstance(value, float) and not math.isfinite(value))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(FIELDS), values, min_size=1, max_size=6))
def test_several_hostile_fields(fields):
    for make in WAYS:
        outcome(make, fields)


sensible = {
    "d_model": st.integers(1, 64), "n_layers": st.none() | st.integers(1, 4), "n_heads": st.integers(1, 8),
    "layout": st.none() | st.text("am()", min_size=1, max_size=6), "d_head": st.none() | st.integers(1, 16),
    "n_key_value_heads": st.none() | st.integers(1, 4), "d_value": st.none() | st.integers(1, 16),
    "mlp_depth": st.integers(1, 3), "windows": st.lists(st.integers(0, 9), max_size=3).map(tuple),
    "positions": st.sampled_from(["learned", "sinusoidal", "rotary", "alibi", "t5", "shaw", "none"]),
    "norm": st.sampled_from(["LayerNorm", "RMSNorm", "none"]),
    "norm_place": st.sampled_from(["pre", "post", "normformer"]),
    "activation": st.sampled_from(["gelu", "solu_ln", "prelu"]), "gated": st.booleans(), "tied": st.booleans(),
    "attention": st.sampled_from(["causal", "bidirectional"]), "mlm_head": st.booleans(),
    "d_embed": st.none() | st.integers(1, 16), "embed_norm": st.booleans(), "token_types": st.integers(0, 2),
    "sharing": st.sampled_from(["none", "all", "attention", "mlp"]), "unembed_bias": st.booleans(),
    "residual": st.sampled_from(["plain", "weighted"]),
}  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries({}, optional=sensible))
def test_every_combination_that_is_taken_makes_a_model(fields):
    """Any number of fields at once: what `ModelConfig` takes, `HookedTransformer` builds, counts and runs."""
    import torch

    from workbench.model.transformer import HookedTransformer

    config = outcome(WAYS[0], fields | {"d_vocab": 11, "n_ctx": 7})
    if config is None:
        return
    model = HookedTransformer(config).double().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == config.n_params
    tokens = torch.tensor([[5, 6, 7, 8, 9, 10, 4]])
    explicit, _ = model.run_with_cache(tokens, names_filter=lambda name: True)
    torch.testing.assert_close(explicit, model(tokens), rtol=1e-9, atol=1e-9)
    loss = model.loss(tokens, tokens)
    loss.backward()
    assert loss.isfinite()

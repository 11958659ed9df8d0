"""Reading a text in parts, and continuing it."""

import pytest
import torch
from law_tools import agree, attends, differ
from small_models import build

from workbench.errors import InputError

pytestmark = pytest.mark.usefixtures("unchecked")

SETTINGS = [dict(temperature=0.0), dict(temperature=0.8, top_k=20, top_p=0.9)]


@torch.no_grad()
def test_cache_of_keys_and_values(model, tokens, logits):
    if model.config.attention != "causal":
        pytest.skip("a masked model reads the whole text at once; it has no key-value cache")
    cache = model.new_cache(3)
    parts = [model(tokens[:, a:b], past_kv_cache=cache) for a, b in [(0, 5), (5, 6), (6, 17)]]
    agree(torch.cat(parts, 1), logits)
    if attends(model.config):
        other = model.new_cache(3)
        model(tokens[:, :6].flip(1), past_kv_cache=other)
        differ(model(tokens[:, 6:], past_kv_cache=other), logits[:, 6:])


@torch.no_grad()
def test_cache_when_somebody_listens(model, tokens, logits):
    if model.config.attention != "causal":
        pytest.skip("no key-value cache")
    cache, seen = model.new_cache(3), []
    hooks = [(lambda name: name.endswith("hook_pattern"), lambda x, hook: seen.append(x.shape[-2:]))]
    with model.hooks(fwd_hooks=hooks):
        parts = [model(tokens[:, a:b], past_kv_cache=cache) for a, b in [(0, 7), (7, 17)]]
    agree(torch.cat(parts, 1), logits)
    count = len(attends(model.config))
    assert seen == [(7, 7)] * count + [(10, 17)] * count


def test_generation_with_cache_equals_without(model, tokens):
    if model.config.attention != "causal":
        with pytest.raises(InputError, match="cannot continue"):
            model.generate(tokens[:, :4])
        return
    for settings in SETTINGS:
        made = [
            model.generate(tokens[:, :4], max_new_tokens=5, use_cache=use, seed=5, **settings)
            for use in (False, True)
        ]
        assert torch.equal(*made)
        assert made[0].shape == (3, 9)
        assert torch.equal(made[0][:, :4], tokens[:, :4])


def test_another_seed_gives_another_text(tokens):
    model = build()
    one, other = (model.generate(tokens[:, :4], max_new_tokens=12, seed=seed) for seed in (5, 6))
    assert not torch.equal(one, other)

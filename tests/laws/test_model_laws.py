"""Laws of the hooked transformer, each tried on every variant."""

import math

import pytest
import torch
from small_models import build

from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

EXACT = dict(rtol=0, atol=1e-12)  # float64: rounding of sums of a few hundred terms of size 1


def everything(name: str) -> bool:
    return True


def test_explicit_path_equals_fused_path(model, tokens):
    fused = model(tokens)
    explicit, cache = model.run_with_cache(tokens, names_filter=everything)
    torch.testing.assert_close(explicit, fused, **EXACT)
    assert set(cache.keys()) == set(model.hook_dict)


@pytest.mark.parametrize("name", ["hook_attn_scores", "hook_result", "hook_q_input", "hook_z", "hook_k"])
def test_each_lazy_hook_alone_changes_nothing(model, tokens, name):
    seen = []
    hooks = [(lambda full: full.endswith(name), lambda x, hook: seen.append(x.shape))]
    torch.testing.assert_close(model.run_with_hooks(tokens, fwd_hooks=hooks), model(tokens), **EXACT)
    assert len(seen) == model.config.n_layers


def test_cached_run_equals_plain_run(model, tokens):
    plain = model(tokens)
    logits, cache = model.run_with_cache(tokens)
    torch.testing.assert_close(logits, plain, **EXACT)
    torch.testing.assert_close(model.unembed(model.ln_final(cache["resid_post", -1])), plain, **EXACT)
    results = cache.stack_head_results()
    layer0 = results[: model.config.n_heads].sum(0) + model.blocks[0].attn.b_O
    torch.testing.assert_close(layer0, cache["attn_out", 0], **EXACT)


def test_hooks_are_gone_after_an_exception(model, tokens):
    def fail(x, hook):
        raise RuntimeError("from a hook")

    with pytest.raises(RuntimeError, match="from a hook"):
        model.run_with_hooks(tokens, fwd_hooks=[("blocks.0.attn.hook_pattern", fail)])
    assert not model.has_listeners()
    with pytest.raises(RuntimeError, match="from a hook"), model.hooks(fwd_hooks=[(everything, fail)]):
        model(tokens)
    assert not model.has_listeners()


def test_a_hook_that_changes_the_pattern_changes_the_logits(model, tokens):
    def uniform(pattern, hook):
        return torch.ones_like(pattern) / pattern.shape[-1]

    changed = model.run_with_hooks(tokens, fwd_hooks=[("blocks.0.attn.hook_pattern", uniform)])
    assert (changed - model(tokens)).abs().max() > 1e-3


def test_attention_rows_sum_to_one(model, tokens):
    _, cache = model.run_with_cache(tokens)
    for layer in range(model.config.n_layers):
        pattern = cache["pattern", layer]
        torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern[..., 0]), **EXACT)
        if model.config.attention == "causal":
            assert pattern.triu(1).abs().max() == 0


def test_causality_to_the_bit(model, tokens):
    """Changing a later token changes no earlier logit at all; in a masked model it must change them."""
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 5) % 61
    before, after = model(tokens)[:, :9], model(changed)[:, :9]
    if model.config.attention == "causal":
        assert torch.equal(before, after)
    else:
        assert (before - after).abs().max() > 1e-6


def test_a_row_alone_is_the_row_in_any_batch(model, tokens):
    lengths = [17, 4, 11]
    mask = torch.arange(17)[None] < torch.tensor(lengths)[:, None]
    padded = tokens.where(mask, 0)
    together = model(padded, attention_mask=mask)
    for row, length in enumerate(lengths):
        alone = model(tokens[row : row + 1, :length])
        torch.testing.assert_close(together[row, :length], alone[0], **EXACT)


def test_left_padding_is_refused(model, tokens):
    from workbench.errors import InputError

    mask = torch.ones_like(tokens).bool()
    mask[1, :3] = False
    with pytest.raises(InputError, match="pad on the right"):
        model(tokens, attention_mask=mask)


def test_stories_in_a_row_do_not_see_each_other(model, tokens):
    segments = torch.tensor([[0] * 6 + [1] * 11]).expand(3, -1)
    together = model(tokens, segments=segments)
    torch.testing.assert_close(together[:, :6], model(tokens[:, :6]), **EXACT)
    torch.testing.assert_close(together[:, 6:], model(tokens[:, 6:]), **EXACT)


def test_cache_of_keys_and_values(model, tokens):
    if model.config.attention != "causal":
        pytest.skip("a masked model reads the whole text at once; it has no key-value cache")
    whole = model(tokens)
    cache = model.new_cache(3)
    parts = [model(tokens[:, a:b], past_kv_cache=cache) for a, b in [(0, 5), (5, 6), (6, 17)]]
    torch.testing.assert_close(torch.cat(parts, 1), whole, **EXACT)


@pytest.mark.parametrize("settings", [dict(temperature=0.0), dict(temperature=0.8, top_k=7), dict(top_p=0.7)])
def test_generation_with_cache_equals_without(model, tokens, settings):
    if model.config.attention != "causal":
        pytest.skip("a masked model does not continue a text")
    made = [
        model.generate(tokens[:, :4], max_new_tokens=12, use_cache=use, seed=5, **settings)
        for use in (False, True)
    ]
    assert torch.equal(*made)
    assert made[0].shape == (3, 16)


def test_parameter_count_by_formula(model):
    assert sum(p.numel() for p in model.parameters()) == model.config.n_params


def test_loss_equals_the_explicit_loss_and_its_gradients(model, tokens):
    targets = tokens.roll(-1, 1)
    targets[:, ::5] = -100
    loss = model.loss(tokens, targets)
    own = torch.autograd.grad(loss, list(model.parameters()))
    logits, _ = model.run_with_cache(tokens, names_filter=lambda name: False)
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    theirs = torch.autograd.grad(plain, list(model.parameters()))
    torch.testing.assert_close(loss, plain, **EXACT)
    for a, b in zip(own, theirs, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_gradients_agree_on_both_paths(model, tokens):
    def gradients(**kwargs):
        with model.hooks(**kwargs):
            loss = model.loss(tokens, tokens)
            return torch.autograd.grad(loss, list(model.parameters()))

    fused = gradients()
    explicit = gradients(fwd_hooks=[(everything, lambda x, hook: None)])
    for a, b in zip(fused, explicit, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_loss_of_a_uniform_model_is_the_log_of_the_vocabulary(model, tokens):
    uniform = HookedTransformer(model.config).double()
    with torch.no_grad():
        uniform.readout_weight.zero_()
    assert uniform.loss(tokens, tokens).item() == pytest.approx(math.log(61), abs=1e-12)


def test_weights_have_transformer_lens_shapes(model):
    c = model.config
    heads, d_head, d_mlp = c.n_heads, c.head_width, c.mlp_width
    assert model.W_Q.shape == model.W_K.shape == model.W_V.shape == (c.n_layers, heads, c.d_model, d_head)
    assert model.W_O.shape == (c.n_layers, heads, d_head, c.d_model)
    assert model.W_in.shape == (c.n_layers, c.d_model, d_mlp)
    assert model.W_out.shape == (c.n_layers, d_mlp, c.d_model)
    assert model.W_E.shape == (c.d_vocab, c.d_model)
    assert model.W_U.shape == (c.d_model, c.d_vocab)
    assert model.b_Q.shape == (c.n_layers, heads, d_head)
    assert model.b_out.shape == (c.n_layers, c.d_model)
    with torch.no_grad():
        model.blocks[0].attn.W_Q[1, 2, 3] += 1.0  # a view: what is edited is what is trained
    assert model.blocks[0].attn.qkv_weight[d_head + 3, 2] == model.W_Q[0, 1, 2, 3]
    with torch.no_grad():
        model.blocks[0].attn.W_Q[1, 2, 3] -= 1.0


def test_named_heads_are_the_heads(model, tokens):
    """q of head h is ln1's output times W_Q[h], whatever the storage."""
    _, cache = model.run_with_cache(tokens)
    attn = model.blocks[1 % model.config.n_layers].attn
    layer = 1 % model.config.n_layers
    normalized = cache[f"blocks.{layer}.ln1.hook_normalized"] * model.blocks[layer].ln1.w
    if model.config.norm == "LayerNorm":
        normalized = normalized + model.blocks[layer].ln1.b
    for name, weight, bias in [
        ("q", attn.W_Q, attn.b_Q),
        ("k", attn.W_K, attn.b_K),
        ("v", attn.W_V, attn.b_V),
    ]:
        expected = torch.einsum("bpd,hde->bphe", normalized, weight) + bias
        torch.testing.assert_close(cache[name, layer], expected, **EXACT)


def test_save_and_load_through_a_state_dict(model, tokens):
    copy = HookedTransformer(model.config).double().eval()
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(tokens), model(tokens))


def test_bfloat16_is_float32_to_its_rounding(model, tokens):
    """bf16 keeps 8 bits: logits of size s move by a few per cent of the largest."""
    low = HookedTransformer(model.config).eval()
    low.load_state_dict(model.state_dict())
    wide = low(tokens)
    narrow = low.bfloat16()(tokens).float()
    assert (narrow - wide).abs().max() < 0.1 * wide.abs().max()


def test_same_seed_same_weights():
    assert torch.equal(build().W_E, build().W_E)
    assert not torch.equal(build().W_E, build(seed=1).W_E)


def test_published_count():
    from workbench.model.presets import preset

    config = preset("gpt-neo-9m")
    assert config.n_params == 9_585_664
    assert sum(p.numel() for p in HookedTransformer(config).parameters()) == 9_585_664


def test_dropout_only_in_training():
    model = build(dropout=0.5)
    tokens = torch.arange(4, 20)[None]
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))


def test_rotary_depends_on_distance_only():
    """Scores of the first layer do not change when all positions move by the same amount."""
    model = build(positions="rotary")
    tokens = torch.randint(4, 61, (1, 10))

    def scores(start: int) -> torch.Tensor:
        seen = {}
        keep = [("blocks.0.attn.hook_attn_scores", lambda x, hook: seen.update(scores=x))]
        with model.hooks(fwd_hooks=keep):
            model.residual(tokens, positions=torch.arange(start, start + 10)[None])
        return seen["scores"].tril()

    torch.testing.assert_close(scores(0).nan_to_num(neginf=0), scores(9).nan_to_num(neginf=0), **EXACT)


def test_config_round_trip():
    config = ModelConfig(positions="rotary", gated=True)
    assert ModelConfig.from_dict(config.to_dict()) == config

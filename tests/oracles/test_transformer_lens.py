"""transformer-lens' own tools run on our model, and their numbers are ours."""

import pytest
import torch
from small_models import VARIANTS, build
from transformer_lens import patching
from transformer_lens.head_detector import detect_head
from transformer_lens.tools.analysis import direct_logit_attribution

EXACT = dict(rtol=0, atol=1e-9)
CAUSAL = sorted(name for name, fields in VARIANTS.items() if fields.get("attention") != "bidirectional")


@pytest.fixture(params=CAUSAL, scope="module")
def model(request):
    return build(**VARIANTS[request.param])


@pytest.fixture
def prompts():
    random = torch.Generator().manual_seed(2)
    return torch.randint(4, 61, (2, 1, 9), generator=random)


def difference(logits):
    return logits[0, -1, 5] - logits[0, -1, 6]


def by_hand(model, corrupted, name, edit):
    return difference(model.run_with_hooks(corrupted, fwd_hooks=[(name, edit)]))


def test_patching_the_residual_stream(model, prompts):
    clean, corrupted = prompts
    _, cache = model.run_with_cache(clean)
    found = patching.get_act_patch_resid_pre(model, corrupted, cache, difference)
    assert found.shape == (model.config.n_layers, 9)
    for layer in range(model.config.n_layers):
        for position in range(9):

            def edit(x, hook, position=position):
                x = x.clone()
                x[:, position] = cache[hook.name][:, position]
                return x

            expected = by_hand(model, corrupted, f"blocks.{layer}.hook_resid_pre", edit)
            assert found[layer, position].item() == pytest.approx(
                expected.item(), abs=1e-5
            )  # it keeps float32
    moved = (found - difference(model(corrupted)).float()).abs()
    assert moved.max() > 1e-3, "the patches did something"


def test_patching_heads(model, prompts):
    clean, corrupted = prompts
    _, cache = model.run_with_cache(clean)
    found = patching.get_act_patch_attn_head_out_all_pos(model, corrupted, cache, difference)

    def edit(z, hook):
        z = z.clone()
        z[:, :, 1] = cache[hook.name][:, :, 1]
        return z

    expected = by_hand(model, corrupted, "blocks.0.attn.hook_z", edit)
    assert found[0, 1].item() == pytest.approx(expected.item(), abs=1e-5)
    for site in ("q", "k", "v", "pattern"):
        function = getattr(patching, f"get_act_patch_attn_head_{site}_all_pos")
        assert function(model, corrupted, cache, difference).shape == (model.config.n_layers, 4)


def test_direct_path_patching(model, prompts):
    """transformer-lens listens to the per-head inputs, which exist only while it does."""
    clean, corrupted = prompts
    _, cache = model.run_with_cache(clean)
    if model.config.n_layers < 2:
        pytest.skip("a path from head to head needs two layers")
    _, corrupted_cache = model.run_with_cache(corrupted)
    found = patching.get_act_patch_direct_path(
        model, corrupted, cache, corrupted_cache, difference, src_layer=0, src_head=1, component="q"
    )
    moved = (found[1:] - difference(model(corrupted)).float()).abs()
    assert moved.max() > 1e-4, "some path from head 0.1 matters in a random model"
    assert not model.has_listeners()


def test_decompositions_sum_to_the_residual_stream(model, prompts):
    tokens = prompts[:, 0]
    _, cache = model.run_with_cache(tokens)
    final = cache["resid_post", -1]
    parts = cache.decompose_resid(return_labels=False)
    torch.testing.assert_close(parts.sum(0), final, **EXACT)
    heads = cache.stack_head_results(incl_remainder=True)
    torch.testing.assert_close(heads.sum(0), final, **EXACT)
    full = cache.get_full_resid_decomposition(expand_neurons=True)
    torch.testing.assert_close(full.sum(0), final, **EXACT)


@pytest.mark.parametrize("unit", ["component", "head"])
def test_direct_logit_attribution_sums_to_the_logit_difference(model, prompts, unit):
    tokens = prompts[:, 0]
    right, wrong = torch.tensor([7, 8]), torch.tensor([9, 10])
    found = direct_logit_attribution(model, tokens, right, wrong, unit=unit).attribution.sum(0)
    logits = model(tokens)[:, -1]
    rows = torch.arange(2)
    expected = logits[rows, right] - logits[rows, wrong]
    if model.config.norm == "LayerNorm":
        expected = expected - model.ln_final.b @ (model.W_U[:, right] - model.W_U[:, wrong])
    torch.testing.assert_close(found, expected, **EXACT)


def test_logit_lens_of_the_last_layer_is_the_model(model, prompts):
    tokens = prompts[:, 0]
    logits, cache = model.run_with_cache(tokens)
    lens = cache.accumulated_resid(apply_ln=False)[-1]
    torch.testing.assert_close(model.unembed(model.ln_final(lens)), logits, **EXACT)


def test_attribution_patching_runs_and_leaves_nothing(model, prompts):
    from transformer_lens.tools.analysis import attribution_patch

    clean, corrupted = prompts
    found = attribution_patch(model, clean, corrupted, difference)
    assert found is not None
    assert not model.has_listeners()


def test_head_detector(model):
    class Words:  # detect_head takes text; ours needs a tokenizer for it
        bos_token_id, pad_token_id = 1, 0

        def encode(self, text, add_special_tokens):
            return [4 + len(word) for word in text.split()]

    model.tokenizer = Words()
    found = detect_head(model, "a bb ccc a bb ccc a bb ccc", "induction_head")
    assert found.shape == (model.config.n_layers, 4)
    assert ((found >= 0) & (found <= 1)).all()
    model.tokenizer = None

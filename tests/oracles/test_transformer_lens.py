"""transformer-lens' own tools run on our model, and their numbers are ours.

On every base and every change of the default that is causal. What a tool cannot understand stands in `CANNOT`,
with the reason.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_models import SINGLE, build, configuration
from transformer_lens import patching
from transformer_lens.head_detector import detect_head
from transformer_lens.tools.analysis import direct_logit_attribution

from workbench.interp.paths import path_patch
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

EXACT = dict(rtol=0, atol=1e-9)
CAUSAL = [name for name, fields in SINGLE.items() if configuration(**fields).attention == "causal"]

Rule = Callable[[ModelConfig], bool]


def uneven(c: ModelConfig) -> bool:
    return any("a" not in block for block in c.blocks)


def not_a_sum(c: ModelConfig) -> bool:
    return bool(
        c.norm_place != "pre" or c.residual == "weighted" or c.embed_norm or c.token_types or c.d_embed
    )


ATTENTION: tuple[Rule, str] = (uneven, "it reads attention in every block")
SUM: tuple[Rule, str] = (
    not_a_sum,
    "it takes the stream for the sum of hook_embed, hook_pos_embed, hook_attn_out and hook_mlp_out",
)
CANNOT: dict[str, list[tuple[Rule, str]]] = {
    "residual patching": [
        (lambda c: set(c.blocks) == {"m"}, "the prompts end alike, and nothing moves between tokens")
    ],
    "head patching": [
        ATTENTION,
        (lambda c: c.kv_heads != c.n_heads, "it counts as many heads of keys and values as of queries"),
    ],
    "path patching": [ATTENTION, (lambda c: c.n_layers < 2, "a path from head to head needs two layers")],
    "decomposition": [ATTENTION, SUM],
    "logit attribution": [ATTENTION, SUM],
    "logit lens": [(lambda c: c.norm_place == "post", "it leaves out the norm behind the last block")],
    "attribution patching": [
        ATTENTION,
        (lambda c: any("m" not in block for block in c.blocks), "it reads an MLP in every block"),
    ],
    "head detector": [ATTENTION],
}


def need(tool: str, model: HookedTransformer) -> None:
    """Leave out what the tool cannot understand."""
    for rule, reason in CANNOT[tool]:
        if rule(model.config):
            pytest.skip(f"{tool}: {reason}")


def test_each_tool_runs_on_most_configurations():
    configs = [configuration(**SINGLE[name]) for name in CAUSAL]
    for rules in CANNOT.values():
        left = [config for config in configs if not any(rule(config) for rule, _ in rules)]
        assert len(left) >= 0.8 * len(configs)


@pytest.fixture(params=CAUSAL, scope="module")
def model(request):
    return build(**SINGLE[request.param])


@pytest.fixture
def prompts():
    random = torch.Generator().manual_seed(2)
    return torch.randint(4, 61, (2, 1, 9), generator=random)


def difference(logits):
    return logits[0, -1, 5] - logits[0, -1, 6]


def by_hand(model, corrupted, name, edit):
    return difference(model.run_with_hooks(corrupted, fwd_hooks=[(name, edit)]))


def test_patching_the_residual_stream(model, prompts):
    need("residual patching", model)
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
    need("head patching", model)
    clean, corrupted = prompts
    _, cache = model.run_with_cache(clean)
    found = patching.get_act_patch_attn_head_out_all_pos(model, corrupted, cache, difference)

    def edit(z, hook):
        z = z.clone()
        z[:, :, 0] = cache[hook.name][:, :, 0]
        return z

    expected = by_hand(model, corrupted, "blocks.0.attn.hook_z", edit)
    assert found[0, 0].item() == pytest.approx(expected.item(), abs=1e-5)
    for site in ("q", "k", "v", "pattern"):
        function = getattr(patching, f"get_act_patch_attn_head_{site}_all_pos")
        assert function(model, corrupted, cache, difference).shape == (
            model.config.n_layers,
            model.config.n_heads,
        )


def test_direct_path_patching(model, prompts):
    """transformer-lens listens to the per-head inputs, which exist only while it does; our paths from the same
    head have the same effects."""
    need("path patching", model)
    clean, corrupted = prompts
    _, cache = model.run_with_cache(clean)
    _, corrupted_cache = model.run_with_cache(corrupted)
    shared = model.config.kv_heads != model.config.n_heads  # it refuses their keys and values
    former = model.config.norm_place != "pre"  # it adds what a head wrote before the norm behind it
    for component in "q" if shared or former else "qkv":
        found = patching.get_act_patch_direct_path(
            model, corrupted, cache, corrupted_cache, difference, src_layer=0, src_head=0, component=component
        )
        readers = [
            (layer, head, component)
            for layer in range(1, model.config.n_layers)
            for head in range(model.config.n_heads)
        ]
        if former or model.config.residual == "weighted":
            continue
        ours = path_patch(
            model, clean, corrupted, metric=lambda x: difference(x)[None], receivers=readers, senders="L0H0"
        )
        theirs = found[1:].flatten().double()
        np.testing.assert_allclose(ours.per_pair[:, 0, 0], theirs, rtol=0, atol=1e-5)  # it keeps float32
    moved = (found[1:] - difference(model(corrupted)).float()).abs()
    assert moved.max() > 1e-4, "some path from head 0.0 matters in a random model"
    assert not model.has_listeners()


def test_decompositions_sum_to_the_residual_stream(model, prompts):
    need("decomposition", model)
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
    need("logit attribution", model)
    tokens = prompts[:, 0]
    right, wrong = torch.tensor([7, 8]), torch.tensor([9, 10])
    found = direct_logit_attribution(model, tokens, right, wrong, unit=unit).attribution.sum(0)
    logits = model(tokens)[:, -1]
    rows = torch.arange(2)
    expected = logits[rows, right] - logits[rows, wrong] - (model.b_U[right] - model.b_U[wrong])
    if model.config.norm == "LayerNorm":
        expected = expected - model.ln_final.b @ (model.W_U[:, right] - model.W_U[:, wrong])
    torch.testing.assert_close(found, expected, **EXACT)


def test_logit_lens_of_the_last_layer_is_the_model(model, prompts):
    need("logit lens", model)
    tokens = prompts[:, 0]
    logits, cache = model.run_with_cache(tokens)
    lens = cache.accumulated_resid(apply_ln=False)[-1]
    torch.testing.assert_close(model.unembed(model.final(lens)), logits, **EXACT)


def test_attribution_patching_runs_and_leaves_nothing(model, prompts):
    need("attribution patching", model)
    from transformer_lens.tools.analysis import attribution_patch

    clean, corrupted = prompts
    found = attribution_patch(model, clean, corrupted, difference)
    assert found is not None
    assert not model.has_listeners()


def test_head_detector(model):
    need("head detector", model)

    class Words:  # detect_head takes text; ours needs a tokenizer for it
        bos_token_id, pad_token_id = 1, 0

        def encode(self, text, add_special_tokens):
            return [4 + len(word) for word in text.split()]

    model.tokenizer = Words()
    found = detect_head(model, "a bb ccc a bb ccc a bb ccc", "induction_head")
    assert found.shape == (model.config.n_layers, model.config.n_heads)
    assert ((found >= 0) & (found <= 1)).all()
    model.tokenizer = None

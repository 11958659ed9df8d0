"""Our sweeps beside transformer-lens' own, on the same model."""

import numpy as np
import pytest
import torch
from small_models import build
from transformer_lens import patching

from workbench.interp.gradients import attribution_patch
from workbench.interp.patching import patch

TABLE = 2e-6  # transformer-lens gathers its results in a float32 tensor
MODELS = {
    "default": {},
    "rotary": dict(positions="rotary", norm="RMSNorm", gated=True, tied=False),
    "parallel": dict(layout="(am)(am)"),
}
SWEEPS = {
    "resid_pre": (patching.get_act_patch_resid_pre, True),
    "attn_out": (patching.get_act_patch_attn_out, True),
    "mlp_out": (patching.get_act_patch_mlp_out, True),
    "z": (patching.get_act_patch_attn_head_out_by_pos, True),
    "q": (patching.get_act_patch_attn_head_q_by_pos, True),
    "k": (patching.get_act_patch_attn_head_k_by_pos, True),
    "v": (patching.get_act_patch_attn_head_v_by_pos, True),
    "pattern": (patching.get_act_patch_attn_head_pattern_all_pos, False),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return build(**MODELS[request.param], init_std=0.2)


@pytest.fixture(scope="module")
def prompts():
    return torch.randint(4, 61, (2, 3, 6), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("site", SWEEPS)
def test_the_same_sweep_gives_the_same_numbers(model, prompts, site, unchecked):
    sweep, by_position = SWEEPS[site]
    clean, corrupted = prompts
    with torch.no_grad():
        _, cache = model.run_with_cache(clean)
        theirs = sweep(model, corrupted, cache, lambda logits: (logits[:, -1, 5] - logits[:, -1, 6]).mean())
    ours = patch(model, clean, corrupted, right=5, wrong=6, site=site, by_position=by_position)
    np.testing.assert_allclose(ours.value, theirs.numpy(), rtol=0, atol=TABLE)
    assert np.ptp(ours.value) > 1e-2, "the patches did something"


def test_the_same_attribution_gives_the_same_numbers(prompts):
    from transformer_lens.tools.analysis import attribution_patch as theirs

    model = build(init_std=0.2)
    clean, corrupted = prompts[:, :1]
    found = theirs(model, clean, corrupted, lambda logits: (logits[:, -1, 5] - logits[:, -1, 6]).mean())
    for site, kind in (("result", "attn_head_out"), ("mlp_out", "mlp_out")):
        ours = attribution_patch(model, clean, corrupted, right=5, wrong=6, site=site)
        expected = {
            (node.layer, node.position, *(() if node.head is None else (node.head,))): score
            for node, score in found.node_scores.items()
            if node.kind == kind
        }
        assert len(expected) == ours.effect.size
        for place, score in expected.items():
            assert ours.effect[place] == pytest.approx(float(score), abs=1e-9)

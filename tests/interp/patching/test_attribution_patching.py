"""Attribution patching: exact where the model is linear, close where it nearly is, complete along the path."""

import numpy as np
import pytest
import torch
from small_models import build

from workbench.errors import InputError
from workbench.interp.components import SITES
from workbench.interp.gradients import attribution_patch
from workbench.interp.patching import patch

EXACT = 1e-9  # float64: products of sums in another order


@pytest.fixture
def prompts():
    return torch.randint(4, 61, (2, 3, 7), generator=torch.Generator().manual_seed(2))


def linear_model():
    """MLPs only, no norm, and an activation whose slopes are all one."""
    model = build(layout="mmm", n_layers=3, norm="none", activation="prelu")
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.slope.fill_(1.0)
    return model


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("site", ["resid_pre", "mlp_out", "neuron", "resid_post"])
@pytest.mark.parametrize("by_position", [True, False])
def test_exact_on_a_linear_model(prompts, site, steps, by_position):
    model = linear_model()
    exact = patch(model, *prompts, right=5, wrong=6, site=site, by_position=by_position)
    estimate = attribution_patch(
        model, *prompts, right=5, wrong=6, site=site, by_position=by_position, steps=steps
    )
    np.testing.assert_allclose(estimate.per_pair, exact.per_pair, rtol=0, atol=EXACT)
    assert estimate.axes == exact.axes
    assert np.abs(exact.effect).max() > 1e-3


@pytest.mark.parametrize("name", SITES)
def test_it_is_the_slope_of_a_small_patch(prompts, name):
    """A thousandth of a millionth of the way to the donor's activation moves the metric by as much of the
    estimate; all of the way does not, because this model is curved."""
    model, site, share = build(), SITES[name], 1e-9
    clean, corrupted = prompts
    estimate = attribution_patch(model, clean, corrupted, right=5, wrong=6, site=name, by_position=False)
    with torch.no_grad():
        _, donor = model.run_with_cache(clean, names_filter=lambda name: True)
        for cell in range(0, len(estimate.layers), 7):
            unit = slice(None) if estimate.units is None else int(estimate.units[cell])
            change = (slice(None), unit) if site.is_pattern else (slice(None), slice(None), unit)

            def nudge(x, hook, change=change if site.unit else slice(None)):
                x, given = x.clone(), donor[hook.name]
                x[change] += share * (given[change] - x[change])
                return x

            hooks = [(site.hook_name(int(estimate.layers[cell])), nudge)]
            logits = model.run_with_hooks(corrupted, fwd_hooks=hooks)
            slope = ((logits[:, -1, 5] - logits[:, -1, 6]).numpy() - estimate.base) / share
            np.testing.assert_allclose(estimate.per_pair[cell] - estimate.base, slope, rtol=0, atol=1e-4)
    exact = patch(model, *prompts, right=5, wrong=6, site=name, by_position=False)
    assert np.abs(estimate.per_pair - exact.per_pair).max() > 1e-3


def test_integrated_gradients_are_complete_at_the_embeddings(prompts):
    """Summed over positions, they are the whole difference of the two runs (Sundararajan et al. 2017)."""
    model = build()
    first = attribution_patch(
        model, *prompts, right=5, wrong=6, site="resid_pre", by_position=False, steps=200
    )
    whole = first.other - first.base
    np.testing.assert_allclose(first.per_pair[0] - first.base, whole, rtol=0, atol=1e-3)  # midpoint rule
    plain = attribution_patch(model, *prompts, right=5, wrong=6, site="resid_pre", by_position=False)
    assert np.abs(plain.per_pair[0] - plain.base - whole).max() > 1e-2


def test_nothing_is_left_behind(prompts):
    model = build()
    attribution_patch(model, *prompts, right=5, wrong=6)
    assert not model.has_listeners()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_negative_number_of_steps(prompts):
    with pytest.raises(InputError, match="steps must be 0"):
        attribution_patch(build(), *prompts, right=5, wrong=6, steps=-1)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_the_donor_is_measured_on_its_own_tokens(prompts, direction):
    """`sentence` reads a run's own tokens, so the ends of the estimate are those of the exact sweep."""
    model = build()
    options = dict(metric="sentence", site="mlp_out", direction=direction)
    estimate, exact = attribution_patch(model, *prompts, **options), patch(model, *prompts, **options)
    np.testing.assert_allclose(estimate.other, exact.other, rtol=0, atol=1e-9)
    np.testing.assert_allclose(estimate.base, exact.base, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_direction_is_refused(prompts):
    with pytest.raises(InputError, match=r"Unknown direction 'denoize'. Did you mean 'denoise'"):
        patch(build(), *prompts, right=5, wrong=6, direction="denoize")

"""Estimates beside exact effects: both as the sweeps give them, and told apart where they differ."""

import numpy as np
import pytest
import torch
from scipy import stats
from small_models import build

from workbench.errors import InputError
from workbench.interp.gradients import attribution_patch, check_attribution, check_edges, edge_attribution
from workbench.interp.patching import patch
from workbench.interp.paths import path_patch

EXACT = 1e-12  # float64: the same sums in another order
WORDS = dict(right=5, wrong=6)


@pytest.fixture
def prompts():
    return torch.randint(4, 61, (2, 3, 7), generator=torch.Generator().manual_seed(2))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("site", ["resid_pre", "z", "k", "neuron"])
@pytest.mark.parametrize("by_position", [True, False])
def test_it_is_both_sweeps(prompts, site, by_position):
    model, options = (
        build(n_key_value_heads=2),
        dict(site=site, by_position=by_position, direction="noise", **WORDS),
    )
    found = check_attribution(model, *prompts, steps=(0, 3), **options)
    exact = patch(model, *prompts, **options).effect.ravel()
    np.testing.assert_allclose(found.exact, exact, rtol=0, atol=EXACT)
    for steps, estimate in zip((0, 3), found.estimates, strict=True):
        same = attribution_patch(model, *prompts, steps=steps, **options).effect.ravel()
        np.testing.assert_allclose(estimate, same, rtol=0, atol=EXACT)
    assert found.estimators == ("gradient", "3 steps")
    assert found.total == len(found.exact) == len(found.to_frame())
    if site == "resid_pre" and not by_position:  # all of the stream is the other run, at each layer
        assert np.isnan([found.pearson, found.spearman, found.slope]).all()
        return
    assert found.pearson[1] == pytest.approx(stats.pearsonr(exact, found.estimates[1])[0])
    assert found.spearman[0] == pytest.approx(stats.spearmanr(found.exact, found.estimates[0])[0])
    assert found.slope[0] == pytest.approx(np.polyfit(exact, found.estimates[0], 1)[0])


def test_a_sample_is_a_part_of_the_whole(prompts):
    whole = check_attribution(build(), *prompts, site="z", **WORDS).to_frame()
    some = check_attribution(build(), *prompts, site="z", cells=9, seed=3, **WORDS)
    frame = some.to_frame()
    assert len(frame) == 9
    assert some.total == len(whole)
    both = frame.merge(whole, on=["layer", "pos", "head"], suffixes=("", "_whole"))
    assert len(both) == 9
    np.testing.assert_allclose(both["exact"], both["exact_whole"], rtol=0, atol=EXACT)
    np.testing.assert_allclose(both["5 steps"], both["5 steps_whole"], rtol=0, atol=EXACT)
    other = check_attribution(build(), *prompts, site="z", cells=9, seed=4, **WORDS)
    assert other.names != some.names


def test_a_linear_model_is_estimated_exactly(prompts):
    model = build(layout="mm", norm="none", activation="prelu")
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.slope.fill_(1.0)
    found = check_attribution(model, *prompts, site="mlp_out", by_position=False, **WORDS)
    for figure in (found.pearson, found.slope):
        np.testing.assert_allclose(figure, 1, rtol=0, atol=1e-9)
    assert found.worst(1)["error"].abs().max() < 1e-9


def test_edges_are_both_estimates(prompts):
    model = build()
    found = check_edges(model, *prompts, receivers="L1H2, L1 MLP, logits", steps=[2], **WORDS)
    exact = path_patch(model, *prompts, receivers="L1H2, L1 MLP, logits", **WORDS).to_frame()
    estimate = edge_attribution(model, *prompts, steps=2, **WORDS).to_frame()
    both = found.to_frame().merge(exact).merge(estimate, on=["sender", "receiver"])
    assert len(both) == len(exact) == found.total
    np.testing.assert_allclose(both["exact"], both["effect"], rtol=0, atol=EXACT)
    np.testing.assert_allclose(both["2 steps"], both["score"], rtol=0, atol=EXACT)


def test_worst_and_plot(prompts):
    import matplotlib

    matplotlib.use("Agg")
    found = check_attribution(build(), *prompts, site="z", steps=(0, 2), **WORDS)
    worst = found.worst(4, "gradient")
    errors = np.abs(found.estimates[0] - found.exact)
    np.testing.assert_allclose(worst["error"].abs(), np.sort(errors)[::-1][:4])
    assert worst["cell"][0] == found.names[int(errors.argmax())]
    ax = found.plot().axes[0]
    drawn = [one.get_offsets() for one in ax.collections]
    for points, estimate in zip(drawn, found.estimates, strict=True):
        np.testing.assert_allclose(points, np.stack([found.exact, estimate], 1))
    line = ax.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
    matplotlib.pyplot.close(ax.figure)


def test_equal_prompts_have_no_correlation(prompts):
    found = check_attribution(build(), prompts[0], prompts[0], **WORDS)
    assert not found.exact.any()
    assert np.isnan(found.pearson).all()
    assert np.isnan(found.slope).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(steps=()), "steps is empty"),
        (dict(steps=(-1,)), "steps must be 0"),
        (dict(cells=0), "cells must be at least 1"),
        (dict(site="zz"), "Unknown activation 'zz'"),
    ],
    ids=str,
)
def test_refusals(prompts, change, words):
    with pytest.raises(InputError, match=words):
        check_attribution(build(), *prompts, **WORDS | change)


def test_an_unknown_estimate(prompts):
    with pytest.raises(InputError, match="Unknown estimate '9 steps'; choose from gradient, 5 steps"):
        check_attribution(build(), *prompts, **WORDS).worst(1, "9 steps")

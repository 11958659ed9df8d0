"""What is built in by hand is found, exactly, by every method; in an untrained model nothing stands out like it.

The models: an induction circuit (`planted_heads`) and an agreement head (`planted_agreement`).
"""

import copy

import numpy as np
import pytest
import torch
from planted_agreement import pairs, planted_agreement, untrained
from planted_heads import planted
from small_models import build

from workbench.interp.ablation import leave_one_out
from workbench.interp.attribution import attribute_pair
from workbench.interp.gradients import attribution_patch
from workbench.interp.patching import patch

EXACT = 1e-9
SINGULAR, PLURAL = "the cat near the trees", "the cats near the trees"
ANSWERS = dict(right="sleeps", wrong="sleep")


@pytest.fixture(scope="module")
def agreement():
    return planted_agreement()


def only(effect, place):
    """Whether one entry is not 0 and all others are."""
    rest = np.array(effect)
    rest[place] = 0
    return abs(effect[place]) > 1 and np.abs(rest).max() < EXACT


@pytest.mark.parametrize("site", ["z", "result", "v", "attn_out"])
@pytest.mark.parametrize("method", [patch, attribution_patch], ids=["patch", "attribution"])
def test_the_agreement_head_is_all_there_is(agreement, method, site):
    found = method(agreement, SINGULAR, PLURAL, **ANSWERS, site=site, by_position=False)
    assert only(found.effect, (1,) if site == "attn_out" else (1, 2))
    assert found.recovered[(1,) if site == "attn_out" else (1, 2)] == pytest.approx(1, abs=EXACT)


@pytest.mark.parametrize("site", ["q", "k", "pattern", "mlp_out", "neuron"])
def test_what_the_agreement_head_does_not_use_does_nothing(agreement, site):
    with pytest.warns(UserWarning, match="No patch changes the metric"):
        found = patch(agreement, SINGULAR, PLURAL, **ANSWERS, site=site, by_position=False)
    assert np.abs(found.effect).max() < EXACT


def test_it_reads_the_noun_and_writes_at_the_end(agreement):
    values = patch(agreement, SINGULAR, PLURAL, **ANSWERS, site="v")
    written = patch(agreement, SINGULAR, PLURAL, **ANSWERS, site="z")
    assert only(values.effect, (1, 2, 2)), "the noun stands behind <bos> and the article"
    assert only(written.effect, (1, 5, 2))


def test_ablation_and_direct_attribution_find_it(agreement):
    without = leave_one_out(agreement, pairs=pairs(), measure=("pairs",))
    change = dict(zip(without.names, without.accuracy_change, strict=True))
    assert change.pop("L1H2") == pytest.approx(-0.5)  # a tie counts half
    assert set(change.values()) == {0.0}
    pair = pairs().paradigms["verb"][5]
    parts = attribute_pair(agreement, pair.sentence_good, pair.sentence_bad).to_frame()
    assert set(parts.component[parts.whole.abs() > EXACT]) == {"L1H2"}


def test_an_untrained_model_has_no_such_head():
    """The largest share of any head, over seeds, is nowhere near all of it, and no head is it in all seeds."""
    best = []
    for seed in range(6):
        found = patch(untrained(seed), SINGULAR, PLURAL, **ANSWERS, site="z", by_position=False)
        best.append(tuple(np.unravel_index(np.abs(found.effect).argmax(), found.effect.shape)))
        assert np.abs(found.effect).max() < 1, "the planted head's is 8"
    assert len(set(best)) > 1


def test_the_induction_circuit_is_two_heads():
    """`... a b ... a` asks for b. Other prompts: what follows the first a is c."""
    model = planted()
    clean = torch.tensor([[3, 7, 9, 4, 5, 7]])
    corrupted = torch.tensor([[3, 7, 11, 4, 5, 7]])
    answers = dict(right=9, wrong=11)
    writer = patch(model, clean, corrupted, **answers, site="z")
    assert only(writer.effect, (1, 5, 2)), "the induction head at the end"
    value = patch(model, clean, corrupted, **answers, site="v")
    assert only(value.effect, (1, 2, 2)), "it reads the token behind the first a"
    # Whom the induction head looks at is told by the previous-token head: other places, other first a.
    moved = torch.tensor([[3, 8, 9, 4, 5, 7]])
    early = patch(model, clean, moved, right=9, wrong=11, site="z")
    assert abs(early.effect[0, 2, 1]) > 0.5
    rest = early.effect[0].copy()
    rest[2, 1] = 0
    assert np.abs(rest).max() < EXACT
    keys = patch(model, clean, moved, right=9, wrong=11, site="k")
    assert abs(keys.effect[1, 2, 2]) > 0.5


@pytest.mark.parametrize("method", [patch, attribution_patch], ids=["patch", "attribution"])
@pytest.mark.parametrize("site", ["z", "neuron"])
def test_permuted_heads_and_neurons_permute_the_answer(method, site):
    model = build()
    turned = copy.deepcopy(model)
    order = [2, 0, 3, 1]
    neurons = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attn, mlp = turned.blocks[0].attn, turned.blocks[0].mlp
        for rows in (attn.qkv_weight, attn.qkv_bias):
            rows.copy_(rows.unflatten(0, (3, 4, 8))[:, order].flatten(0, 2))
        attn.out_weight.copy_(attn.out_weight.unflatten(1, (4, 8))[:, order].flatten(1))
        for rows in (mlp.in_weight, mlp.b_in):
            rows.copy_(rows[neurons])
        mlp.out_weight.copy_(mlp.out_weight[:, neurons])
    prompts = torch.randint(4, 61, (2, 2, 6), generator=torch.Generator().manual_seed(1))
    before, after = (method(one, *prompts, right=5, wrong=6, site=site).effect for one in (model, turned))
    expected = before.copy()
    expected[0] = before[0][:, order if site == "z" else neurons.numpy()]
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-12)

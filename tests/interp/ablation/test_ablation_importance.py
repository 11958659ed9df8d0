"""Importance is a derivative, and pruning by it ends where every order ends."""

import copy

import numpy as np
import pytest
import torch
from scored_models import small_model

from workbench.errors import InputError
from workbench.interp.ablation import ablated, leave_one_out, losses
from workbench.interp.components import Component, list_components
from workbench.interp.importance import head_importance, prune_heads
from workbench.interp.texts import TextBatch, text_batches

random = torch.Generator().manual_seed(5)
TOKENS = torch.randint(5, 60, (5, 9), generator=random)


def batches_of(model):
    """Rows in which something is predicted, by either kind of model; one row is half padding."""
    targets = torch.full_like(TOKENS, -100)
    if model.config.objective == "clm":
        targets[:, :-1] = TOKENS[:, 1:]
        targets[2, 3:] = -100
    else:
        targets[:, 2::3] = 7
    return [TextBatch(TOKENS[:3], targets[:3]), TextBatch(TOKENS[3:], targets[3:])]


@torch.no_grad()
def test_importance_is_what_finite_differences_say(model):
    batches = batches_of(model)
    found = head_importance(model, batches, mlps=True)
    assert found.parts == list_components(model.config)
    step = 1e-5

    def row_losses(part, gate):
        def scale(x, hook):
            x = x.clone()
            if part.kind == "mlp":
                return x * gate
            x[:, :, part.unit] *= gate
            return x

        with model.hooks(fwd_hooks=[(part.hook_name, scale)]):
            return losses(model, batches) / np.concatenate([batch.counts for batch in batches])

    for column, part in enumerate(found.parts):
        slope = (row_losses(part, 1 + step) - row_losses(part, 1 - step)) / (2 * step)
        # Central differences in float64: the step's square, and rounding of 1e-16 over the step.
        np.testing.assert_allclose(found.gradient[:, column], slope, rtol=1e-6, atol=1e-9)
        assert found.raw[column] == pytest.approx(np.abs(slope).mean(), rel=1e-6)
    assert not model.has_listeners()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_layers_have_length_one(causal):
    found = head_importance(causal, batches_of(causal), mlps=True)
    frame = found.to_frame()
    heads = frame[frame.kind == "head"]
    np.testing.assert_allclose(heads.groupby("layer").normalised.apply(np.linalg.norm), 1)
    assert frame[frame.kind == "mlp"].normalised.isna().all()
    np.testing.assert_allclose(
        heads.normalised / heads.importance,
        heads.groupby("layer").importance.transform(lambda x: 1 / np.linalg.norm(x)),
    )


def test_a_dead_head_has_none_and_heads_permute(causal):
    text = batches_of(causal)
    found = head_importance(causal, text)
    turned = copy.deepcopy(causal)
    order = [2, 0, 3, 1]
    with torch.no_grad():
        attn = turned.blocks[0].attn
        for rows in (attn.qkv_weight, attn.qkv_bias):
            rows.copy_(rows.unflatten(0, (3, 4, 8))[:, order].flatten(0, 2))
        attn.out_weight.copy_(attn.out_weight.unflatten(1, (4, 8))[:, order].flatten(1))
    np.testing.assert_allclose(
        head_importance(turned, text).raw, np.append(found.raw[order], found.raw[4:]), rtol=1e-10
    )
    with torch.no_grad():
        turned.blocks[0].attn.out_weight[:, 8:16] = 0
    dead = head_importance(turned, text)
    assert dead.raw[1] == 0
    assert (np.delete(dead.raw, 1) > 0).all()


def test_the_only_living_part_is_found_by_every_method(causal):
    lone = copy.deepcopy(causal)
    with torch.no_grad():
        for block in lone.blocks:
            block.mlp.out_weight.zero_()
            block.mlp.b_out.zero_()
            kept = block.attn.out_weight[:, 8:16].clone()
            block.attn.out_weight.zero_()
            if block is lone.blocks[1]:
                block.attn.out_weight[:, 8:16] = kept
    text = batches_of(lone)
    found = head_importance(lone, text, mlps=True)
    assert [part.label for part, value in zip(found.parts, found.raw, strict=True) if value] == ["L1H1"]
    for how in ("zero", "mean", "resample"):
        truth = leave_one_out(lone, text=text, measure=("loss",), how=how, reference=TOKENS)
        changed = [name for name, rise in zip(truth.names, truth.loss_change, strict=True) if rise]
        assert changed == ["L1H1"]
    assert prune_heads(lone, text, orders=0).pruned[-1] == (Component(1, "head", 1),)


def test_agreement_with_the_truth_is_a_rank_correlation(causal):
    stats = pytest.importorskip("scipy.stats")
    text = batches_of(causal)
    found, truth = (
        head_importance(causal, text, mlps=True),
        leave_one_out(causal, text=text, measure=("loss",)),
    )
    assert found.names == truth.names
    wanted = stats.spearmanr(found.raw, truth.loss_change).statistic
    assert found.agreement(truth) == pytest.approx(wanted, abs=1e-12)
    heads = [part.kind == "head" for part in found.parts]
    wanted = stats.spearmanr(found.normalised[heads], truth.loss_change[heads]).statistic
    assert found.agreement(truth, normalised=True) == pytest.approx(wanted, abs=1e-12)


def test_pruning_goes_by_importance_and_ends_without_heads(model):
    text = batches_of(model)
    seen = []
    curve = prune_heads(model, text, share=0.4, orders=2, progress=lambda fraction, _: seen.append(fraction))
    heads = list_components(model.config, mlps=False)
    assert sorted(part for step in curve.pruned for part in step) == sorted(heads)
    assert curve.share[0] == 0
    assert curve.share[-1] == 1
    assert seen[-1] == 1
    assert seen == sorted(seen)
    tokens = sum(batch.counts.sum() for batch in text)
    gone = []
    for step, taken in enumerate(curve.pruned):
        if taken:
            with ablated(model, gone):
                scores = dict(zip(heads, head_importance(model, text).normalised, strict=True))
            left = [part for part in heads if part not in gone]
            assert set(taken) == set(sorted(left, key=scores.__getitem__)[: len(taken)])
        gone += taken
        with ablated(model, gone):
            assert curve.loss[step] == pytest.approx(losses(model, text).sum() / tokens, rel=1e-12)
    np.testing.assert_allclose(curve.random_loss[:, 0], curve.loss[0], rtol=1e-12)
    np.testing.assert_allclose(curve.random_loss[:, -1], curve.loss[-1], rtol=1e-12)


def test_dead_heads_go_first_and_cost_nothing(causal):
    dead = copy.deepcopy(causal)
    with torch.no_grad():
        dead.blocks[0].attn.out_weight[:, :8] = 0
        dead.blocks[1].attn.out_weight[:, 16:24] = 0
    curve = prune_heads(dead, batches_of(dead), share=0.25, orders=1)
    assert set(curve.pruned[1]) == {Component(0, "head", 0), Component(1, "head", 2)}
    assert curve.loss[1] == curve.loss[0]
    frame = curve.to_frame()
    assert set(frame.order) == {"importance", "random 0"}
    assert len(frame) == 2 * len(curve.share)
    assert frame.accuracy.isna().all()


def test_accuracy_beside_the_loss():
    model = small_model(init_std=0.1)
    text = ["The cat likes the ball.", "The cats like the ball.", "A dog near the tree was sad."]
    curve = prune_heads(model, text, share=0.5, score_pairs=True, limit=2, orders=1)
    assert curve.accuracy.shape == curve.share.shape == (3,)
    assert curve.random_accuracy[0, -1] == curve.accuracy[-1]
    assert len(text_batches(model, text)) == 1


def test_bad_shares(causal):
    for share in (0, 1.5, float("nan")):
        with pytest.raises(InputError, match="give the fraction of heads"):
            prune_heads(causal, TOKENS, share=share)


def test_plots(causal):
    pytest.importorskip("matplotlib").use("Agg")
    text = batches_of(causal)
    found = head_importance(causal, text, mlps=True)
    drawn = found.plot().axes[0].images[0].get_array()
    np.testing.assert_allclose(np.asarray(drawn).ravel(), found.raw)
    curve = prune_heads(causal, text, share=0.5, orders=2)
    lines = curve.plot().axes[0].lines
    assert len(lines) == 3
    np.testing.assert_allclose(lines[-1].get_ydata(), curve.loss)

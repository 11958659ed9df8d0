"""What an ablation costs, in loss and in pairs, with intervals that mean what they say."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from scored_models import small_model, small_tokenizer
from small_models import build

from workbench.data.embedded.stories import stories
from workbench.data.pairs import PairSet, open_pairs
from workbench.errors import InputError
from workbench.evals import scoring as causal
from workbench.evals.blimp import blimp
from workbench.evals.scoring import threads_for
from workbench.interp.ablation import ablated, ablation_effect, leave_one_out, replacement
from workbench.interp.components import list_components
from workbench.interp.texts import IGNORED, text_batches
from workbench.stats import bootstrap_mean, bootstrap_ratio, mcnemar, spearman

TEXT = stories(12, seed=3)
LONG = stories(30, seed=4)  # all positions that the pairs have


@pytest.fixture(scope="module")
def model():
    return small_model(init_std=0.1).double()


@pytest.fixture(scope="module")
def masked():
    return small_model(init_std=0.1, attention="bidirectional", norm_place="post", mlm_head=True).double()


@pytest.fixture(scope="module")
def pairs():
    whole = open_pairs()
    return PairSet("few", "folder", {uid: whole.paradigms[uid][:15] for uid in list(whole.paradigms)[:3]})


@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
@pytest.mark.parametrize("which", ["model", "masked"])
def test_effects_are_those_of_the_ablated_model(which, how, pairs, request):
    model = request.getfixturevalue(which)
    sets = {"a head": "L1H2", "three": "L0H0, L1 MLP, L0N5"}
    found = ablation_effect(model, sets, how=how, text=TEXT, pairs=pairs, draws=2, reference=LONG)
    assert found.names == ("a head", "three")
    batches = text_batches(model, TEXT)
    whole = blimp(model, pairs)
    np.testing.assert_array_equal(found.pairs.pairs.correct, whole.per_pair.correct)
    for cell, parts in enumerate(sets.values()):
        losses, correct, margins = [], [], []
        for seed in range(2 if how == "resample" else 1):
            with ablated(model, parts, how, text_batches(model, LONG, 0), seed), torch.no_grad():
                nats = sum(
                    float(model.loss(b.tokens, b.targets)) * b.counts.sum() for b in batches if b.real is None
                )
                nats += sum(
                    float(
                        torch.nn.functional.cross_entropy(
                            model(b.tokens, attention_mask=b.real).flatten(0, 1),
                            b.targets.flatten(),
                            reduction="sum",
                        )
                    )
                    for b in batches
                    if b.real is not None
                )
                scores = blimp(model, pairs).per_pair
            losses.append(nats / sum(b.counts.sum() for b in batches))
            correct.append(scores.correct)
            margins.append(scores.margin)
        frame = found.to_frame()
        np.testing.assert_allclose(frame.loss[cell], np.mean(losses), rtol=1e-12)
        np.testing.assert_allclose(found.pairs.correct[cell], np.mean(correct, 0), rtol=1e-12)
        np.testing.assert_allclose(found.pairs.margin[cell], np.mean(margins, 0), rtol=1e-12)
        by_paradigm = pd.Series(np.mean(correct, 0)).groupby(whole.per_pair.paradigm.to_numpy()).mean()
        np.testing.assert_allclose(frame.accuracy[cell], by_paradigm.mean(), rtol=1e-12)
    assert (found.loss_change != 0).all()
    assert not model.has_listeners()


def test_a_dead_head_changes_no_number_at_all(model, pairs):
    dead = copy.deepcopy(model)
    with torch.no_grad():
        dead.blocks[0].attn.out_weight[:, :8] = 0
    found = ablation_effect(dead, ["L0H0", "L0H1"], each=True, text=TEXT, pairs=pairs)
    frame = found.to_frame().set_index("component")
    assert (
        frame.loc["L0H0", ["loss_change", "loss_low", "loss_high", "accuracy_change", "lost", "gained"]] == 0
    ).all()
    np.testing.assert_array_equal(found.pairs.margin[0], found.pairs.pairs.margin)
    assert frame.loc["L0H1", "loss_change"] != 0


def test_leave_one_out_names_every_part_and_permutes_with_heads(model):
    found = leave_one_out(model, text=TEXT, measure=("loss",))
    assert found.names == tuple(part.label for part in list_components(model.config))
    turned = copy.deepcopy(model)
    order = [2, 0, 3, 1]
    with torch.no_grad():
        attn = turned.blocks[1].attn
        for rows in (attn.qkv_weight, attn.qkv_bias):
            rows.copy_(rows.unflatten(0, (3, 4, 8))[:, order].flatten(0, 2))
        attn.out_weight.copy_(attn.out_weight.unflatten(1, (4, 8))[:, order].flatten(1))
    there = leave_one_out(turned, text=TEXT, measure=("loss",))
    before = dict(zip(found.names, found.loss_change, strict=True))
    after = dict(zip(there.names, there.loss_change, strict=True))
    for new, old in enumerate(order):
        assert after[f"L1H{new}"] == pytest.approx(before[f"L1H{old}"], abs=1e-12)
    assert after["L0H2"] == pytest.approx(before["L0H2"], abs=1e-12)


def test_half_precision_is_computed_in_float32(pairs):
    half = small_model(init_std=0.1).to(torch.bfloat16)
    options = dict(text=TEXT, pairs=pairs, how="mean")
    found = ablation_effect(half, "L0H1", **options)
    wide = ablation_effect(copy.deepcopy(half).float(), "L0H1", **options)
    assert half.dtype == torch.bfloat16
    np.testing.assert_array_equal(found.loss.without, wide.loss.without)
    np.testing.assert_array_equal(found.pairs.margin, wide.pairs.margin)


@pytest.mark.parametrize("how", ["zero", "resample"])
def test_threads_change_nothing(model, pairs, how, monkeypatch):
    options = dict(how=how, measure=("pairs",), pairs=pairs, reference=LONG, draws=1)
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            counts = []
            monkeypatch.setattr(causal, "threads_for", lambda m: counts.append(threads_for(m)) or counts[-1])  # noqa: B023
            found.append(ablation_effect(model, "L0H1, L1 MLP", **options).pairs.margin)
            assert counts == [count, count]
            remove = model.hook_embed.add_hook(lambda x, hook: None)
            ablation_effect(model, "L0H1", **options)
            remove.hook.remove()
            model.reset_hooks()
            assert counts[2:] == [1, 1], "somebody else's listener may keep what it sees"
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(*found, rtol=0, atol=1e-10)  # float64: other batches, other rounding
    assert "has_listeners" not in vars(model)
    assert not model.has_listeners()


@pytest.mark.parametrize("how", ["zero", "resample"])
def test_the_copy_that_scoring_makes_of_half_precision_is_ablated_too(pairs, how):
    half = small_model(init_std=0.1).to(torch.bfloat16)
    wide = copy.deepcopy(half).float()
    given = replacement(wide, "L0H1, L1 MLP", how, LONG)
    margins = []
    for network in (half, wide):
        with ablated(network, "L0H1, L1 MLP", how, given):
            margins.append(blimp(network, pairs).per_pair.margin)
    np.testing.assert_array_equal(*margins)
    assert (margins[0] != blimp(half, pairs).per_pair.margin).any()


def test_tables_and_what_was_not_measured(model, pairs):
    found = ablation_effect(model, "heads", text=TEXT, pairs=pairs, limit=10)
    assert found.names[0].startswith("L0H0+L0H1")
    frame, by_paradigm = found.to_frame(), found.paradigms()
    assert len(by_paradigm) == 3
    assert (by_paradigm.n == 10).all()
    np.testing.assert_allclose(by_paradigm.change.mean(), frame.accuracy_change[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(by_paradigm.after - by_paradigm.before, by_paradigm.change, rtol=0, atol=1e-12)
    assert by_paradigm.lost.sum() == frame.lost[0]
    assert (frame.accuracy_low <= frame.accuracy_change).all()
    assert (frame.accuracy_change <= frame.accuracy_high).all()
    again = ablation_effect(model, "heads", text=TEXT, pairs=pairs, limit=10)
    assert again.to_frame().equals(frame), "seeded"
    with pytest.raises(InputError, match="was not ablated here"):
        found.paradigms("L0H7")
    only = ablation_effect(model, "L0H1", text=TEXT, measure=("loss",))
    with pytest.raises(InputError, match=r"minimal pairs were not measured; pass measure='pairs'"):
        only.paradigms()
    with pytest.raises(InputError, match=r"Unknown measure 'pears'. Did you mean 'pairs'"):
        ablation_effect(model, "L0H1", measure=("pears",))
    with pytest.raises(InputError, match="no component was named"):
        ablation_effect(model, [])


def test_masked_models_need_something_hidden():
    model = build(attention="bidirectional")
    with pytest.raises(InputError, match="the text has no token to predict"):
        ablation_effect(model, "L0H0", text=torch.full((2, 8), 9), measure=("loss",))


def test_text_is_predicted_once_and_padding_never(model, masked):
    tokenizer = small_tokenizer()
    for network in (model, masked):
        rows = [tokenizer.encode(story, add_special_tokens=False) for story in TEXT]
        counts = np.concatenate([batch.counts for batch in text_batches(network, TEXT)])
        lengths = np.minimum([len(row) + 2 for row in rows], network.config.n_ctx)
        if network is model:
            np.testing.assert_array_equal(counts, lengths - 1)
        else:
            assert ((counts > 0) & (counts < lengths)).all()
        for batch in text_batches(network, TEXT):
            if batch.real is not None:
                assert (batch.targets[~batch.real] == IGNORED).all()


def test_the_interval_covers_the_known_effect():
    """15 % of pairs lost, 5 % gained: the interval holds -10 % in 95 of 100 draws of 200 pairs."""
    random, covered, trials = np.random.default_rng(0), 0, 400
    for trial in range(trials):
        change = random.choice([-1.0, 0.0, 1.0], 200, p=[0.15, 0.8, 0.05])
        found = bootstrap_mean(change, seed=trial, draws=1000)
        assert found.mean == pytest.approx(change.mean())
        covered += found.low <= -0.1 <= found.high
    # The binomial's 0.1 % and 99.9 % quantiles around 0.95, and some room for percentiles of 200 pairs.
    assert 0.91 <= covered / trials <= 0.985


def test_pairing_is_what_makes_the_interval_narrow():
    random = np.random.default_rng(1)
    before = (random.random(500) < 0.7).astype(float)
    after = before.copy()
    after[:5] = 1 - after[:5]
    paired = bootstrap_mean(after - before)
    unpaired = bootstrap_mean(random.permutation(after) - before)
    assert (paired.high - paired.low) < 0.2 * (unpaired.high - unpaired.low)


def test_groups_count_alike_and_are_drawn_apart():
    change = np.concatenate([np.ones(10), np.zeros(1000)])
    groups = np.array(["a"] * 10 + ["b"] * 1000)
    found = bootstrap_mean(change, groups)
    assert found == (0.5, 0.5, 0.5)  # inside a paradigm no pair differs from another


def test_one_row_and_one_pair_have_no_interval():
    for found in (bootstrap_mean(np.ones(1)), bootstrap_ratio(np.ones(1), np.ones(1, np.int64))):
        assert found.mean == 1
        assert np.isnan([found.low, found.high]).all()


def test_a_ratio_of_sums_and_its_interval():
    random, covered = np.random.default_rng(2), 0
    for trial in range(200):
        tokens = random.integers(20, 60, 60)
        nats = tokens * 0.3 + random.normal(0, 3, 60)
        found = bootstrap_ratio(nats, tokens, trial, 400)
        assert found.mean == pytest.approx(nats.sum() / tokens.sum())
        covered += found.low <= 0.3 <= found.high
    assert 0.88 <= covered / 200 <= 0.99  # 0.95 give or take 200 trials and 60 rows


def test_counts_and_ranks_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for lost, gained in [(0, 0), (7, 0), (3, 9), (400, 460)]:
        change = np.array([-1.0] * lost + [0.5] * gained + [0.0] * 5)
        found = mcnemar(change)
        assert found[:2] == (lost, gained)
        wanted = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
        assert found.p == pytest.approx(wanted, rel=1e-9)
    random = np.random.default_rng(3)
    first, second = random.integers(0, 6, (2, 30)).astype(float)
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
    assert np.isnan(spearman(np.ones(4), np.arange(4.0)))


def test_plots_draw_the_numbers(model, pairs):
    pytest.importorskip("matplotlib").use("Agg")
    found = leave_one_out(model, text=TEXT, measure=("loss",))
    bars = found.plot().axes[0].patches
    assert sorted(bar.get_width() for bar in bars) == pytest.approx(sorted(found.loss_change))
    only = ablation_effect(model, "L0H1, L1 MLP", each=True, pairs=pairs, measure=("pairs",))
    ax = only.plot().axes[0]
    assert len(ax.patches) == 2
    assert "accuracy" in ax.get_xlabel()

"""The numbers of the page "Ablate and patch" are those of the library, whoever else uses the model."""

import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from apps.answers import ablate, catalogue, counterparts, effects, patching
from apps.answers import paradigm_ablation as paradigms
from apps.answers.wanted import Wanted
from workbench.data.embedded.stories import stories
from workbench.data.pairs import open_pairs
from workbench.errors import InputError
from workbench.evals.blimp import blimp
from workbench.interp.ablation import ablated, ablation_effect
from workbench.interp.attribution import attribute_pair
from workbench.interp.matrix import component_matrix
from workbench.interp.patching import patch
from workbench.interp.prompts import align

GOOD, BAD = "The cats near the tree like the ball.", "The cats near the tree likes the ball."
EVEN = ("The tree was happy and near.", "The tree was big and near.")
"""Sentences that differ in one token."""
OFF = ("L0H1", "L0N5", "L1 MLP")
UID = "embedded_anaphor_gender_agreement"


pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(autouse=True)
def few_stories(monkeypatch):
    monkeypatch.setattr("workbench.interp.texts.STORIES", 6)
    ablate._reference.clear()
    yield
    ablate._reference.clear()


@pytest.fixture(scope="module")
def opened(runs):
    return catalogue.open_checkpoint(runs / "scored", None)


@pytest.fixture(scope="module")
def masked(runs):
    return catalogue.open_checkpoint(runs / "masked", None)


@pytest.fixture(scope="module")
def pairs():
    return open_pairs(None).paradigms[UID][:24]


def quiet(model) -> bool:
    """Whether nobody listens to the model any more."""
    return not model.has_listeners() and all(not point.fwd_hooks for point in model.hook_dict.values())


@pytest.mark.parametrize("which", ["opened", "masked"])
@pytest.mark.parametrize("how", ["zero", "mean"])
def test_the_pair_is_what_attribution_says_of_the_ablated_model(which, how, request):
    one = request.getfixturevalue(which)
    said = ablate.say(one, GOOD, BAD, "native", "original", OFF, how)
    with ablated(one.model, OFF, how, stories(6)):
        found = attribute_pair(one.model, GOOD, BAD)
    np.testing.assert_allclose(said.good.log_probs, found.good.log_probs, atol=1e-5)
    np.testing.assert_allclose(said.bad.log_probs, found.bad.log_probs, atol=1e-5)
    assert said.difference == pytest.approx(found.difference, abs=1e-4)
    assert said.at_place == pytest.approx(found.difference_at_place, abs=1e-4)
    assert said.place == found.place
    whole = ablate.say(one, GOOD, BAD, "native", "original")
    assert whole.difference == pytest.approx(attribute_pair(one.model, GOOD, BAD).difference, abs=1e-4)
    assert abs(whole.difference - said.difference) > 1e-3  # the ablation does something
    assert quiet(one.model)


def test_resampled_figures_are_means_over_the_draws(opened):
    said = ablate.say(opened, GOOD, BAD, "native", "original", OFF, "resample")
    each = []
    for seed in range(4):
        with ablated(opened.model, OFF, "resample", stories(6), seed):
            each.append(attribute_pair(opened.model, GOOD, BAD).good.log_probs)
    np.testing.assert_allclose(said.good.log_probs, np.mean(each, 0), atol=1e-5)
    assert np.std(each, 0).max() > 1e-4


@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
def test_the_paradigm_is_what_ablation_effect_says(opened, pairs, how):
    pieces = [
        paradigms.measure(opened, pairs[first : first + 10], OFF, how, "native", "original")
        for first in (0, 10, 20)
    ]
    found = paradigms.outcome(pd.concat(pieces, ignore_index=True))
    table = ablation_effect(
        opened.model, ",".join(OFF), how=how, reference=stories(6), pairs=paradigms.pair_set(pairs),
        measure=("pairs",),
    ).paradigms()  # fmt: skip
    row = table.iloc[0]
    assert found.before.n == row.n == 24
    assert found.before.accuracy == pytest.approx(row.before)
    assert found.after.accuracy == pytest.approx(row.after)
    assert (found.change.mean, found.change.low, found.change.high) == pytest.approx(
        (row.change, row.low, row.high)
    )
    assert (found.flips.lost, found.flips.gained) == (row.lost, row.gained)
    assert found.flips.p == pytest.approx(row.p)
    assert found.flips.p == pytest.approx(
        stats.binomtest(int(row.lost), int(row.lost + row.gained)).pvalue if row.lost + row.gained else 1.0
    )
    assert found.margin.mean == pytest.approx(row.margin_change, abs=1e-5)
    assert quiet(opened.model)


def test_nothing_off_turns_nothing_and_turned_pairs_are_listed(opened, pairs):
    frame = paradigms.measure(opened, pairs, ("L0H0",), "zero", "native", "original")
    assert paradigms.turned(frame.assign(correct_now=frame.correct)).empty
    frame["correct_now"] = 1 - frame.correct
    moved = paradigms.turned(frame)
    assert len(moved) == len(frame)
    assert list(moved.turn) == sorted(moved.turn, reverse=True)  # lost before gained
    lost = moved[moved.turn == "lost"]
    assert set(lost.pair_id) == set(frame[frame.correct == 1].pair_id)
    assert (lost.change.abs().diff().dropna() <= 1e-12).all()


def test_readouts_and_maps_are_those_of_patch(opened):
    good, bad = EVEN
    found = patching.readouts(opened, good, bad, "native", "original")
    text = attribute_pair(opened.model, good, bad)
    first = found[0]
    assert first.contrast
    assert first.same
    assert first.difference == pytest.approx(text.difference_at_place, abs=1e-4)
    later = found[1]
    assert not later.same
    assert later.right == text.good.ids[int(later.key)]
    assert later.wrong != later.right
    for setting in (patching.Setting(), patching.Setting("mlp_out", "log_prob", "noise")):
        mine = patching.sweep(opened, later, setting)
        theirs = patch(
            opened.model, torch.tensor([later.good_prompt]), torch.tensor([later.bad_prompt]),
            right=later.right, wrong=later.wrong, site=setting.site, metric=setting.metric,
            direction=setting.way,
        )  # fmt: skip
        np.testing.assert_allclose(mine.recovered, theirs.recovered, atol=1e-6)
        rows = patching.cells(mine, "recovered")
        assert [row["shown"] for row in rows] == pytest.approx(list(theirs.recovered.ravel()), abs=1e-6)
    # The stream that enters the first layer is everything: there the last changed token restores the answer.
    assert patching.sweep(opened, later, patching.Setting()).recovered[0].max() == pytest.approx(1, abs=1e-4)
    heads = patching.heads(opened, later, patching.Setting(), 1, 3)
    theirs = patch(
        opened.model, torch.tensor([later.good_prompt]), torch.tensor([later.bad_prompt]), right=later.right,
        wrong=later.wrong, site="z",
    )  # fmt: skip
    np.testing.assert_allclose(heads.effect[0, 0], theirs.effect[1, 3], atol=1e-6)
    assert [row["token"] for row in patching.head_rows(heads, "effect")] == ["H0", "H1", "H2", "H3"]
    assert quiet(opened.model)


def test_prompts_of_one_kind_get_the_mean_and_effects_in_nats(opened):
    first = patching.readouts(opened, GOOD, BAD, "native", "original")[0]
    assert first.same
    mine = patching.sweep(opened, first, patching.Setting())
    tokens = torch.tensor([first.good_prompt])
    theirs = patch(
        opened.model, tokens, tokens, right=first.right, wrong=first.wrong, values="mean",
        reference=stories(6),
    )  # fmt: skip
    np.testing.assert_allclose(mine.effect, theirs.effect, atol=1e-6)
    assert np.isnan(mine.recovered).all()
    assert all(row["recovered"] is None for row in patching.cells(mine, "effect"))


def test_prompts_of_unequal_length_are_aligned(opened):
    good, bad = "The cats that Lily sees like the ball.", "The cat likes the ball."
    found = patching.readouts(opened, good, bad, "native", "original")
    later = next(each for each in found if len(each.good_prompt) != len(each.bad_prompt))
    sides = [torch.tensor([prompt]) for prompt in (later.good_prompt, later.bad_prompt)]
    wanted = align(opened.model, *sides)
    assert patching.matching(opened, later) == wanted
    theirs = patch(opened.model, *sides, right=later.right, wrong=later.wrong, alignment=wanted)
    mine = patching.sweep(opened, later, patching.Setting())
    np.testing.assert_allclose(mine.recovered, theirs.recovered, atol=1e-6)
    assert len(mine.tokens) == len(later.bad_prompt)


def test_a_masked_model_is_read_at_its_mask(masked):
    found = patching.readouts(masked, *EVEN, "native", "within_word_l2r")
    hidden = masked.tokenizer.mask_token_id
    assert all(each.good_prompt.count(hidden) == each.bad_prompt.count(hidden) == 1 for each in found)
    assert found[0].same
    assert not found[1].same
    mine = patching.sweep(masked, found[1], patching.Setting(metric="log_prob"))
    side = attribute_pair(masked.model, *EVEN).good
    assert mine.other[0] == pytest.approx(side.log_probs[int(found[1].key)], abs=1e-4)


def test_the_counterpart_swaps_right_and_wrong(opened):
    frame = blimp(opened.model, open_pairs(None), paradigms=[UID], tokenizer=opened.tokenizer)
    row = frame.per_pair.iloc[3]
    wanted = Wanted(row.sentence_good, row.sentence_bad, paradigm=frame, uid=UID, pair_id=int(row.pair_id))
    readout = patching.readouts(opened, wanted.good, wanted.bad, "native", "original")[0]
    other = counterparts.counterpart(opened, wanted, readout)
    assert other is not None
    pair = frame.per_pair[frame.per_pair.pair_id == other.pair_id].iloc[0]
    theirs = patching.readouts(opened, pair.sentence_good, pair.sentence_bad, "native", "original")[0]
    assert (theirs.right, theirs.wrong) == (readout.wrong, readout.right)
    assert other.prompt == theirs.good_prompt != readout.good_prompt
    assert len(other.prompt) == len(readout.good_prompt)


def test_an_own_beginning_replaces_the_second_prompt(opened):
    readout = patching.readouts(opened, GOOD, BAD, "native", "original")[0]
    mine = patching.own_prompt(opened, readout, "The cat near the tree")
    assert mine.bad_prompt[0] == opened.tokenizer.bos_token_id
    assert opened.tokenizer.decode(mine.bad_prompt[1:]).strip() == "The cat near the tree"
    with pytest.raises(InputError, match="write a beginning"):
        patching.own_prompt(opened, readout, "   ")
    with pytest.raises(InputError, match="shorten it"):
        patching.own_prompt(opened, readout, "cat " * 300)


def test_effects_are_the_component_matrix(opened, pairs):
    found = effects.measure(opened, pairs[:6], "native", "original", "mean")
    matrix = component_matrix(
        opened.model, paradigms.pair_set(pairs[:6]), methods=("direct", "ablate"), how="mean",
        reference=stories(6),
    )  # fmt: skip
    labels = [part.label for part in matrix.components]
    for label, one, other in zip(found.labels, found.direct.T, found.ablated.T, strict=True):
        np.testing.assert_allclose(one, matrix.effects["direct"][:, labels.index(label)])
        np.testing.assert_allclose(other, matrix.effects["ablate"][:, labels.index(label)])
    assert list(found.labels) == ablate.switches(opened.model.config)
    agree = effects.agreement(found)
    one, other = found.direct.mean(0), found.ablated.mean(0)
    assert agree.pearson == pytest.approx(stats.pearsonr(one, other).statistic)
    assert agree.spearman == pytest.approx(stats.spearmanr(one, other).statistic)
    assert agree.n == len(found.labels)
    half = effects.together([
        effects.measure(opened, pairs[:3], "native", "original", "mean"),
        effects.measure(opened, pairs[3:6], "native", "original", "mean"),
    ])  # fmt: skip
    np.testing.assert_allclose(half.ablated, found.ablated, atol=1e-4)
    constant = effects.Effects(("a", "b"), np.zeros((1, 2)), np.ones((1, 2)))
    assert np.isnan(effects.agreement(constant).pearson)


def test_eight_sessions_see_nobody_elses_ablation(opened, pairs):
    """Some ablate, each something else, others do not, all at once on one model: everyone's numbers are those
    that they get alone."""
    sets = [(), ("L0H0",), (), ("L1 MLP",), (), ("L0H2", "L1H3"), (), ("L1N3",)]
    variants = [f"The {animal} near the tree" for animal in ("cats", "dogs", "birds")]

    def numbers(off):
        found = [
            ablate.say(opened, f"{start} like the ball.", f"{start} likes the ball.", "native", "original",
                       off, "zero").difference
            for start in variants
        ]  # fmt: skip
        if off:
            frame = paradigms.measure(opened, pairs[:6], off, "zero", "native", "original")
            found += [*frame.margin, *frame.margin_now]
        return found

    alone = [numbers(off) for off in sets]
    assert len({round(each[0], 6) for each in alone}) == 5  # nothing off, and four ablations
    together: dict[int, list[list[float]]] = {index: [] for index in range(len(sets))}
    start = threading.Barrier(len(sets))
    failed = []

    def session(index):
        try:
            start.wait(30)
            for _ in range(3):
                ablate._said.clear()
                together[index].append(numbers(sets[index]))
                time.sleep(0.001)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=session, args=(index,)) for index in range(len(sets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed
    for index, mine in enumerate(alone):
        assert len(together[index]) == 3
        for theirs in together[index]:
            np.testing.assert_allclose(theirs, mine, atol=1e-6)
    assert quiet(opened.model)


def test_a_failing_ablation_leaves_no_hook(opened):
    with pytest.raises(InputError, match="Unknown head, MLP or neuron"):
        ablate.say(opened, GOOD, BAD, "native", "original", ("L0Q1",), "zero")
    with pytest.raises(InputError, match="context"):
        ablate.say(opened, "cat " * 300, BAD, "native", "original", ("L0H1",), "zero")
    assert quiet(opened.model)
    assert opened.lock.acquire(blocking=False)
    opened.lock.release()


def test_labels_are_put_in_order_and_wrong_ones_told(opened):
    labels, wrong = ablate.known(opened.model.config, ["L1 MLP", "l0h1", "L0N3", "L0H1", "L7H0", "x"])
    assert labels == ("L0H1", "L0N3", "L1 MLP")
    assert len(wrong) == 2
    assert "L0 to L1" in wrong[0]

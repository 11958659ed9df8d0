"""Pairs of different length, pairs that do not fit into memory, and patches that change nothing."""

import warnings

import numpy as np
import pytest
import torch
from planted_agreement import planted_agreement
from scored_models import small_model
from small_models import build

from workbench.errors import InputError
from workbench.interp import patching as pair_groups
from workbench.interp.metrics import LogitDifference
from workbench.interp.patching import patch
from workbench.interp.prompts import align

CLEAN, CORRUPTED = "the cat near the tree", "the dogs near the tree near the girl"


@pytest.fixture(scope="module")
def agreement():
    return planted_agreement()


def test_what_is_shared_stands_together_and_can_be_read(agreement):
    found = align(agreement, [CLEAN], [CORRUPTED])
    assert found.matched == (((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)),)
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines] == ["clean", "corrupted"]
    assert lines[0].index("2:' cat'") == lines[1].index("2:' dogs'")
    frame = found.to_frame()
    assert list(frame["corrupted"])[-1] == " girl"
    assert frame["clean_pos"].isna().sum() == 3
    same = align(agreement, ["the cat"], ["the dogs"])
    assert same.matched == (((0, 0), (1, 1), (2, 2)),)


def test_replaced_tokens_are_paired_from_their_end(agreement):
    found = align(agreement, ["the near cat sleeps"], ["the dogs sleeps"])
    assert found.matched == (((0, 0), (1, 1), (3, 2), (4, 3)),)


def test_an_alignment_can_be_edited(agreement):
    found = align(agreement, [CLEAN], [CORRUPTED])
    assert found.unmatch(2).matched[0] == ((0, 0), (1, 1), (3, 3), (4, 4), (5, 5))
    assert found.match(5, 8).matched[0][-1] == (5, 8)
    assert (
        found.match(1, 4).matched[0] == ((0, 0), (1, 4), (2, 5)) or (2, 5) not in found.match(1, 4).matched[0]
    )
    for edit in (lambda: found.match(9, 0), lambda: found.match(0, 0, pair=1), lambda: found.unmatch(-1)):
        with pytest.raises(InputError, match=r"position|pair"):
            edit()


def by_hand(model, into, other, places, name, right, wrong):
    """The logit difference at the end, for each position, of whole runs with one hook."""
    with torch.no_grad():
        _, donor = model.run_with_cache(other, names_filter=[name])
        found = []
        for place, there in enumerate(places):

            def replace(x, hook, place=place, there=there):
                x = x.clone()
                if there >= 0:
                    x[:, place] = donor[name][:, there]
                return x

            logits = model.run_with_hooks(into, fwd_hooks=[(name, replace)])
            found.append(float(logits[0, -1, right] - logits[0, -1, wrong]))
    return found


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "bidirectional"])
def test_a_sweep_over_an_alignment_equals_runs_by_hand(direction, bidirectional):
    model = small_model(**({"attention": "bidirectional"} if bidirectional else {})).double()
    texts = ["Tom saw a big dog", "Tom and Lily saw a big dog"]
    lengths = [len(model.to_tokens(text)[0]) for text in texts]
    assert lengths[0] != lengths[1]
    alignment = align(model, *texts)
    found = patch(model, *texts, right=300, wrong=310, direction=direction, alignment=alignment)
    clean, corrupted = (model.to_tokens(text) for text in texts)
    into, other = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
    places = alignment.places(direction == "noise", into.shape[1])[0].tolist()
    assert -1 in places or direction == "noise"
    for layer in range(2):
        expected = by_hand(model, into, other, places, f"blocks.{layer}.hook_resid_pre", 300, 310)
        here = found.layers == layer
        np.testing.assert_allclose(found.per_pair[here, 0], expected, rtol=0, atol=1e-12)
    assert found.per_pair.shape[0] == 2 * into.shape[1]
    assert len(found.tokens) == into.shape[1]


def test_the_planted_head_is_found_across_lengths(agreement):
    found = patch(
        agreement, CLEAN, CORRUPTED, right="sleeps", wrong="sleep", site="z", by_position=False,
        alignment=align(agreement, CLEAN, CORRUPTED).match(5, 8),
    )  # fmt: skip
    effect = found.effect
    assert effect[1, 2] == pytest.approx(16, abs=1e-9)
    assert np.count_nonzero(effect) == 1


def test_what_an_alignment_cannot_do_is_said(agreement):
    alignment = align(agreement, CLEAN, CORRUPTED)
    answers = dict(right="sleeps", wrong="sleep")
    with pytest.raises(InputError, match=r"also takes alignment=align\(model, clean, corrupted\)"):
        patch(agreement, CLEAN, CORRUPTED, **answers)
    with pytest.raises(InputError, match="alignment is of other corrupted prompts"):
        patch(agreement, CLEAN, "the dogs", **answers, alignment=alignment)
    with pytest.raises(InputError, match="pattern's keys are positions"):
        patch(agreement, CLEAN, CORRUPTED, **answers, alignment=alignment, site="pattern")
    metric = LogitDifference(*(torch.tensor([token]) for token in (15, 16, 5)))
    with pytest.raises(InputError, match="metric object reads fixed positions"):
        patch(agreement, CLEAN, CORRUPTED, metric=metric, alignment=alignment)
    with pytest.raises(InputError, match="2 clean prompts and 1 corrupted"):
        align(agreement, [CLEAN, CLEAN], [CORRUPTED])


@pytest.mark.parametrize("site", ["resid_pre", "z", "pattern"])
def test_pairs_that_do_not_fit_together_are_swept_in_groups(site):
    model = build()
    clean, corrupted = torch.randint(4, 61, (2, 5, 7), generator=torch.Generator().manual_seed(0))
    options = dict(right=[5, 6, 7, 8, 9], wrong=10, site=site)
    whole = patch(model, clean, corrupted, **options)
    one = sum(
        pair_groups.activation_bytes(model, 2, 7, {*pair_groups.cached_hooks(model), *hooks(site)}).values()
    )
    shares = []
    split = patch(model, clean, corrupted, **options, memory=2 * one, progress=lambda x, _: shares.append(x))
    np.testing.assert_allclose(split.per_pair, whole.per_pair, rtol=0, atol=1e-12)
    np.testing.assert_allclose(split.other, whole.other, rtol=0, atol=1e-12)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert any(abs(share - 1 / 3) < 1e-9 for share in shares), "three groups of two, two and one"
    with pytest.raises(
        InputError, match=r"activations of one pair take .* are available; choose fewer layers"
    ):
        patch(model, clean, corrupted, **options, memory=one // 4)
    with pytest.raises(InputError, match=r"in \d groups only, and values='mean' needs all"):
        patch(model, clean, corrupted, **(options | {"site": "z"}), values="mean", memory=2 * one)
    with pytest.raises(InputError, match="a function of the logits needs all"):
        patch(model, clean, corrupted, metric=lambda logits: logits[:, -1, 5], memory=2 * one, site=site)


def hooks(site):
    return [f"blocks.{layer}.{'attn.' if site != 'resid_pre' else ''}hook_{site}" for layer in range(2)]


def test_a_sweep_that_changes_nothing_warns():
    model = build()
    tokens = torch.randint(4, 61, (2, 7))
    with pytest.warns(UserWarning, match="No patch changes the metric"):
        patch(model, tokens, tokens, right=5, wrong=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patch(model, tokens, tokens.flip(1), right=5, wrong=6)


def test_half_precision_weights_are_computed_in_float32_and_stay():
    model = build(init_std=0.2).bfloat16()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    clean, corrupted = torch.randint(4, 61, (2, 4, 7), generator=torch.Generator().manual_seed(0))
    exact = patch(build(init_std=0.2).float(), clean, corrupted, right=5, wrong=6)
    rough = patch(model, clean, corrupted, right=5, wrong=6)
    gap = np.abs(rough.effect - exact.effect).max()
    assert 0 < gap < 0.05 * np.abs(exact.effect).max()  # weights have eight bits
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("given", [torch.zeros(0, 3, dtype=torch.long), torch.tensor([[1, 99]]), torch.tensor([[-1, 2]])],
                         ids=["empty", "beyond", "negative"])  # fmt: skip
def test_ids_that_are_none_are_refused(given):
    with pytest.raises(InputError, match=r"no tokens|vocabulary has 61"):
        patch(build(), given, given, right=5, wrong=6)

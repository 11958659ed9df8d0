"""The planted head is all that is kept; encoded pairs score as `blimp` does; gradients are derivatives."""

import copy
import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from planted_agreement import NOUNS, WORDS, planted_agreement, untrained
from planted_agreement import pairs as planted_pairs
from scipy.special import expit
from small_models import build

from workbench.data.pairs import Pair, PairSet
from workbench.errors import DataError, InputError
from workbench.evals.blimp import blimp
from workbench.interp.ablation import replacement
from workbench.interp.circuit import Measured, decisions, drawn_sets, smallest_circuit
from workbench.interp.components import Component, list_components
from workbench.interp.pairs import EncodedPairs

pytestmark = pytest.mark.usefixtures("unchecked")
EXACT = dict(rtol=0, atol=1e-10)  # float64; blimp sums what the sentences share, this does not
SENTENCES = [
    ("The cat likes the ball.", "The cat like the ball."),
    ("The cats like the ball.", "The cats likes the ball."),
    ("The girls that helped the boy are happy.", "The girls that helped the boy is happy."),
    ("She hurt herself.", "She hurt himself."),
    ("Tom ran home.", "Ran home Tom was."),
]
PAIRS = PairSet(
    "made", "folder", {"made": tuple(Pair(g, b, "made", "none", i) for i, (g, b) in enumerate(SENTENCES))}
)
PLANTED = planted_pairs()
REFERENCE = [pair.sentence_good for pair in PLANTED.paradigms["verb"]]


def found_in(model, paradigm="verb", **options):
    return smallest_circuit(model, PLANTED, paradigm, **dict(reference=REFERENCE, random_sets=6) | options)


def two_heads():
    """The planted head divided: L1H2 knows the number of cats and dogs, L0H1 that of girls and trees. Noise in every
    weight tells all parts apart."""
    model = planted_agreement()
    first, second = (block.attn for block in model.blocks)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name in ("W_Q", "W_K", "W_V", "W_O"):
            getattr(first, name)[1] = getattr(second, name)[2]
        for words, attn, head in ((("cat", "dog"), first, 1), (("girl", "tree"), second, 2)):
            for word in words:
                attn.W_V[head, [WORDS.index(word), WORDS.index(NOUNS[word])]] = 0
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return model


@pytest.mark.parametrize("order", ["gradient", "ablate"])
@pytest.mark.parametrize("paradigm", ["verb", "subject"])
def test_exactly_the_planted_head_is_kept(paradigm, order):
    found = found_in(planted_agreement(), paradigm, order=order)
    assert found.names == ("L1H2",)
    assert found.holds
    assert math.isclose(found.beyond_target.mean, 0.05)
    half = found.held_out
    assert [half.accuracy(name) for name in ("whole", "circuit", "complement", "nothing")] == [1, 1, 0.5, 0.5]
    assert half.change("circuit") == (0, 0, 0)
    assert (half.random_accuracy == 0.5).all()
    row = found.to_frame().iloc[0]
    assert row["without"] == 0.5
    assert row["high"] < -0.3
    assert row["lost"] == half.count


@pytest.mark.parametrize("how", ["mean", "zero", "resample"])
def test_it_is_found_by_every_way_to_ablate(how):
    assert found_in(planted_agreement(layer=0, head=0), how=how).names == ("L0H0",)


def test_it_is_found_in_a_masked_model():
    model = planted_agreement(attention="bidirectional")
    model.tokenizer.mask_token = "<unk>"
    found = found_in(model, limit=60)
    assert found.names == ("L1H2",)
    assert found.held_out.accuracy("circuit") == 1


@pytest.mark.parametrize("seed", range(3))
def test_in_an_untrained_model_there_is_nothing_to_keep(seed):
    with pytest.raises(
        InputError,
        match=r"no accuracy above chance to keep: the model decides .* of verb correctly, not clearly",
    ):
        found_in(untrained(seed))


def test_nothing_is_kept_where_the_ablated_model_is_right_already():
    singular = PLANTED.paradigms["verb"][::2]
    found = smallest_circuit(
        planted_agreement(), PairSet("one", "folder", {"verb": singular}),
        reference=[pair.sentence_good for pair in singular],
    )  # fmt: skip
    assert found.kept == ()
    assert found.held_out.accuracy("circuit") == 1
    assert "No head and no MLP is needed" in found.to_text()
    assert list(found.to_frame().columns)[:2] == ["part", "layer"]
    assert not len(found.to_frame())
    found.plot()


@pytest.mark.parametrize("order", ["gradient", "ablate"])
def test_both_halves_of_a_divided_head_are_kept_and_neither_can_be_spared(order):
    found = found_in(two_heads(), order=order)
    assert sorted(found.names) == ["L0H1", "L1H2"]
    assert found.chosen_on.accuracy("circuit") >= found.target
    frame = found.to_frame()
    assert (frame.chosen_without < found.target).all()
    assert (frame.high < 0).all()


def test_permuting_heads_permutes_the_answer():
    model = two_heads()
    other, order = copy.deepcopy(model), [2, 0, 1]
    with torch.no_grad():
        for mine, theirs in zip(model.blocks, other.blocks, strict=True):
            for name in ("W_Q", "W_K", "W_V", "W_O"):
                getattr(theirs.attn, name).copy_(getattr(mine.attn, name)[order])
    first, second = found_in(model), found_in(other)
    moved = [part if part.head is None else part._replace(unit=order[part.head]) for part in second.kept]
    assert moved == list(first.kept) != list(second.kept)
    np.testing.assert_allclose(second.curve().margin, first.curve().margin, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("protocol", ["native", "minicons"])
def test_encoded_pairs_score_as_blimp_does(model, tokenizer, protocol):
    with torch.inference_mode():
        found = EncodedPairs(model, PAIRS.pairs, protocol, tokenizer=tokenizer).margins(model)
    expected = blimp(model, PAIRS, protocol, tokenizer=tokenizer).per_pair.margin
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected.to_numpy()), **EXACT)


def test_with_every_part_it_is_the_model_to_the_bit(model, tokenizer):
    encoded, parts = EncodedPairs(model, PAIRS.pairs, tokenizer=tokenizer), list_components(model.config)
    given = replacement(model, parts, "mean", torch.arange(24).reshape(2, 12))
    on = Measured(model, parts, given, encoded)
    plain = encoded.margins(model)
    assert np.array_equal(on.margins(parts), plain)
    assert np.abs(on.margins(parts[1:]) - plain).max() > 1e-6
    assert not model.has_listeners()


def test_slopes_are_derivatives(model, tokenizer):
    encoded, parts = EncodedPairs(model, PAIRS.pairs, tokenizer=tokenizer), list_components(model.config)
    given = replacement(model, parts, "mean", torch.arange(24).reshape(2, 12))
    kept = parts[1:]
    slopes = Measured(model, parts, given, encoded).slopes(kept)
    for part in (parts[0], parts[1], parts[-1]):
        sides = [
            expit(gated(model, parts, kept, part, step, given, encoded)).mean() for step in (1e-4, -1e-4)
        ]
        assert math.isclose(slopes[part], (sides[0] - sides[1]) / 2e-4, rel_tol=1e-4, abs_tol=1e-9)
    assert max(map(abs, slopes.values())) > 1e-6


def gated(model, parts, kept, moved, step, given, encoded):
    """Margins with one part's gate a step away from 1, or from 0 if it is not kept."""

    def hook_of(part):
        amount = float(part in kept) + (step if part == moved else 0)

        def hook(x, hook):
            x = x.clone()
            mine = x if part.kind == "mlp" else x[:, :, part.unit]
            new = given.values[part]
            mine.copy_(new + amount * (mine - new))
            return x

        return part.hook_name, hook

    with model.hooks(fwd_hooks=[hook_of(part) for part in parts]):
        return encoded.margins(model)


def test_random_sets_are_others_and_all_there_are_if_few():
    parts = tuple(Component(0, "head", unit) for unit in range(6))
    few = drawn_sets(parts, parts[:2], 20, 0)
    assert len(few) == len(set(few)) == 14
    assert parts[:2] not in few
    some = drawn_sets(parts, parts[:3], 5, 0)
    assert len(set(some)) == 5
    assert all(len(set(one)) == 3 for one in some)
    assert parts[:3] not in some
    assert some == drawn_sets(parts, parts[:3], 5, 0) != drawn_sets(parts, parts[:3], 5, 1)
    assert drawn_sets(parts, (), 5, 0) == drawn_sets(parts, parts, 5, 0) == []


def test_the_result_tells_everything():
    calls = []
    found = found_in(planted_agreement(), progress=lambda *state: calls.append(state))
    assert calls[-1][0] == 1
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(calls))
    checks = found.checks().set_index("set")
    assert list(checks.index) == ["whole", "circuit", "complement", "nothing", "random"]
    assert checks.parts.tolist() == [8, 1, 7, 0, 1]
    assert checks.change["complement"] == -0.5
    curve = found.curve()
    assert curve[curve.direction == "backward"].parts.tolist() == list(range(8, -1, -1))
    assert curve.held_accuracy[curve.parts >= 1].eq(1).all()
    text = found.to_text()
    assert "1 of 8 heads and MLPs" in text
    assert "circuit: L1H2" in text
    assert "0 as good as the circuit" in text
    assert found.plot().axes[0].get_xlabel() == "heads and MLPs kept"


def test_a_circuit_that_fits_its_own_pairs_only_is_told_so():
    found = found_in(planted_agreement())
    half = found.held_out
    worse = dataclasses.replace(half, sets=half.sets | {"circuit": -half.sets["whole"]})
    assert "does not keep" not in found.to_text()
    changed = dataclasses.replace(found, held_out=worse)
    assert not changed.holds
    assert "It does not keep 90% on held-out pairs" in changed.to_text()


def test_halves_share_no_pair_and_change_with_the_seed():
    first, second = (found_in(two_heads(), seed=seed) for seed in (0, 1))
    again = found_in(two_heads(), seed=0)
    assert first.chosen_on.count + first.held_out.count == len(PLANTED.paradigms["verb"])
    assert np.array_equal(again.held_out.sets["whole"], first.held_out.sets["whole"])
    assert not np.array_equal(second.held_out.sets["whole"], first.held_out.sets["whole"])


def test_ties_count_half_and_a_pair_that_the_tokenizer_cannot_tell_is_one():
    model = planted_agreement()
    same = [
        Pair("the zebra sleeps .", "the giraffe sleeps .", "same", "none", 0),
        *PLANTED.paradigms["verb"][:3],
    ]
    margins = EncodedPairs(model, same, "lm-eval").margins(model)
    assert margins[0] == 0
    assert decisions(margins).tolist() == [0.5, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(keep=0.0), "keep is 0.0; give a fraction above 0 and up to 1"),
        (dict(keep=1.5), "keep is 1.5"),
        (dict(held_out=1.0), "verb has 96 pairs, of which 96 would be held out"),
        (dict(held_out=math.nan), "held_out is nan"),
        (dict(chance=1.0), "chance is 1.0; give an accuracy from 0 to below 1"),
        (dict(order="gradiant"), "Did you mean 'gradient'"),
        (dict(how="mena"), "Unknown ablation 'mena'"),
        (dict(how="resample", order="gradient"), "with 'resample' use order='ablate'"),
        (dict(protocol="nativ"), "Did you mean 'native'"),
        (dict(limit=3), "verb has 3 pairs"),
        (dict(random_sets=-1), "random_sets is -1"),
    ],
)
def test_bad_settings_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        found_in(planted_agreement(), **options)


def test_bad_models_and_pairs_are_refused():
    model = planted_agreement()
    with pytest.raises(DataError, match="Did you mean 'verb'"):
        found_in(model, "verbs")
    long = [Pair("the cat near " * 6 + "sleeps .", "the cat", "long", "none", 7)]
    with pytest.raises(InputError, match="sentence_good of pair 7 in paradigm long has 20 tokens"):
        EncodedPairs(model, long)
    with pytest.raises(InputError, match="the model has no tokenizer"):
        EncodedPairs(build(d_vocab=30), long)
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.unembed_weight.fill_(math.nan)
    with pytest.raises(InputError, match=r"score of sentence_good of pair .* is not a number"):
        found_in(broken)


def test_half_precision_is_measured_in_single_and_left_as_it_was():
    model = planted_agreement().bfloat16()
    assert found_in(model).names == ("L1H2",)
    assert model.dtype == torch.bfloat16
    assert not model.has_listeners()


@pytest.mark.parametrize("layout", ["aa", "mm", "(am)(am)"])
def test_every_layout_can_be_searched(layout, tokenizer):
    model = build(layout=layout, d_vocab=len(tokenizer))
    encoded, parts = EncodedPairs(model, PAIRS.pairs, tokenizer=tokenizer), list_components(model.config)
    on = Measured(model, parts, replacement(model, parts, "zero"), encoded)
    assert set(on.slopes(parts)) == set(parts)
    assert np.isfinite(on.margins(())).all()

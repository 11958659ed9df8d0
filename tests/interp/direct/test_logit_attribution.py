"""Parts of a logit sum to it in every architecture, down to neurons and single biases; planted heads are found."""

import copy

import numpy as np
import planted_agreement
import pytest
import torch
from planted_heads import planted
from small_models import VARIANTS, build, marked

from workbench.errors import InputError
from workbench.interp.attribution import attribute_logits, attribute_pair, attribute_text
from workbench.interp.lens import answer_curve

PAIR = ("The cat likes the ball.", "The cats like the")
# Sums in float64 over some 150 parts of order 10.
EXACT = 1e-9


@pytest.fixture(params=marked(VARIANTS))
def variant(request, unchecked):
    return build(**VARIANTS[request.param])


def test_neurons_and_biases_sum_to_the_logits(variant):
    tokens = torch.randint(4, 61, (2, 7), generator=torch.Generator().manual_seed(0))
    places, rows = torch.tensor([6, 3]), torch.arange(2)
    right, wrong = torch.tensor([5, 6]), torch.tensor([7, 8])
    with torch.no_grad():
        logits = variant(tokens)[rows, places]
    options = dict(position=places.tolist(), neurons=True, biases=True)
    one = attribute_logits(variant, tokens, right, **options)
    np.testing.assert_allclose(one.logits, logits[rows, right], rtol=0, atol=EXACT)
    assert np.abs(one.rest).max() < EXACT
    two = attribute_logits(variant, tokens, right, wrong, **options)
    np.testing.assert_allclose(two.logits, logits[rows, right] - logits[rows, wrong], rtol=0, atol=EXACT)
    assert np.abs(two.rest).max() < EXACT
    neurons = sum(component.kind == "neuron" for component in two.components)
    assert neurons == variant.config.mlp_width * sum("m" in kind for kind in variant.config.blocks)


def test_every_bias_of_a_model_is_named_once(tokenizer):
    model = build(d_vocab=len(tokenizer), unembed_bias=True, norm_place="normformer")
    model.tokenizer = tokenizer
    found = attribute_logits(model, "The cat", " likes", biases=True)
    labels = [component.label for component in found.components if component.kind == "bias"]
    each = ["ln1_post.b", "b_O", "b_out"]
    assert sorted(labels) == sorted(["b_U", "ln_final.b", *[f"L{i} {name}" for i in (0, 1) for name in each]])
    value = dict(zip([c.label for c in found.components], found.contributions[0], strict=True))
    assert value["b_U"] == pytest.approx(
        model.unembed_bias[model.to_single_token(" likes")].item(), abs=EXACT
    )


@pytest.fixture
def causal(tokenizer):
    model = build(d_vocab=len(tokenizer))
    model.tokenizer = tokenizer
    return model


@pytest.mark.parametrize("fields", [{}, {"gated": True}, {"mlp_depth": 2}, {"norm": "RMSNorm"}], ids=str)
def test_a_neuron_is_its_activation_on_its_way_to_the_logit(tokenizer, fields):
    """a_i (W_out[i] * gain) W_U / scale, W_out centred for LayerNorm."""
    model = build(d_vocab=len(tokenizer), **fields)
    ids = torch.randint(4, 60, (1, 6), generator=torch.Generator().manual_seed(1))
    _, cache = model.run_with_cache(ids)
    found = attribute_logits(model, ids, 9, 11, neurons=True)
    for layer in (0, 1):
        rows = model.blocks[layer].mlp.W_out
        rows = rows if model.config.norm == "RMSNorm" else rows - rows.mean(-1, keepdim=True)
        towards = (
            (model.W_U[:, 9] - model.W_U[:, 11]) * model.ln_final.w / cache["ln_final.hook_scale"][0, -1]
        )
        expected = cache[f"blocks.{layer}.mlp.hook_post"][0, -1] * (rows @ towards)
        mine = [i for i, c in enumerate(found.components) if c.kind == "neuron" and c.layer == layer]
        np.testing.assert_allclose(found.contributions[0, mine], expected.detach(), rtol=0, atol=EXACT)


@pytest.mark.usefixtures("unchecked")
def test_neurons_of_a_pair_sum_to_its_difference(model, tokenizer):
    found = attribute_pair(model, *PAIR, tokenizer=tokenizer, neurons=True, biases=True)
    assert abs(found.rest) < EXACT
    assert abs(found.rest_at_place) < EXACT
    assert np.abs(found.bad.rest).max() < EXACT
    whole = attribute_pair(model, *PAIR, tokenizer=tokenizer)
    names = dict(zip(whole.components, whole.whole, strict=True))
    for component, value in zip(found.folded().components, found.folded().whole, strict=True):
        assert value == pytest.approx(names[component], abs=EXACT), component


def test_a_dead_neuron_is_zero_and_permuted_neurons_permute(causal):
    other, order = copy.deepcopy(causal), torch.randperm(48, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for model in (causal, other):
            model.blocks[0].mlp.out_weight[:, 5] = 0
        mlp = other.blocks[0].mlp
        mlp.in_weight.copy_(mlp.in_weight[order])
        mlp.b_in.copy_(mlp.b_in[order])
        mlp.out_weight.copy_(mlp.out_weight[:, order])
    one, two = (
        attribute_logits(model, "The cat", " likes", " like", neurons=True)
        .to_frame()
        .set_index("component")
        .contribution
        for model in (causal, other)
    )
    assert one["L0N5"] == 0
    assert (one[[f"L0N{i}" for i in range(48) if i != 5]] != 0).all()
    for new, old in enumerate(order.tolist()):
        assert two[f"L0N{new}"] == pytest.approx(one[f"L0N{old}"], abs=EXACT)
    rest = [name for name in one.index if not name.startswith("L0N")]
    np.testing.assert_allclose(one[rest], two[rest], rtol=0, atol=EXACT)


def test_the_planted_agreement_head_is_all_there_is():
    model = planted_agreement.planted_agreement()
    for pairs in planted_agreement.pairs().paradigms.values():
        for pair in pairs[:6]:
            found = attribute_pair(model, pair.sentence_good, pair.sentence_bad, neurons=True)
            frame = found.to_frame().set_index("component").whole
            assert frame["L1H2"] == pytest.approx(found.difference, abs=EXACT)
            assert frame["L1H2"] > 1
            np.testing.assert_allclose(frame.drop("L1H2"), 0, atol=1e-12)


def _agreement():
    """Prompts up to the verb, and the right and the wrong verb."""
    verbs = planted_agreement.pairs().paradigms["verb"]
    prompts = [" ".join(pair.sentence_good.split()[:-2]) for pair in verbs]
    return prompts, *(
        [getattr(pair, side).split()[-2] for pair in verbs] for side in ("sentence_good", "sentence_bad")
    )


def test_prompts_find_the_planted_head_and_an_untrained_model_has_none():
    prompts, right, wrong = _agreement()
    found = attribute_logits(planted_agreement.planted_agreement(), prompts, right, wrong)
    top = found.top()
    assert top.component[0] == "L1H2"
    assert top["low"][0] > 7.9  # twice the gain of 4, whatever the prompt
    assert (top[["mean", "low", "high"]].iloc[1:].abs() < 1e-12).all(None)
    control = attribute_logits(planted_agreement.untrained(), prompts, right, wrong).top(20)
    heads = control[control.kind == "head"]
    assert len(heads) == 6
    # Singular and plural subjects stand equally often, so what a head adds to one it takes from the other.
    assert ((heads["low"] < 0.08) & (heads["high"] > -0.08)).all()


def test_the_planted_induction_head_is_found():
    model = planted()
    sequence = torch.randperm(26, generator=torch.Generator().manual_seed(3))[:10]
    tokens = torch.cat([sequence, sequence[:4]])[None]
    found = attribute_logits(model, tokens, int(sequence[4]), int(sequence[7]))
    top = found.top(30)
    assert top.component[0] == "L1H2"
    assert top["mean"][0] == pytest.approx(1.0, abs=1e-6)
    assert (top["mean"].iloc[1:].abs() < 1e-6).all()


def test_positions_and_masks(causal, tokenizer):
    whole = attribute_logits(causal, "The cat likes", 5)
    assert whole.positions.tolist() == [causal.to_tokens("The cat likes").shape[1] - 1]
    for position in (2, -2):
        found = attribute_logits(causal, ["The cat likes", "Tom"], [5, 6], position=[position, 1])
        length = causal.to_tokens("The cat likes").shape[1]
        assert found.positions.tolist() == [position % length, 1]
        plain = causal("The cat likes")[0, position, 5]
        assert found.logits[0] == pytest.approx(plain.item(), abs=EXACT)
        assert np.abs(found.rest).max() < EXACT
    masked = build(d_vocab=len(tokenizer), attention="bidirectional")
    masked.tokenizer = tokenizer
    found = attribute_logits(masked, "The<mask> likes", " cat", " cats")
    assert found.positions.tolist() == [causal.to_tokens("The").shape[1]]
    assert np.abs(found.rest).max() < EXACT


def test_padding_changes_nothing(tokenizer):
    masked = build(d_vocab=len(tokenizer), attention="bidirectional")
    masked.tokenizer = tokenizer
    prompts = ["The<mask> likes", "The girls that helped the<mask> are happy."]
    together = attribute_logits(masked, prompts, " cat", " cats")
    curve = answer_curve(masked, prompts, " cat", " cats")
    for index, prompt in enumerate(prompts):
        alone = attribute_logits(masked, prompt, " cat", " cats")
        np.testing.assert_allclose(together.contributions[index], alone.contributions[0], atol=EXACT)
        good = answer_curve(masked, prompt, " cat", " cats").good
        np.testing.assert_allclose(curve.good[index], good[0], atol=EXACT)


def test_shapes_are_checked_and_half_precision_is_computed_in_single(causal):
    half = copy.deepcopy(causal).bfloat16()
    found = attribute_logits(half, "The cat", " likes", neurons=True)
    assert np.abs(found.rest).max() < 1e-4  # float32 sums of order 10
    assert half.dtype == torch.bfloat16
    assert not half.has_listeners()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(right="likes the"), "tokens, not one"),
        (dict(right=" likes", wrong=" likes"), "the same token"),
        (dict(right=9999), "is not in the vocabulary"),
        (dict(right=[5, 6]), "2 right answers were given for 1 pairs"),
        (dict(right=5, position=40), "position 40 is outside prompt 0"),
        (dict(right=5, position=-30), "position -30 is outside prompt 0"),
        (dict(right=5, position=[1, 2]), "2 positions were given for 1 prompts"),
        (dict(right=5, prompts="The cat " * 30), "the model's context is 24"),
    ],
    ids=str,
)
def test_bad_input_is_refused_in_words(causal, options, words):
    prompts = options.get("prompts", "The cat")
    rest = {name: value for name, value in options.items() if name != "prompts"}
    with pytest.raises(InputError, match=words):
        attribute_logits(causal, prompts, **rest)


def test_a_masked_prompt_without_its_mask_is_refused(tokenizer):
    model = build(d_vocab=len(tokenizer), attention="bidirectional")
    model.tokenizer = tokenizer
    with pytest.raises(InputError, match="put one <mask> into each prompt"):
        attribute_logits(model, "The cat", " likes")


def test_frame_and_plots(causal, tokenizer):
    pytest.importorskip("matplotlib").use("Agg")
    found = attribute_logits(causal, ["The cat", "Tom ran home"], " likes", " like", neurons=True)
    frame = found.to_frame()
    assert list(frame.columns) == ["prompt", "component", "kind", "layer", "head", "neuron", "contribution"]
    assert frame.groupby("prompt").contribution.sum().to_numpy() == pytest.approx(found.logits, abs=EXACT)
    ax = found.plot(count=7).axes[0]
    assert len(ax.patches) == 7
    assert ax.patches[0].get_width() == pytest.approx(found.top(1)["mean"][0])
    assert "frozen" in ax.get_xlabel()
    assert "like" in ax.get_title()
    pair = attribute_pair(causal, *PAIR, tokenizer=tokenizer, neurons=True)
    ax = pair.plot().axes[0]
    whole = attribute_pair(causal, *PAIR, tokenizer=tokenizer).to_frame().set_index("component").at_place
    assert f"{whole['L0 MLP']:+.2f}" in [text.get_text() for text in ax.texts]
    assert "frozen" in ax.get_title()
    text = attribute_text(causal, "Tom ran home.", tokenizer=tokenizer, neurons=True)
    assert len(text.plot().axes[0].get_yticklabels()) == len(text.folded().components) < len(text.components)
    assert list(pair.to_frame().columns) == [
        "component",
        "kind",
        "layer",
        "head",
        "neuron",
        "at_place",
        "whole",
    ]

"""Contributions sum to what they explain, agree with transformer-lens, and find a planted component."""

import numpy as np
import pytest
import torch
from small_models import VARIANTS, build
from transformer_lens.tools.analysis import direct_logit_attribution

from workbench.errors import InputError
from workbench.evals.scoring import score_sentences
from workbench.interp.attribution import attribute_pair, attribute_text, first_difference

PAIRS = [
    ("The cat likes the ball.", "The cat like the ball."),
    ("The girls that helped the boy are happy.", "The girls that helped the boy is sad."),
    ("The cats like the ball.", "The cats likes the ball near a tree."),
    ("Tom ran", "Tom ran home."),
    ("The dog was sad near the tree.", "The dog was"),
    ("A cat", "The cat"),
]
# Summation in float64 over some 20 parts, logits of order 10, and a path integral complete to 1e-12.
EXACT = 1e-9


@pytest.mark.parametrize(("good", "bad"), PAIRS)
def test_contributions_sum_to_the_difference_of_the_pair(model, tokenizer, good, bad):
    found = attribute_pair(model, good, bad, tokenizer=tokenizer)
    assert abs(found.rest) < EXACT
    assert abs(found.rest_at_place) < EXACT
    assert np.abs(found.good.rest).max() < EXACT


@pytest.mark.parametrize(("good", "bad"), PAIRS)
def test_the_difference_is_the_one_that_blimp_scores(model, tokenizer, good, bad):
    found = attribute_pair(model, good, bad, tokenizer=tokenizer)
    scores = score_sentences(model, [good, bad], tokenizer=tokenizer)
    assert found.difference == pytest.approx(scores.log_probs[0] - scores.log_probs[1], abs=EXACT)
    assert found.good.log_prob == pytest.approx(scores.log_probs[0], abs=EXACT)


def test_other_protocols_are_followed(causal, tokenizer):
    good, bad = PAIRS[0]
    found = attribute_pair(causal, good, bad, tokenizer=tokenizer, protocol="lm-eval")
    scores = score_sentences(causal, [good, bad], "lm-eval", tokenizer=tokenizer)
    assert found.difference == pytest.approx(scores.log_probs[0] - scores.log_probs[1], abs=EXACT)
    assert abs(found.rest) < EXACT


def test_shown_position_is_the_plain_logit_difference(causal, tokenizer):
    """Same prefix, same normaliser: the log-probability difference is the logit difference."""
    found = attribute_pair(causal, *PAIRS[0], tokenizer=tokenizer)
    ids = [tokenizer.bos_token_id, *found.good.ids[: found.place]]
    logits = causal(torch.tensor([ids]))[0, -1]
    expected = logits[found.good.ids[found.place]] - logits[found.bad.ids[found.place]]
    assert found.same_context
    assert found.difference_at_place == pytest.approx(expected.item(), abs=EXACT)
    assert found.uniform_at_place == 0


def test_contributions_at_the_shown_position_need_no_path(causal, tokenizer):
    """There the path integral must drop out: each part is its own product with the logits' direction."""
    found = attribute_pair(causal, *PAIRS[0], tokenizer=tokenizer)
    ids = torch.tensor([[tokenizer.bos_token_id, *found.good.ids[: found.place]]])
    _, cache = causal.run_with_cache(ids)
    good, bad = found.good.ids[found.place], found.bad.ids[found.place]
    direction = (causal.W_U[:, good] - causal.W_U[:, bad]) * causal.ln_final.w
    direction = (direction - direction.mean()) / cache["ln_final.hook_scale"][0, -1]
    frame = found.to_frame().set_index("component").at_place
    assert frame["embed"] == pytest.approx((cache["hook_embed"][0, -1] @ direction).item(), abs=EXACT)
    mlp = cache["blocks.1.hook_mlp_out"][0, -1] - causal.blocks[1].mlp.b_out
    assert frame["L1 MLP"] == pytest.approx((mlp @ direction).item(), abs=EXACT)
    head = cache["blocks.0.attn.hook_z"][0, -1, 2] @ causal.blocks[0].attn.W_O[2]
    assert frame["L0H2"] == pytest.approx((head @ direction).item(), abs=EXACT)


LENS = [
    "default", "llama-like", "gpt-neo-like", "default / n_key_value_heads=2", "default / d_value=12",
    "default / positions=sinusoidal", "default / positions=shaw", "default / layout=(am)(am)",
]  # fmt: skip
"""Causal pre-norm models without a bias of the unembedding, which transformer-lens attributes too."""


@pytest.mark.parametrize("variant", LENS)
def test_agrees_with_transformer_lens(variant, tokenizer):
    """Its numbers have no normaliser, so a pair is compared; its attention and MLP parts hold biases."""
    model = build(**VARIANTS[variant] | {"d_vocab": len(tokenizer)})
    found = attribute_pair(model, *PAIRS[0], tokenizer=tokenizer)
    frame = found.to_frame().set_index("component").at_place
    ids = torch.tensor([[tokenizer.bos_token_id, *found.good.ids[: found.place]]])
    _, cache = model.run_with_cache(ids)
    answers = dict(
        answer_tokens=int(found.good.ids[found.place]), incorrect_tokens=int(found.bad.ids[found.place])
    )
    theirs = direct_logit_attribution(model, cache=cache, unit="head", **answers)
    for label, value in zip(theirs.labels, theirs.attribution.flatten().tolist(), strict=True):
        if label != "remainder":
            assert frame[label] == pytest.approx(value, abs=EXACT), label
    theirs = direct_logit_attribution(model, cache=cache, unit="component", **answers)
    parts = dict(zip(theirs.labels, theirs.attribution.flatten().tolist(), strict=True))
    assert frame["embed"] == pytest.approx(parts["embed"], abs=EXACT)
    if "pos_embed" in frame.index:
        assert frame["pos_embed"] == pytest.approx(parts["pos_embed"], abs=EXACT)
    norm_bias = 0.0
    if model.config.norm == "LayerNorm":
        direction = model.W_U[:, answers["answer_tokens"]] - model.W_U[:, answers["incorrect_tokens"]]
        norm_bias = (model.ln_final.b @ direction).item()
    assert found.difference_at_place == pytest.approx(sum(parts.values()) + norm_bias, abs=EXACT)
    outputs = sum(value for name, value in parts.items() if name.endswith(("attn_out", "mlp_out")))
    inner = [name for name in frame.index if name not in ("embed", "pos_embed", "biases")]
    assert frame[inner].sum() + frame["biases"] == pytest.approx(outputs + norm_bias, abs=EXACT)


def test_finds_a_planted_head(tokenizer):
    """Only one head writes anything, along the good token's direction: it gets everything."""
    model = build(d_vocab=len(tokenizer), tied=False)
    good, bad = PAIRS[0]
    place = first_difference(tokenizer(good)["input_ids"], tokenizer(bad)["input_ids"])
    with torch.no_grad():
        for block in model.blocks:
            block.attn.out_weight.zero_()
            block.mlp.out_weight.zero_()
        wanted = (
            model.W_U[:, tokenizer(good)["input_ids"][place]]
            - model.W_U[:, tokenizer(bad)["input_ids"][place]]
        )
        model.blocks[1].attn.W_O[3].copy_(torch.outer(torch.ones(model.config.head_width), wanted))
    frame = attribute_pair(model, good, bad, tokenizer=tokenizer).to_frame().set_index("component").at_place
    heads = frame[[name for name in frame.index if "H" in name]]
    assert heads.abs().idxmax() == "L1H3"
    assert abs(heads["L1H3"]) > 0.1
    assert (heads.drop("L1H3") == 0).all()
    assert (frame[["L0 MLP", "L1 MLP"]] == 0).all()


def test_permuting_heads_permutes_the_answer(causal, tokenizer):
    import copy

    shuffled, order = copy.deepcopy(causal), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        attn, old = shuffled.blocks[0].attn, causal.blocks[0].attn
        width = causal.config.head_width
        rows = old.qkv_weight.unflatten(0, (3, old.n_heads, width))[:, order].flatten(0, 2)
        attn.qkv_weight.copy_(rows)
        attn.qkv_bias.copy_(old.qkv_bias.unflatten(0, (3, old.n_heads, width))[:, order].flatten())
        attn.out_weight.copy_(old.out_weight.unflatten(1, (old.n_heads, width))[:, order].flatten(1))
    before = attribute_pair(causal, *PAIRS[0], tokenizer=tokenizer).to_frame().set_index("component").whole
    after = attribute_pair(shuffled, *PAIRS[0], tokenizer=tokenizer).to_frame().set_index("component").whole
    for new, source in enumerate(order.tolist()):
        assert after[f"L0H{new}"] == pytest.approx(before[f"L0H{source}"], abs=EXACT)


def test_swapping_the_sentences_changes_every_sign(model, tokenizer):
    one = attribute_pair(model, *PAIRS[2], tokenizer=tokenizer)
    other = attribute_pair(model, *PAIRS[2][::-1], tokenizer=tokenizer)
    np.testing.assert_allclose(one.whole, -other.whole, atol=EXACT)
    assert one.place == other.place
    assert one.difference == pytest.approx(-other.difference)


def test_a_sentence_that_goes_on_shows_its_first_extra_token(causal, tokenizer):
    found = attribute_pair(causal, "Tom ran", "Tom ran home.", tokenizer=tokenizer)
    assert found.token_good is None
    assert found.token_bad is not None
    assert not found.same_context
    longer = len(found.bad.ids) - len(found.good.ids)
    assert found.uniform_whole == pytest.approx(longer * np.log(len(tokenizer)))
    assert found.difference_at_place == pytest.approx(-found.bad.log_probs[found.place])


def test_the_shared_beginning_cancels_to_the_bit(causal, tokenizer):
    found = attribute_pair(causal, *PAIRS[1], tokenizer=tokenizer)
    np.testing.assert_array_equal(
        found.good.contributions[: found.place], found.bad.contributions[: found.place]
    )


def test_share_of_the_shown_position(causal, tokenizer):
    found = attribute_pair(causal, *PAIRS[0], tokenizer=tokenizer)
    assert found.share == pytest.approx(found.difference_at_place / found.difference)
    last = attribute_pair(causal, "The cat likes", "The cat like", tokenizer=tokenizer)
    assert last.share == pytest.approx(1.0)


def test_a_masked_pair_with_one_word_changed_shares_its_context(tokenizer):
    model = build(d_vocab=len(tokenizer), attention="bidirectional")
    # One token for each of the two words, so the masked copies are the same.
    found = attribute_pair(model, "The cat likes the ball.", "The cat like the ball.", tokenizer=tokenizer)
    assert found.same_context == (len(found.good.ids) == len(found.bad.ids))
    assert found.pll == "original"
    other = attribute_pair(
        model, "The cat likes the ball.", "The dog was sad.", tokenizer=tokenizer, pll="within_word_l2r"
    )
    assert not other.same_context
    assert abs(other.rest) < EXACT


def test_a_protocol_without_masked_models_is_refused_by_name(tokenizer):
    model = build(d_vocab=len(tokenizer), attention="bidirectional")
    with pytest.raises(InputError, match="'lm-eval' is not defined for masked models"):
        attribute_pair(model, *PAIRS[0], tokenizer=tokenizer, protocol="lm-eval")


def test_text_sums_and_reads_as_the_model(model, tokenizer):
    found = attribute_text(model, "The girls that helped the boy are happy.", tokenizer=tokenizer)
    assert np.abs(found.rest).max() < EXACT
    assert "".join(found.tokens) == "The girls that helped the boy are happy."
    frame = found.to_frame()
    assert len(frame) == len(found.ids) * len(found.components)
    parts = frame[frame.position == 2].nats.sum() + found.uniform
    assert parts == pytest.approx(found.log_probs[2], abs=EXACT)


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("The cat.", "The cat.", "the two sentences are equal"),
        ("", "The cat.", "the first sentence is empty"),
        ("The cat.", "   ", "the second sentence is empty"),
        ("The cat " * 30, "The cat.", "the first sentence has .* tokens, the model's context has 24"),
    ],
)
def test_bad_sentences_are_refused_in_words(causal, tokenizer, good, bad, words):
    with pytest.raises(InputError, match=words):
        attribute_pair(causal, good, bad, tokenizer=tokenizer)


def test_no_tokenizer_is_refused(causal):
    with pytest.raises(InputError, match="no tokenizer"):
        attribute_text(causal, "The cat.", tokenizer=None)


def test_nothing_stays_on_the_model(causal, tokenizer):
    causal.train()
    attribute_pair(causal, *PAIRS[0], tokenizer=tokenizer)
    assert not causal.has_listeners()
    assert causal.training
    causal.eval()


def test_half_precision_is_computed_in_single(causal, tokenizer):
    import copy

    half = copy.deepcopy(causal).bfloat16()
    found = attribute_pair(half, *PAIRS[0], tokenizer=tokenizer)
    assert abs(found.rest) < 1e-4  # float32 sums of order 10
    assert half.dtype == torch.bfloat16


def test_sharp_logits_still_sum(tokenizer):
    """A model that is sure of itself makes the path integral hard: its nodes must grow until it is complete."""
    model = build(d_vocab=len(tokenizer))
    with torch.no_grad():
        model.ln_final.w.mul_(40)
    found = attribute_text(model, "The cats like the ball.", tokenizer=tokenizer)
    assert found.log_probs.min() < -100
    assert np.abs(found.rest).max() < 1e-8  # of log-probabilities over 100


def test_frame_and_names(causal, tokenizer):
    found = attribute_pair(causal, *PAIRS[0], tokenizer=tokenizer)
    frame = found.to_frame()
    assert list(frame.columns) == ["component", "kind", "layer", "head", "at_place", "whole"]
    assert list(frame.component[:3]) == ["embed", "pos_embed", "L0H0"]
    assert frame.component.iloc[-1] == "biases"
    assert frame.set_index("component").loc["L1H3", ["layer", "head"]].tolist() == [1, 3]
    top = found.top(3)
    assert abs(top[0][1]) == frame.at_place.abs().max()


def test_plots_draw_the_numbers(causal, tokenizer):
    pytest.importorskip("matplotlib").use("Agg")
    found = attribute_pair(causal, *PAIRS[0], tokenizer=tokenizer)
    ax = found.plot().axes[0]
    texts = [text.get_text() for text in ax.texts]
    assert len(texts) == 2 * 5
    value = found.to_frame().set_index("component").at_place["L0H0"]
    assert texts[0] == f"{value:+.2f}"
    limits = ax.images[0].get_clim()
    assert limits[0] == -limits[1]
    assert found.good.plot().axes[0].images[0].get_array().shape == (
        len(found.components),
        len(found.good.ids),
    )

"""A lens ends in the model's own output, in every architecture; planted circuits show at their layer."""

import numpy as np
import planted_agreement
import pytest
import torch
from planted_heads import planted
from small_models import SINGLE, build

from workbench.errors import InputError
from workbench.evals.scoring import score_sentences
from workbench.interp.attribution import attribute_pair
from workbench.interp.lens import answer_curve, lens_curve, lens_loss, lens_points, logit_lens
from workbench.interp.texts import TextBatch

PAIR = ("The cat likes the ball.", "The cats like the")
EXACT = 1e-9


def own(model, tokenizer):
    model.tokenizer = tokenizer
    return model


@pytest.fixture(params=SINGLE)
def variant(request, tokenizer, unchecked):
    return own(build(**SINGLE[request.param] | {"d_vocab": len(tokenizer)}), tokenizer)


def test_the_last_layer_is_the_model(variant):
    """And each earlier one is what the model says without its later blocks, where that can be had."""
    text = "The cat likes the ball."
    found = logit_lens(variant, text, sublayers=True)
    config = variant.config
    if config.objective == "clm":
        with torch.no_grad():
            plain = variant(text)[0].log_softmax(-1)
        np.testing.assert_array_equal(found.top[-1], plain.argmax(-1))
        np.testing.assert_allclose(found.top_prob[-1], plain.max(-1).values.exp(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.entropy[-1], -(plain.exp() * plain).sum(-1), rtol=0, atol=EXACT)
        assert np.isnan(found.target_log_prob[:, -1]).all()
        total = found.target_log_prob[-1, :-1].sum()
    else:
        total = found.target_log_prob[-1].sum()
    assert total == pytest.approx(score_sentences(variant, [text]).log_probs[0], abs=EXACT)
    assert (found.kl[-1] == 0).all()
    assert (found.kl[:-1].max(1) > 1e-6).all()
    assert len(found.points) == 1 + len(config.blocks) + sum(kind == "am" for kind in config.blocks)


@pytest.mark.parametrize("name", SINGLE)
def test_a_layer_says_what_the_model_says_when_later_blocks_write_nothing(name, tokenizer, unchecked):
    fields = SINGLE[name]
    model = own(build(**fields | {"d_vocab": len(tokenizer)}), tokenizer)
    config = model.config
    if config.norm_place == "post" or config.residual == "weighted" or config.sharing != "none":
        pytest.skip("a block that writes nothing still norms or weighs the stream, or is an earlier one too")
    ids = torch.randint(4, 60, (1, 8), generator=torch.Generator().manual_seed(0))
    if config.objective == "mlm":
        ids[0, 3] = tokenizer.mask_token_id
    before = logit_lens(model, ids)
    with torch.no_grad():
        for name, parameter in model.blocks[-1].named_parameters():
            if "out" in name or name.startswith("ln1_post"):
                parameter.zero_()
    after = logit_lens(model, ids)
    np.testing.assert_allclose(after.entropy[-1], before.entropy[-2], rtol=0, atol=EXACT)
    np.testing.assert_array_equal(after.top[-1], before.top[-2])


@pytest.mark.usefixtures("unchecked")
def test_the_curve_ends_in_the_score_of_the_pair(model, tokenizer):
    model = own(model, tokenizer)
    curve = lens_curve(model, *PAIR, sublayers=True)
    assert curve.difference[0, -1] == pytest.approx(
        attribute_pair(model, *PAIR, tokenizer=tokenizer).difference, abs=EXACT
    )
    assert curve.good.shape == (1, len(lens_points(model.config, True)))
    model.tokenizer = None


def test_answers_end_in_the_logit_difference(causal, tokenizer):
    model = own(causal, tokenizer)
    prompts = ["The cat", "Tom ran home."]
    curve = answer_curve(model, prompts, " likes", " like")
    good, bad = (model.to_single_token(word) for word in (" likes", " like"))
    for row, prompt in enumerate(prompts):
        logits = model(prompt)[0, -1]
        assert curve.difference[row, -1] == pytest.approx((logits[good] - logits[bad]).item(), abs=EXACT)
    assert curve.names == (" likes", " like")
    model.tokenizer = None


def test_a_planted_head_decides_at_its_layer():
    model = planted_agreement.planted_agreement()
    pairs = planted_agreement.pairs().paradigms["verb"][:20]
    sides = [[getattr(pair, name) for pair in pairs] for name in ("sentence_good", "sentence_bad")]
    curve = lens_curve(model, *sides, sublayers=True)
    assert curve.points == ("embed", "L0 mid", "L0", "L1 mid", "L1")
    assert set(curve.decided) == {"L1 mid"}
    np.testing.assert_allclose(curve.difference[:, :3], 0, atol=1e-12)
    assert (curve.difference[:, 3] > 7.9).all()
    frame = curve.to_frame()
    assert frame.accuracy.tolist() == [0.5, 0.5, 0.5, 1.0, 1.0]
    assert (frame.low[3:] > 7).all()


def test_induction_shows_behind_the_second_layer():
    model = planted()
    sequence = torch.randperm(26, generator=torch.Generator().manual_seed(3))[:10]
    tokens = torch.cat([sequence, sequence[:5]])[None]
    curve = answer_curve(model, tokens, int(sequence[5]), int(sequence[8]))
    np.testing.assert_allclose(curve.difference[0], [0, 0, 1], atol=1e-6)
    assert curve.decided == ("L1",)


def test_loss_is_the_mean_over_text(causal, tokenizer):
    model = own(causal, tokenizer)
    texts = ["The cat likes the ball.", "Tom ran home. The dog was sad."]
    found = lens_loss(model, texts)
    eos, total, count = tokenizer.eos_token_id, 0.0, 0
    kl = np.zeros(3)
    for text in texts:
        ids = torch.cat([model.to_tokens(text), torch.tensor([[eos]])], 1)
        reading = logit_lens(model, ids)
        total += np.nansum(reading.target_log_prob, 1)
        kl += reading.kl[:, :-1].sum(1)
        count += ids.shape[1] - 1
    np.testing.assert_allclose(found.loss, -total / count, rtol=0, atol=EXACT)
    np.testing.assert_allclose(found.kl, kl / count, rtol=0, atol=EXACT)
    assert found.tokens == count
    assert found.agreement[-1] == 1
    model.tokenizer = None


def test_logits_are_never_held_for_all_tokens(causal, monkeypatch):
    """The answer does not depend on the size of a part."""
    tokens = torch.randint(4, 60, (6, 20), generator=torch.Generator().manual_seed(1))
    batch = [TextBatch(tokens, tokens.roll(-1, 1))]
    whole = lens_loss(causal, batch)
    seen, unembed = [], type(causal).unembed
    monkeypatch.setattr("workbench.interp.lens.LOGITS_AT_ONCE", 16)
    monkeypatch.setattr(type(causal), "unembed", lambda self, x: seen.append(len(x)) or unembed(self, x))
    parts = lens_loss(causal, batch)
    assert max(seen) == 16
    np.testing.assert_allclose(parts.kl, whole.kl, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (["The cat", "The dog"], "one text at a time; found 2"),
        (torch.zeros(2, 4, dtype=torch.long), "one text at a time; found 2"),
        ("The cat " * 30, "the model's context is 24"),
        (torch.full((1, 4), 999), "the vocabulary has"),
    ],
    ids=["list", "rows", "long", "ids"],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_refused_in_words(causal, tokenizer, text, words):
    model = own(causal, tokenizer)
    with pytest.raises(InputError, match=words):
        logit_lens(model, text)
    model.tokenizer = None


def test_a_masked_model_needs_something_hidden(tokenizer):
    model = own(build(d_vocab=len(tokenizer), attention="bidirectional"), tokenizer)
    with pytest.raises(InputError, match="nothing is hidden from this masked model"):
        logit_lens(model, torch.tensor([[1, 5, 6]]))
    found = logit_lens(model, "The<mask> likes")
    assert found.tokens == ("<mask>",)
    assert found.targets == (None,)
    with pytest.raises(InputError, match="1 good sentences and 2 bad ones do not make pairs"):
        lens_curve(model, "The cat", ["The dog", "A dog"])


def test_frames_and_plots(causal, tokenizer):
    pytest.importorskip("matplotlib").use("Agg")
    model = own(causal, tokenizer)
    found = logit_lens(model, "The $cat$ likes", sublayers=True)
    frame = found.to_frame()
    assert len(frame) == found.top.size
    assert frame.top_prob.iloc[0] == found.top_prob[0, 0]
    for value in ("top_prob", "target_log_prob", "entropy", "kl"):
        ax = found.plot(value=value).axes[0]
        ax.figure.canvas.draw()
        assert ax.images[0].get_array().shape == found.top.shape
    assert [label.get_text() for label in ax.get_yticklabels()] == list(found.points)
    loss = lens_loss(model, ["The cat likes the ball."])
    np.testing.assert_array_equal(loss.plot().axes[0].lines[0].get_ydata(), loss.kl)
    curve = lens_curve(model, ["The cat likes", "A cat"], ["The cat like", "The cats"])
    ax = curve.plot().axes[0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), curve.difference.mean(0))
    assert "log p(good)" in ax.get_ylabel()
    model.tokenizer = None

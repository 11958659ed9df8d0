"""Promoted tokens are what a neuron does to the logits, and what its weights say."""

import numpy as np
import pytest
import torch
from small_models import SINGLE, VARIANTS, build, configuration

from workbench.errors import InputError
from workbench.interp.neurons.tokens import all_promoted_tokens, input_tokens, promoted_tokens

WITH_NEURONS = [
    name for name, fields in SINGLE.items() if any("m" in kind for kind in configuration(**fields).blocks)
]


def test_the_formula():
    """`(W_out[i] * gain) @ W_U`, W_out centred as LayerNorm does it, over the vocabulary centred too."""
    model = build(tied=False)
    for layer, neuron in ((0, 3), (1, 40)):
        vector = model.W_out[layer, neuron]
        logits = ((vector - vector.mean()) * model.ln_final.w) @ model.W_U
        scores = (logits - logits.mean()).detach()
        found = promoted_tokens(model, layer, neuron, 61)
        high, low = scores.sort(descending=True), scores.sort()
        assert [one.token for one in found.promoted] == high.indices.tolist()
        assert [one.token for one in found.suppressed] == low.indices.tolist()
        np.testing.assert_allclose([one.score for one in found.promoted], high.values, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", WITH_NEURONS)
def test_scores_are_what_a_little_more_of_the_neuron_does(name):
    """Where nothing but gains and a readout lies behind the last block, the direct slope of the logits is the
    scores over the run's denominators: all the tokens in the same order."""
    model = build(**VARIANTS[name])
    layer = max(index for index, kind in enumerate(model.config.blocks) if "m" in kind)
    found = promoted_tokens(model, layer, 7, model.config.d_vocab)
    assert {one.token for one in found.promoted} == set(range(model.config.d_vocab))
    if layer != model.config.n_layers - 1 or model.mlm_head is not None:
        return  # a later block, or the head's activation, has slopes of its own
    scores = torch.zeros(model.config.d_vocab, dtype=torch.float64)
    for one in found.promoted:
        scores[one.token] = one.score
    tokens = torch.randint(4, 61, (1, 6), generator=torch.Generator().manual_seed(1))
    kept = {}

    def fixed(x, hook):  # frozen at its value in the run, as if a weight
        return kept.setdefault(hook.name, x.detach())

    def more(x, hook):
        x = x.clone()
        x[0, -1, 7] += 1.0
        return x

    last = ["ln_final"] if model.config.norm_place != "post" else [f"blocks.{layer}.ln{n}" for n in (1, 2)]
    scales = [f"{norm}.hook_scale" for norm in last if f"{norm}.hook_scale" in model.hook_dict]
    hooks = [(scale, fixed) for scale in scales]
    with torch.no_grad():
        plain = model.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1]
        moved = model.run_with_hooks(tokens, fwd_hooks=[*hooks, (f"blocks.{layer}.mlp.hook_post", more)])[
            0, -1
        ]
    slope = moved - plain
    slope = slope - slope.mean()
    factor = (slope @ scores) / (scores @ scores)
    np.testing.assert_allclose(slope, factor * scores, rtol=0, atol=1e-9)
    assert factor > 0


@pytest.mark.parametrize(
    "name", ["default", "llama-like", "bert-like", "albert-like", "elc-like", "gpt-j-like"]
)
def test_all_at_once_are_one_by_one(name, monkeypatch):
    model = build(**VARIANTS[name])
    monkeypatch.setattr("workbench.interp.neurons.tokens.SCORES_AT_ONCE", 61 * 7)
    seen = []
    every = all_promoted_tokens(model, count=5, progress=lambda *update: seen.append(update))
    assert every.layers.tolist() == [0, 1]
    assert seen[-1] == (1.0, "96 of 96 neurons")
    assert len(seen) == 14
    for layer, neuron in ((0, 0), (0, 47), (1, 23)):
        one, same = promoted_tokens(model, layer, neuron, 5), every.of(layer, neuron)
        for mine, theirs in zip(one.promoted + one.suppressed, same.promoted + same.suppressed, strict=True):
            assert mine[:2] == theirs[:2]
            assert mine.score == pytest.approx(theirs.score, abs=1e-12)
    assert len(every.to_frame()) == 96
    only = all_promoted_tokens(model, layers=[1], count=5)
    assert only.of(1, 23) == every.of(1, 23)
    with pytest.raises(InputError, match="L0N3 was not read; the neurons read are N0 to N47 of L1"):
        only.of(0, 3)


def test_a_masked_models_head_has_its_slope():
    """The scores are the logits' slope where the normed stream is zero, but for the norms' denominators."""
    model = build(**VARIANTS["bert-like"] | {"activation": "relu"})
    with torch.no_grad():
        post_norm, head = model.blocks[1].ln2, model.mlm_head
        gate = (head.weight @ post_norm.b + head.bias > 0).double()
        centred = model.W_out[1, 4] - model.W_out[1, 4].mean()
        hidden = gate * (head.weight @ (centred * post_norm.w))
        logits = ((hidden - hidden.mean()) * head.ln.w) @ model.W_U
    found = promoted_tokens(model, 1, 4, 3)
    assert [one.token for one in found.promoted] == logits.topk(3).indices.tolist()
    assert found.promoted[0].score == pytest.approx(float(logits.max() - logits.mean()), abs=1e-12)


def test_planted_words(tokenizer):
    """A neuron that writes one token's vector promotes it; one that reads it is excited by it."""
    model = build(d_vocab=len(tokenizer), norm="none")
    model.tokenizer = tokenizer
    token = model.to_single_token(" the")
    with torch.no_grad():
        model.embed.W_E.copy_(torch.nn.functional.normalize(model.embed.W_E, dim=-1))
        model.blocks[1].mlp.out_weight[:, 2] = model.embed.W_E[token]
        model.blocks[0].mlp.in_weight[6] = -model.embed.W_E[token]
    best = promoted_tokens(model, 1, 2, 4).promoted[0]
    assert (best.token, best.text) == (token, " the")
    assert input_tokens(model, 0, 6, 4).suppressed[0].text == " the"
    assert " the" not in [one.text for one in promoted_tokens(model, 1, 3, 4).promoted]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", WITH_NEURONS)
def test_the_input_side(name):
    """Each token's score is the slope of the neuron's `pre` along its embedding, all norms' denominators one."""
    model = build(**VARIANTS[name])
    config = model.config
    layer = next(index for index, kind in enumerate(config.blocks) if "m" in kind)
    if config.mlp_depth > 1:
        with pytest.raises(InputError, match=f"L{layer}N5 reads other neurons .mlp_depth is"):
            input_tokens(model, layer, 5)
        return
    found = input_tokens(model, layer, 5, config.d_vocab)
    assert found.side == "input"
    scores = torch.zeros(config.d_vocab, dtype=torch.float64)
    for one in found.promoted:
        scores[one.token] = one.score

    def centred(norm, x):
        if norm is None:
            return x
        return (x - x.mean(-1, keepdim=True) if hasattr(norm, "b") else x) * norm.w

    block = model.blocks[layer]
    with torch.no_grad():
        x = centred(model.embed.norm, model.W_E)
        x = x if model.embed.up_weight is None else x @ model.embed.up_weight.T
        before = block.ln2
        if config.norm_place == "post":
            before = block.ln1 if block.kind == "am" else None
        weight = block.mlp.W_in if block.mlp.W_gate is None else block.mlp.W_gate
        expected = centred(before, x) @ weight[:, 5]
    np.testing.assert_allclose(scores, expected - expected.mean(), rtol=0, atol=1e-12)


def test_among_some_tokens():
    model = build()
    whole = promoted_tokens(model, 1, 5, 61)
    some = [3, 50, 7, 7, 20]
    expected = [one for one in whole.promoted if one.token in some]
    found = promoted_tokens(model, 1, 5, 4, among=some)
    assert found.promoted == tuple(expected)
    assert found.suppressed == tuple(reversed(expected))
    every = all_promoted_tokens(model, count=4, among=some).of(1, 5)
    assert [one.token for one in every.promoted] == [one.token for one in expected]
    assert {one.token for one in input_tokens(model, 0, 5, 2, among=[8, 9]).promoted} == {8, 9}
    with pytest.raises(InputError, match="Token ids run from 3 to 61; the vocabulary has 61"):
        promoted_tokens(model, 1, 5, 2, among=[3, 61])
    with pytest.raises(InputError, match="count must be 1 to 2, the size of the given tokens; found 10"):
        promoted_tokens(model, 1, 5, among=[3, 5])


def test_without_a_tokenizer_and_as_a_table():
    found = promoted_tokens(build(), 0, 1, 3)
    assert all(one.text == str(one.token) for one in found.promoted)
    frame = found.to_frame()
    assert list(frame) == ["end", "rank", "token", "text", "score"]
    assert frame.end.tolist() == ["promoted"] * 3 + ["suppressed"] * 3
    assert frame.score.is_monotonic_decreasing is False
    assert frame.score[:3].is_monotonic_decreasing
    assert frame.score[3:].is_monotonic_increasing


@pytest.mark.parametrize("call", [promoted_tokens, input_tokens])
def test_bad_input(call):
    model = build()
    with pytest.raises(InputError, match="L5N0 is out of range; the model has blocks L0 to L1"):
        call(model, 5, 0)
    with pytest.raises(InputError, match="L1N48 is out of range; block 1 has L1N0 to L1N47"):
        call(model, 1, 48)
    for count in (0, 62):
        with pytest.raises(
            InputError, match=f"count must be 1 to 61, the size of the vocabulary; found {count}"
        ):
            call(model, 1, 4, count)
    with pytest.raises(InputError, match="block 0 has no MLP"):
        call(build(layout="aamm"), 0, 1)

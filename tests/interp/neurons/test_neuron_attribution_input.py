"""What neurons are attributed to takes and gives: padded, many and some prompts, results, bad input."""

import copy

import numpy as np
import pytest
import torch
from small_models import build, configuration

from workbench.errors import InputError
from workbench.interp.metrics import Divergence, LogitDifference, SentenceLogProb
from workbench.interp.neurons.attribution import BASELINES, METHODS, TOKENS_AT_ONCE, attribute_neurons

EXACT = dict(rtol=0, atol=1e-9)  # float64: sums of products in another order
RIGHT, WRONG = 5, 6
ANSWERS = dict(right=RIGHT, wrong=WRONG)

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def prompts():
    return torch.randint(4, 61, (2, 3, 7), generator=torch.Generator().manual_seed(2))


def difference(logits):
    return logits[:, -1, RIGHT] - logits[:, -1, WRONG]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "fields", [{}, {"attention": "bidirectional", "positions": "t5"}], ids=["causal", "masked"]
)
def test_a_padded_prompt_scores_as_alone(tokenizer, method, fields):
    model = build(d_vocab=len(tokenizer), d_mlp=6, **fields)
    model.tokenizer = tokenizer
    texts = ["The cat likes the ball.", "A dog ran"]
    settings = dict(right=" the", wrong=".", method=method, steps=4)
    batch = attribute_neurons(model, texts, **settings)
    for row, text in enumerate(texts):
        alone = attribute_neurons(model, text, **settings)
        length = len(alone.tokens)
        np.testing.assert_allclose(batch.per_pair[row, :, :length], alone.per_pair[0], **EXACT)
        assert not batch.per_pair[row, :, length:].any()
        assert np.abs(alone.per_pair).max() > 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_some_layers_and_positions(prompts, method):
    """Chosen ones score as among all; integrated gradients move only what is chosen."""
    model, (clean, _) = build(d_mlp=6), prompts
    whole = attribute_neurons(model, clean, **ANSWERS, method=method, steps=8)
    some = attribute_neurons(model, clean, **ANSWERS, method=method, steps=8, layers=[1], positions=[4, 6])
    assert some.layers.tolist() == [1]
    assert some.positions.tolist() == [4, 6]
    if method == "integrated":
        assert np.abs(some.rest).max() < 1e-9
    else:
        np.testing.assert_allclose(some.per_pair[:, 0], whole.per_pair[:, 1][:, [4, 6]], **EXACT)
    together = attribute_neurons(
        model, clean, **ANSWERS, method=method, steps=8, layers=[1], positions=[4, 6], by_position=False
    )
    if method != "ablation":
        np.testing.assert_allclose(together.per_pair, some.per_pair.sum(2, keepdims=True), **EXACT)
    assert together.value.shape == (1, 6)


@pytest.mark.parametrize("method", ["integrated", "conductance"])
def test_more_steps_than_a_batch_holds(prompts, method, monkeypatch):
    model, (clean, _) = build(d_mlp=6), prompts
    whole = attribute_neurons(model, clean, **ANSWERS, method=method, steps=11)
    monkeypatch.setitem(TOKENS_AT_ONCE, "cpu", 60)
    seen = []
    parts = attribute_neurons(
        model, clean, **ANSWERS, method=method, steps=11, progress=lambda *update: seen.append(update)
    )
    np.testing.assert_allclose(parts.per_pair, whole.per_pair, rtol=0, atol=1e-12)
    assert len(seen) > 4
    assert seen[-1][0] == 1.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("baseline", BASELINES)
def test_more_pairs_than_a_batch_holds(prompts, method, baseline, monkeypatch):
    model, (clean, corrupted) = build(d_mlp=6), prompts
    settings = [dict(right=[5, 6, 7], wrong=[8, 9, 10])]
    if method == "contribution":
        settings.append(dict(metric=SentenceLogProb(clean, torch.tensor([7, 5, 6]))))
    for answers in settings:
        settled = dict(method=method, baseline=baseline, steps=3) | answers
        whole = attribute_neurons(model, clean, corrupted, **settled)
        with monkeypatch.context() as patched:
            patched.setitem(TOKENS_AT_ONCE, "cpu", 14)
            parts = attribute_neurons(model, clean, corrupted, **settled)
        np.testing.assert_allclose(parts.per_pair, whole.per_pair, rtol=0, atol=1e-12)
        np.testing.assert_allclose(parts.base, whole.base, rtol=0, atol=1e-12)
        if method == "integrated":
            np.testing.assert_allclose(parts.without, whole.without, rtol=0, atol=1e-12)


def test_nothing_is_left_behind(prompts):
    model = build(d_mlp=6).train()
    for method in METHODS:
        with torch.no_grad():
            attribute_neurons(model, *prompts, **ANSWERS, method=method, steps=2)
    assert not model.has_listeners()
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision(prompts):
    model = build(d_mlp=6)
    half = copy.deepcopy(model).bfloat16()
    for method in METHODS:
        found = attribute_neurons(half, *prompts, **ANSWERS, method=method, steps=4)
        wide = attribute_neurons(copy.deepcopy(half).double(), *prompts, **ANSWERS, method=method, steps=4)
        np.testing.assert_allclose(found.value, wide.value, rtol=0, atol=1e-3)


def test_frame_and_picture(prompts):
    model = build(d_mlp=6)
    found = attribute_neurons(model, prompts[0], **ANSWERS, method="gradient")
    frame = found.to_frame()
    assert list(frame) == ["layer", "pos", "neuron", "value", "error"]
    row = frame[(frame.layer == 1) & (frame.pos == 4) & (frame.neuron == 2)].iloc[0]
    assert row.value == pytest.approx(found.value[1, 4, 2])
    assert row.error == pytest.approx(found.per_pair[:, 1, 4, 2].std(ddof=1) / 3**0.5)
    best = found.top(3)
    assert [one.value for one in best] == sorted((one.value for one in best), key=abs, reverse=True)
    assert best[0].value == pytest.approx(frame.value[frame.value.abs().idxmax()])
    ax = found.plot(count=5).axes[0]
    assert ax.get_yticklabels()[0].get_text() == best[0].label
    flat = attribute_neurons(model, prompts[0], **ANSWERS, by_position=False)
    assert list(flat.to_frame()) == ["layer", "neuron", "value", "error"]
    assert len(flat.plot(count=4).axes[0].get_yticklabels()) == 4


BAD = {
    "no neurons are attributed so": (dict(method="gradients"), "Did you mean 'gradient'"),
    "no such baseline": (dict(baseline="means"), "Did you mean 'mean'"),
    "no corrupted run": (dict(baseline="other"), "give corrupted prompts"),
    "a reference for zero": (
        dict(baseline="zero", reference="x"),
        "for the baseline 'mean'; 'zero' takes none",
    ),
    "no steps": (dict(steps=0, method="integrated"), "1 step or more; found 0"),
    "no such block": (dict(layers=[7]), "Block 7 has no neurons; blocks with neurons: 0, 1"),
    "no layers": (dict(layers=[]), "No layer was given"),
    "no such position": (dict(positions=[9]), "Position 9 is out of range"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, prompts):
    settings, words = BAD[name]
    with pytest.raises(InputError, match=words):
        attribute_neurons(build(d_mlp=6), prompts[0], **ANSWERS | settings)


def test_metrics_without_a_direct_contribution(prompts):
    model, clean = build(), prompts[0]
    kl = Divergence(torch.zeros(3, 61).log_softmax(-1).double(), torch.full((3,), 6))
    for metric, name in ((kl, "KL"), (difference, "metric")):
        with pytest.raises(InputError, match=f"The metric '{name}' has no direct contributions"):
            attribute_neurons(model, clean, metric=metric)
    assert attribute_neurons(model, clean, metric=kl, method="gradient").value.any()
    places = LogitDifference(*(torch.full((3,), value) for value in (RIGHT, WRONG, 3)))
    read = attribute_neurons(model, clean, metric=places, method="ablation").value
    assert not read[:, 4:].any()
    assert read[:, 3].any()


def test_a_model_without_neurons(prompts):
    assert configuration(layout="aa").blocks == ("a", "a")
    with pytest.raises(InputError, match="no neuron: its layout is aa"):
        attribute_neurons(build(layout="aa"), prompts[0], **ANSWERS)
    with pytest.raises(InputError, match="Block 1 has no neurons; blocks with neurons: 0, 2"):
        attribute_neurons(build(layout="ma(am)"), prompts[0], **ANSWERS, layers=[1])

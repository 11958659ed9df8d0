"""A tuned lens is nearer to the model than the logit lens on text it has not seen, and belongs to one model."""

import json

import numpy as np
import pytest
import torch
from scored_models import small_model, small_tokenizer
from small_models import BASES, build

from workbench.data.embedded.stories import stories
from workbench.errors import DataError, InputError
from workbench.interp.lens import (
    answer_curve,
    lens_curve,
    lens_loss,
    lens_points,
    load_tuned_lens,
    logit_lens,
    read_streams,
    train_tuned_lens,
)
from workbench.interp.texts import TextBatch

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def model():
    """After 60 updates on embedded stories."""
    model = small_model(init_std=0.02, n_layers=2)
    stream = [
        token for text in stories(200, seed=1) for token in [1, *small_tokenizer()(text)["input_ids"], 2]
    ]
    rows = torch.tensor(stream[: len(stream) // 49 * 49]).view(-1, 49)
    adam = torch.optim.AdamW(model.parameters(), lr=5e-3)
    order = torch.Generator().manual_seed(0)
    for _ in range(60):
        batch = rows[torch.randint(len(rows), (16,), generator=order)]
        adam.zero_grad()
        model.loss(batch[:, :-1], batch[:, 1:]).backward()
        adam.step()
    return model.eval()


@pytest.fixture(scope="module")
def text():
    return stories(80, seed=2)


@pytest.fixture(scope="module")
def lens(model, text):
    return train_tuned_lens(model, text, tokens=30_000, sublayers=True)


def test_it_is_nearer_to_the_model_at_every_layer(model, lens):
    held_out = stories(20, split="validation")
    plain, tuned = (lens_loss(model, held_out, lens=one, sublayers=True) for one in (None, lens))
    assert (tuned.kl[:-1] < 0.9 * plain.kl[:-1]).all()
    assert (tuned.agreement[:-1] >= plain.agreement[:-1]).all()
    assert tuned.kl[-1] == plain.kl[-1] == 0
    np.testing.assert_array_equal(tuned.loss[-1], plain.loss[-1])
    assert lens.losses[-1] < 0.5 * lens.losses[0]


def test_training_leaves_the_model_alone(model, lens):
    assert all(weight.requires_grad for weight in model.parameters())
    assert not model.has_listeners()
    assert not lens.weight.requires_grad
    assert lens.weight.shape == (len(lens.points), 32, 32)
    assert lens.points == tuple(point.label for point in lens_points(model.config, True)[:-1])


def test_the_same_seed_gives_the_same_lens(model, text):
    one, two, other = (train_tuned_lens(model, text[:20], tokens=1500, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.weight, two.weight)
    assert one.losses == two.losses
    assert not torch.equal(one.weight, other.weight)


def test_it_begins_as_the_logit_lens_and_ends_as_the_identity(model, lens, text):
    start = train_tuned_lens(model, text[:2], tokens=1, lr=1e-12)
    plain, begun = (lens_loss(model, text[:5], lens=one) for one in (None, start))
    np.testing.assert_allclose(begun.kl, plain.kl, atol=1e-6)
    assert start.losses[0] == pytest.approx(plain.kl[:-1].mean(), rel=0.5)
    x = torch.randn(4, 32)
    assert torch.equal(lens.translate("L1", x), x)
    assert not torch.equal(lens.translate("L0", x), x)


def test_all_that_reads_through_a_lens_takes_it(model, lens):
    plain, tuned = (logit_lens(model, "Once upon a time", lens=one) for one in (None, lens))
    assert (plain.lens, tuned.lens) == ("logit lens", "tuned lens")
    assert tuned.kl[:-1].mean() < plain.kl[:-1].mean()
    np.testing.assert_array_equal(tuned.entropy[-1], plain.entropy[-1])
    tokens = model.to_tokens("Once upon a time")
    streams = read_streams(model, lens_points(model.config), tokens)
    logits = lens.logits(model, "L0", streams[1][0])
    np.testing.assert_array_equal(logits.argmax(-1), tuned.top[1])
    for found in (
        lens_curve(model, "The cat was", "The cats was", lens=lens),
        answer_curve(model, "The cat", " was", " is", lens=lens),
    ):
        assert found.lens == "tuned lens"
        assert found.difference.shape == (1, 3)


@pytest.mark.parametrize("name", BASES)
def test_every_architecture_has_one(name):
    model = build(**BASES[name])
    tokens = torch.randint(4, 61, (6, 12), generator=torch.Generator().manual_seed(0))
    batch = [TextBatch(tokens, tokens.roll(-1, 1))]
    made = train_tuned_lens(model, batch, tokens=6 * 12 * 30, sublayers=True)
    plain, tuned = (lens_loss(model, batch, lens=one, sublayers=True) for one in (None, made))
    assert (tuned.kl[:-1] < plain.kl[:-1]).all()


def test_saved_and_read_again(model, lens, tmp_path):
    assert lens.save(tmp_path / "lens") == tmp_path / "lens"
    again = load_tuned_lens(tmp_path / "lens", model)
    assert torch.equal(again.weight, lens.weight)
    assert torch.equal(again.bias, lens.bias)
    assert (again.points, again.losses, again.settings) == (lens.points, lens.losses, lens.settings)
    np.testing.assert_array_equal(
        logit_lens(model, "Once", lens=again).kl, logit_lens(model, "Once", lens=lens).kl
    )


def test_another_model_is_refused(model, lens, tmp_path):
    lens.save(tmp_path)
    wider = small_model(d_model=64)
    with pytest.raises(InputError, match="a model of another shape \\(d_model 32 there, 64 here"):
        load_tuned_lens(tmp_path, wider)
    with pytest.raises(InputError, match="other weights of this shape"):
        load_tuned_lens(tmp_path, small_model(init_std=0.02, seed=5))
    with pytest.raises(InputError, match="another shape"):
        logit_lens(wider, "Once", lens=lens)
    without = train_tuned_lens(model, "The cat was sad.", tokens=5)
    with pytest.raises(InputError, match="was not trained at L0 mid; train one with sublayers=True"):
        logit_lens(model, "Once", lens=without, sublayers=True)


@pytest.mark.parametrize("damage", ["missing", "cut", "swapped", "not json", "points"])
def test_a_damaged_lens_is_refused(model, lens, tmp_path, damage):
    lens.save(tmp_path)
    weights, about = tmp_path / "tuned_lens.safetensors", tmp_path / "tuned_lens.json"
    if damage == "missing":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-7])
    elif damage == "swapped":
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    elif damage == "not json":
        about.write_text("{")
    else:
        about.write_text(json.dumps(json.loads(about.read_text()) | {"points": ["embed"]}))
    with pytest.raises(DataError, match=r"tuned lens|not a readable JSON"):
        load_tuned_lens(tmp_path, model)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(tokens=0), "tokens >= 1 and lr > 0; found 0"),
        (dict(lr=float("nan")), "found 200000 and nan"),
        (dict(text=[]), "the text is empty"),
        (dict(text=torch.zeros(3, 1, dtype=torch.long)), "the text has no token to predict"),
    ],
    ids=["tokens", "lr", "empty", "unscored"],
)
def test_bad_input_is_refused_in_words(model, options, words):
    with pytest.raises(InputError, match=words):
        train_tuned_lens(model, **{"text": "The cat was sad."} | options)


def test_progress_ends_at_the_whole(model, text):
    calls = []
    train_tuned_lens(model, text[:10], tokens=3000, progress=lambda *call: calls.append(call))
    assert calls[-1] == (1.0, "3,000 of 3,000 tokens")
    assert calls == sorted(calls, key=lambda call: call[0])

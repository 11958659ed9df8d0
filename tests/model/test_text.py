"""Text in batches and generation, also where the tokenizer lacks special tokens; tokens as directions."""

import numpy as np
import pytest
import torch
from small_models import BASES, build

from workbench.data.tokenizer import train_tokenizer
from workbench.errors import InputError
from workbench.interp.attribution import attribute_logits
from workbench.interp.gradients import attribution_patch, edge_attribution
from workbench.interp.patching import patch
from workbench.interp.paths import path_patch
from workbench.interp.prompts import align

CAUSAL = [fields for fields in BASES.values() if fields.get("attention") != "bidirectional"]
POSITIONS = [dict(positions=kind) for kind in ("sinusoidal", "alibi", "t5", "shaw", "none")]


def text_model(**fields):
    tokenizer = train_tokenizer(["The cat sat on the mat. A dog ran."] * 3, 270)
    model = build(**{"n_ctx": 48} | fields | {"d_vocab": len(tokenizer)})
    model.tokenizer = tokenizer
    return model


@pytest.mark.parametrize("pad", [True, False], ids=["with PAD", "without"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_a_batch_of_texts_is_its_texts(attention, pad):
    model = text_model(attention=attention)
    if not pad:
        model.tokenizer.pad_token = None
    texts = ["The cat sat.", "A dog ran on the mat.", "A"]
    together = model(texts)
    for row, text in zip(together, texts, strict=True):
        alone = model(text)[0]
        torch.testing.assert_close(row[: len(alone)], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "fields", [{}, dict(d_embed=8), dict(tied=False, d_embed=8), dict(norm="none")], ids=str
)
def test_a_tokens_direction_gives_its_logit(fields):
    """But for the biases of norms, which are the same whatever the stream is."""
    model = build(**fields)
    tokens = torch.randint(4, 61, (2, 9), generator=torch.Generator().manual_seed(1))
    logits, cache = model.run_with_cache(tokens)
    last = cache["resid_post", -1]
    x = last if model.ln_final is None else cache["ln_final.hook_normalized"]
    found = x @ model.tokens_to_residual_directions(torch.tensor([7, 9])).T
    difference = logits[..., [7, 9]] - found
    torch.testing.assert_close(difference, difference[:1, :1].expand_as(difference), rtol=0, atol=1e-12)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_a_tokenizer_without_bos_prepends_none(attention):
    model = text_model(attention=attention)
    ids = model.tokenizer.encode("The cat sat.", add_special_tokens=False)
    model.tokenizer.bos_token = None
    assert model.to_tokens("The cat sat.").tolist() == [ids]
    assert model.bos() == []
    torch.testing.assert_close(model("The cat sat."), model(torch.tensor([ids])), rtol=0, atol=0)
    if attention == "causal":
        prompt = torch.tensor([model.tokenizer.encode("The cat", add_special_tokens=False)])
        text = model.generate("The cat", 3, seed=0)
        assert text == model.tokenizer.decode(model.generate(prompt, 3, seed=0)[0])
        assert text.startswith("The cat")
        with pytest.raises(InputError, match="the prompt has no tokens"):
            model.generate("")


def test_prompts_are_patched_and_attributed_without_bos():
    """The numbers are those of the same token ids; no BOS is prepended."""
    model = text_model()
    model.tokenizer.bos_token = None
    texts = ("The cat sat", "The dog sat")
    ids = [torch.tensor([model.tokenizer.encode(text, add_special_tokens=False)]) for text in texts]
    alignment = align(model, *texts)
    found = patch(model, *texts, right=".", wrong="A", site="resid_post", alignment=alignment)
    assert found.tokens == tuple(alignment.corrupted[0])
    answers = [model.to_single_token(text) for text in (".", "A")]
    for value, row in ((found.other, ids[0]), (found.base, ids[1])):
        logits = model(row)[0, -1, answers]
        assert value[0] == pytest.approx(float((logits[0] - logits[1]).detach()), abs=1e-10)
    direct = attribute_logits(model, texts[0], right=".", wrong="A")
    assert direct.logits[0] == pytest.approx(found.other[0], abs=1e-10)


def test_one_pair_takes_a_scalar_metric_as_transformer_lens_does():
    model = text_model()
    texts = ("The cat sat.", "The cat ran.")
    answers = [model.to_single_token(text) for text in (".", "A")]

    def scalar(logits):
        return logits[0, -1, answers[0]] - logits[0, -1, answers[1]]

    options = dict(alignment=align(model, *texts), site="resid_post")
    by_answers = patch(model, *texts, right=".", wrong="A", **options)
    np.testing.assert_allclose(
        patch(model, *texts, metric=scalar, **options).per_pair, by_answers.per_pair, rtol=0, atol=1e-10
    )
    tokens = torch.randint(4, 61, (2, 1, 7), generator=torch.Generator().manual_seed(0))
    for function in (attribution_patch, path_patch, edge_attribution):
        one, other = (
            function(model, *tokens, **metric)
            for metric in (dict(metric=scalar), dict(right=answers[0], wrong=answers[1]))
        )
        np.testing.assert_allclose(one.per_pair, other.per_pair, rtol=0, atol=1e-10)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("fields", [*CAUSAL, *POSITIONS, dict(windows=(3,))], ids=str)
def test_prompts_of_unequal_length_are_continued_as_each_alone(fields, use_cache):
    model = text_model(**fields)
    prompts = ["The cat", "A dog ran on the mat", "A"]
    options = dict(max_new_tokens=6, do_sample=False, use_cache=use_cache)
    assert model.generate(prompts, **options) == [model.generate(prompt, **options) for prompt in prompts]


def test_generated_rows_end_at_eos():
    model = text_model(unembed_bias=True)
    with torch.no_grad():
        model.unembed_bias[model.tokenizer.eos_token_id] = 100.0
    assert model.generate(["The cat", "A dog ran"], seed=1) == ["The cat", "A dog ran"]
    assert model.generate(torch.tensor([5, 6, 7])).tolist() == [[5, 6, 7, model.tokenizer.eos_token_id]]


def test_without_a_seed_torchs_random_state_decides():
    model, tokens = text_model(), torch.tensor([[5, 6, 7]])
    torch.manual_seed(1)
    first, second = model.generate(tokens, 12), model.generate(tokens, 12)
    torch.manual_seed(1)
    assert torch.equal(model.generate(tokens, 12), first)
    assert not torch.equal(first, second)
    assert torch.equal(model.generate(tokens, 12, seed=4), model.generate(tokens, 12, seed=4))


@pytest.mark.parametrize("temperature", [1e-38, 1e-46, 5e-324])
def test_a_tiny_temperature_is_greedy(temperature):
    model, tokens = build(), torch.tensor([[5, 6, 7]])
    greedy = model.generate(tokens, 10, do_sample=False)
    assert torch.equal(model.generate(tokens, 10, temperature=temperature, seed=1), greedy)
    assert torch.equal(model.generate(tokens, 10, temperature=0.0), greedy)


@pytest.mark.parametrize("temperature", [float("nan"), -1.0])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(InputError, match="generate needs temperature >= 0"):
        build().generate(torch.tensor([[5, 6, 7]]), temperature=temperature)


def test_padded_prompts_of_a_masked_model_are_read_as_each_alone():
    """Analyses of several prompts pass the padding on; PAD here also ends texts."""
    from workbench.interp.lens import answer_curve

    model = text_model(attention="bidirectional")
    model.tokenizer.pad_token = model.tokenizer.eos_token
    prompts = ["The cat<mask> on the mat.", "A dog<mask>"]
    together = attribute_logits(model, prompts, right=".", wrong="A")
    curve = answer_curve(model, prompts, right=".", wrong="A")
    for row, prompt in enumerate(prompts):
        alone = attribute_logits(model, prompt, right=".", wrong="A")
        assert together.logits[row] == pytest.approx(alone.logits[0], abs=1e-10)
        found = answer_curve(model, prompt, right=".", wrong="A")
        assert curve.good[row].tolist() == pytest.approx(found.good[0].tolist(), abs=1e-10)

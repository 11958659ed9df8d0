"""Laws of scoring: sharing, batching, threads and precision change nothing."""

import time

import numpy as np
import pytest
import torch
from scored_models import small_model

from workbench.errors import InputError
from workbench.evals import scoring as causal_module
from workbench.evals.protocols import PROTOCOLS, find_protocol
from workbench.evals.scoring import (
    Tally,
    _plain,
    _shifted,
    for_each,
    log_normaliser,
    score_sentences,
    threads_for,
)

SHAPES = {
    "learned": {},
    "rotary": dict(positions="rotary", norm="RMSNorm", gated=True),
    "untied": dict(tied=False, attention_scale=1.0),
}


def sentences_of(pairs, count):
    rows = pairs.pairs[:: len(pairs) // count]
    return [sentence for pair in rows for sentence in (pair.sentence_good, pair.sentence_bad)]


@torch.no_grad()
def one_by_one(model, rows):
    """log p of each row's tokens but the first, summed; a forward of its own for each row."""
    sums = []
    for row in rows:
        tokens = torch.tensor([row])
        log_probs = model(tokens[:, :-1]).log_softmax(-1)[0]
        sums.append(float(log_probs.gather(1, tokens[0, 1:, None]).double().sum()))
    return np.array(sums)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("length", "slack"), [(96, 16), (16, 4), (3, 0)])
def test_one_tree_is_one_by_one(shape, length, slack, embedded, tokenizer, monkeypatch):
    model = small_model(**SHAPES[shape]).double()
    monkeypatch.setattr(causal_module, "BLOCK", length)
    monkeypatch.setattr(causal_module, "SLACK", slack)
    sentences = sentences_of(embedded, 40)
    scores = score_sentences(model, sentences, "native")
    rows = [[1, *ids] for ids in tokenizer(sentences)["input_ids"]]
    np.testing.assert_allclose(scores.scores, one_by_one(model, rows), rtol=0, atol=1e-10)
    assert scores.tokens.tolist() == [len(row) - 1 for row in rows]


def test_several_trees_are_one(causal, embedded, tokenizer, monkeypatch):
    sentences = sentences_of(embedded, 30)
    model = causal.double()
    whole = score_sentences(model, sentences)
    monkeypatch.setattr(causal_module, "CELLS", 200)
    shares = []
    parts = score_sentences(model, sentences, progress=lambda fraction, message: shares.append(fraction))
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=0, atol=1e-10)
    assert shares[-1] == pytest.approx(1.0)
    assert shares == sorted(shares)


@pytest.mark.parametrize("objective", ["clm", "mlm"])
def test_a_sentence_alone_is_the_sentence_in_any_company(objective, embedded, tokenizer):
    model = small_model(attention="causal" if objective == "clm" else "bidirectional").double()
    sentences = sentences_of(embedded, 12)
    together = score_sentences(model, sentences).scores
    alone = [score_sentences(model, [sentence]).scores[0] for sentence in sentences]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-10)
    backwards = score_sentences(model, sentences[::-1]).scores[::-1]
    np.testing.assert_allclose(together, backwards, rtol=0, atol=1e-10)


def test_float32_is_float64_to_rounding(causal, embedded, tokenizer):
    sentences = sentences_of(embedded, 100)
    single = score_sentences(causal, sentences).scores
    double = score_sentences(causal.double(), sentences).scores
    np.testing.assert_allclose(single, double, rtol=2e-6)
    assert np.abs(single - double).max() > 0


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("objective", ["clm", "mlm"])
def test_the_number_of_threads_changes_no_bit(threads, objective, embedded, tokenizer):
    model = small_model(attention="causal" if objective == "clm" else "bidirectional")
    sentences = sentences_of(embedded, 60)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = score_sentences(model, sentences).scores
        torch.set_num_threads(threads)
        side_by_side = score_sentences(model, sentences).scores
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(alone, side_by_side)


def test_an_exception_in_a_thread_is_raised_and_stops_the_rest():
    seen = []

    def work(item):
        seen.append(item)
        time.sleep(0.001)
        if item == 3:
            raise InputError("no")

    with pytest.raises(InputError, match="no"):
        for_each(work, range(1000), 2)
    assert len(seen) < 1000
    assert not torch.is_inference_mode_enabled()


def test_a_model_with_listeners_is_scored_on_one_thread(causal):
    assert threads_for(causal) == torch.get_num_threads()
    with causal.hooks(fwd_hooks=[("hook_embed", lambda x, hook: x)]):
        assert threads_for(causal) == 1


def test_hooks_act_on_the_score(causal, tokenizer):
    def silence(z, hook):
        return torch.zeros_like(z)

    plain = score_sentences(causal, ["The dog ran."]).scores
    with causal.hooks(fwd_hooks=[("blocks.0.attn.hook_z", silence)]):
        ablated = score_sentences(causal, ["The dog ran."]).scores
        tokens = causal.to_tokens("The dog ran.")
        wanted = -causal(tokens, return_type="loss").detach() * (tokens.shape[1] - 1)
    assert ablated[0] == pytest.approx(float(wanted), abs=1e-4)
    assert abs(ablated[0] - plain[0]) > 0.01


@pytest.mark.parametrize("size", [0.1, 1.0, 40.0])
def test_the_normaliser_is_logsumexp(size):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 16, generator=generator, dtype=torch.float64) * size
    readout = torch.randn(2500, 16, generator=generator, dtype=torch.float64)
    longest = float(readout.norm(dim=-1).max())
    found = log_normaliser(x, readout, longest)
    torch.testing.assert_close(found, (x @ readout.T).logsumexp(-1), rtol=1e-12, atol=1e-12)
    bias = torch.randn(2500, generator=generator, dtype=torch.float64) * size
    found = log_normaliser(x, readout, longest, bias)
    torch.testing.assert_close(found, (x @ readout.T + bias).logsumexp(-1), rtol=1e-12, atol=1e-12)


def test_the_two_normalisers_agree_and_large_logits_do_not_overflow():
    x, readout = torch.eye(3) * 30.0, torch.eye(3)
    buffer = torch.empty(9)
    for words in ([(readout, None)], [(readout, torch.tensor([0.0, 30.0, -30.0]))]):
        torch.testing.assert_close(_plain(x, words, buffer), _shifted(x, words, buffer))
    huge = torch.full((1, 3), 1000.0)
    assert log_normaliser(huge, readout, 1.0).item() == pytest.approx(1000 + np.log(3))
    bias = torch.full((3,), 1000.0)
    assert log_normaliser(x, readout, 1.0, bias)[0].item() == pytest.approx(1030, abs=1e-3)


def test_half_precision_is_scored_in_float32(causal, tokenizer):
    half = causal.to(torch.bfloat16)
    scores = score_sentences(half, ["The dog ran.", "The dog runs."])
    wide = score_sentences(half.float(), ["The dog ran.", "The dog runs."])
    np.testing.assert_array_equal(scores.scores, wide.scores)
    assert half.dtype == torch.float32  # .float() above works in place


def test_half_precision_weights_stay_as_they_are(causal, tokenizer):
    half = causal.to(torch.bfloat16)
    score_sentences(half, ["The dog ran."])
    assert half.dtype == torch.bfloat16


def test_training_mode_and_dropout_are_put_aside_and_back(tokenizer):
    model = small_model(dropout=0.5).train()
    first = score_sentences(model, ["The dog ran."]).scores
    assert model.training
    np.testing.assert_array_equal(first, score_sentences(model, ["The dog ran."]).scores)


def test_a_uniform_model_gives_log_v_a_token(tokenizer):
    model = small_model(init_std=1e-30)
    scores = score_sentences(model, ["The dog ran.", "A cat."])
    np.testing.assert_allclose(scores.scores, -np.log(600) * scores.tokens, rtol=1e-6)


def test_protocols_say_what_is_scored(causal, tokenizer):
    sentence = "The dog ran."
    plain, spaced = tokenizer(sentence)["input_ids"], tokenizer(" " + sentence)["input_ids"]
    wanted = {
        "native": ([1, *plain], len(plain)),
        "paper": ([1, *plain], len(plain)),
        "lm-eval": ([1, *spaced], len(spaced)),
        "minicons": (plain, len(plain) - 1),
        "babylm-2023": ([2, *spaced], len(spaced)),
        "babylm-2024": ([1, *spaced], len(spaced)),
        "babylm-2025": (plain, len(plain) - 1),
    }
    assert wanted.keys() == PROTOCOLS.keys()
    for name, (row, tokens) in wanted.items():
        scores = score_sentences(causal, [sentence], name)
        log_prob = one_by_one(causal, [row])[0]
        assert scores.tokens[0] == tokens
        assert scores.log_probs[0] == pytest.approx(log_prob, rel=1e-5)
        mean = find_protocol(name).causal_reduction == "mean"
        assert scores.scores[0] == pytest.approx(log_prob / tokens if mean else log_prob, rel=1e-5)


def test_padding_left_in_the_tokenizer_by_an_earlier_call_is_harmless(causal, tokenizer):
    before = score_sentences(causal, ["The dog ran.", "A cat."]).scores
    tokenizer(["one", "two three four five"], padding=True, truncation=True, max_length=2)
    np.testing.assert_array_equal(before, score_sentences(causal, ["The dog ran.", "A cat."]).scores)


def test_progress_from_several_threads_loses_nothing():
    shares = []
    tally = Tally(4000, lambda fraction, message: shares.append(fraction))
    for_each(lambda item: tally.add(1), range(4000), 4)
    assert shares == [done / 4000 for done in range(1, 4001)]

"""Pseudo-log-likelihoods against a loop that masks by hand."""

import numpy as np
import pytest
import torch
from scored_models import small_model
from tokenizers.processors import TemplateProcessing

from workbench.data.embedded.stories import stories
from workbench.data.tokenizer import train_tokenizer
from workbench.evals.protocols import PROTOCOLS, encode
from workbench.evals.scoring import masked_log_probs, masked_rows, score_sentences, variants

SENTENCES = [
    "The dogs ran.",
    "The dog ran.",
    "The butterflies were hungry.",
    "Marvellous caterpillars dreamed.",
    "The dog ran.",
    "Hi",
]


@torch.no_grad()
def by_hand(model, tokenizer, sentence, pll):
    """Mask, predict, unmask, token by token."""
    encoding = tokenizer(sentence)
    ids, words = encoding["input_ids"], encoding.word_ids()
    total = 0.0
    for target in range(len(ids)):
        row = [1, *ids, 2]
        for other in range(target, len(ids)):
            same_word = words[other] == words[target]
            if other == target or (pll == "within_word_l2r" and same_word):
                row[1 + other] = 3
        log_probs = model(torch.tensor([row])).log_softmax(-1)
        total += float(log_probs[0, 1 + target, ids[target]])
    return total


@pytest.mark.parametrize("pll", ["original", "within_word_l2r"])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_pll_is_the_slow_loop(pll, positions, tokenizer):
    model = small_model(attention="bidirectional", positions=positions).double()
    scores = score_sentences(model, SENTENCES, pll=pll)
    wanted = [by_hand(model, tokenizer, sentence, pll) for sentence in SENTENCES]
    np.testing.assert_allclose(scores.scores, wanted, rtol=0, atol=1e-10)
    assert scores.tokens.tolist() == [len(ids) for ids in tokenizer(SENTENCES)["input_ids"]]
    assert scores.pll == pll


def test_the_two_plls_differ_on_words_in_pieces_only(masked, tokenizer):
    original = score_sentences(masked, SENTENCES, pll="original").scores
    l2r = score_sentences(masked, SENTENCES, pll="within_word_l2r").scores
    for index, encoding in enumerate(encode(tokenizer, SENTENCES, specials=False)):
        in_pieces = len(set(encoding.word_ids)) < len(encoding.ids)
        assert (original[index] != l2r[index]) == in_pieces
    assert (original != l2r).any()


def test_within_word_masks_the_later_tokens_of_the_word():
    ids, words = np.array([[1, 10, 11, 12, 20, 2]]), np.array([[-1, 0, 0, 0, 1, -1]])
    copies, row, place = variants(ids, words >= 0, words, 3, "within_word_l2r")
    assert copies.tolist() == [
        [1, 3, 3, 3, 20, 2],
        [1, 10, 3, 3, 20, 2],
        [1, 10, 11, 3, 20, 2],
        [1, 10, 11, 12, 3, 2],
    ]
    assert row.tolist() == [0, 0, 0, 0]
    assert place.tolist() == [1, 2, 3, 4]


def test_equal_contexts_are_read_once(masked, tokenizer, monkeypatch):
    read = []
    residual = masked.residual

    def counted(tokens, **options):
        read.append(len(tokens))
        return residual(tokens, **options)

    monkeypatch.setattr(masked, "residual", counted)
    sentences = ["Tim covered himself.", "Tim covered herself."]
    lengths = {len(ids) for ids in tokenizer(sentences)["input_ids"]}
    assert len(lengths) == 1
    rows = masked_rows(tokenizer, sentences, PROTOCOLS["native"], str)
    with torch.inference_mode():
        masked_log_probs(masked, rows, 3, "original")
    differing = sum(a != b for a, b in zip(*tokenizer(sentences)["input_ids"], strict=True))
    assert differing == 1
    assert sum(read) == 2 * lengths.pop() - 1


def test_the_tokenizers_own_special_tokens_under_default(masked, tokenizer):
    """Ours adds none, so nothing surrounds the sentence and every token is predicted."""
    scores = score_sentences(masked, ["The dog ran."], "babylm-2025")
    ids = tokenizer("The dog ran.")["input_ids"]
    total = 0.0
    with torch.no_grad():
        for target in range(len(ids)):
            row = [3 if place == target else token for place, token in enumerate(ids)]
            total += float(masked(torch.tensor([row])).log_softmax(-1)[0, target, ids[target]])
    assert scores.scores[0] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("protocol", ["native", "minicons"])
def test_a_closing_token_that_is_also_pad_is_read(protocol, masked):
    """BERT-like tokenizers may use one token for PAD and EOS (or SEP)."""
    tokenizer = train_tokenizer(stories(300), 600)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    masked.tokenizer = tokenizer
    scores = score_sentences(masked, SENTENCES, protocol).scores
    tokenizer.pad_token = "<eos>"
    assert tokenizer.pad_token_id == 2
    np.testing.assert_array_equal(score_sentences(masked, SENTENCES, protocol).scores, scores)

"""Protocol `minicons`, and both pseudo-log-likelihoods, against minicons 0.3.39."""

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

sys.path.insert(0, str(Path(__file__).parents[1]))

from scored_models import small_model, trained_model

from workbench.data.embedded.stories import stories
from workbench.data.pairs import open_pairs
from workbench.data.tokenizer import train_tokenizer
from workbench.evals.blimp import blimp
from workbench.evals.scoring import score_sentences
from workbench.model.hf import to_hf

warnings.filterwarnings("ignore", message=".*torch.jit.*")
scorer = pytest.importorskip("minicons.scorer")


def in_batches(score, sentences, size=200):
    found = [score(sentences[start : start + size]) for start in range(0, len(sentences), size)]
    return np.array([value for batch in found for value in batch])


def sentences_of(result):
    return [text for pair in result.per_pair.itertuples() for text in (pair.sentence_good, pair.sentence_bad)]


@pytest.mark.parametrize("weights", ["random", "trained"])
@pytest.mark.parametrize("data", ["embedded", "blimp"])
def test_causal_decisions_are_equal(weights, data, request):
    """The mean over tokens, the tokenizer's default specials, the first token unscored."""
    real = None if data == "embedded" else str(request.getfixturevalue("real_data") / "blimp")
    model = small_model() if weights == "random" else trained_model()
    result = blimp(model, open_pairs(real).select(limit=80 if data == "embedded" else 30), "minicons")
    assert len(result.per_pair) >= 2000
    theirs = scorer.IncrementalLMScorer(to_hf(model), "cpu", tokenizer=model.tokenizer)
    scores = in_batches(theirs.sequence_score, sentences_of(result))
    good, bad = scores[0::2], scores[1::2]
    np.testing.assert_allclose(result.per_pair.margin, good - bad, rtol=0, atol=2e-5)
    # The nearest margins lie within float32's rounding of the mean: there the two may round apart.
    clear = np.abs(good - bad) > 2e-6
    assert clear.mean() > 0.999
    assert ((good > bad) == (result.per_pair.correct == 1))[clear].all()


def test_sums_over_the_whole_sentence_are_equal_with_bos_in_front():
    model = small_model()
    sentences = [pair.sentence_good for pair in open_pairs(None).pairs[::13]]
    theirs = scorer.IncrementalLMScorer(to_hf(model), "cpu", tokenizer=model.tokenizer)
    summed = theirs.sequence_score(sentences, reduction=lambda x: x.sum(0).item(), bos_token=True)
    ours = score_sentences(model, sentences, "native").scores
    np.testing.assert_allclose(ours, summed, rtol=3e-6, atol=3e-5)


class AsHuggingFace(torch.nn.Module):
    """Our masked model with the signature minicons calls: `.logits` of ids and an attention mask."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(logits=self.model(input_ids, attention_mask=attention_mask))


@pytest.fixture(scope="module")
def wrapping_tokenizer():
    """A tokenizer that puts <bos> and <eos> around a text by itself, and calls them CLS and SEP too."""
    tokenizer = train_tokenizer(stories(300), 600)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    tokenizer.cls_token, tokenizer.sep_token = "<bos>", "<eos>"
    # Gone in transformers 5; minicons 0.3.39 still calls it.
    tokenizer.batch_encode_plus = lambda texts, **options: tokenizer(texts, **options)
    return tokenizer


@pytest.mark.parametrize("pll", ["original", "within_word_l2r"])
def test_masked_scores_are_equal(pll, wrapping_tokenizer):
    model = small_model(attention="bidirectional")
    model.tokenizer = wrapping_tokenizer
    pairs = open_pairs(None).select(limit=8)
    theirs = scorer.MaskedLMScorer(AsHuggingFace(model), "cpu", tokenizer=wrapping_tokenizer, PLL_metric=pll)
    result = blimp(model, pairs, "minicons", pll=pll)
    sentences = sentences_of(result)
    # minicons joins a batch's copies, so the rows of one call must have one length: one sentence a call.
    scores = in_batches(lambda batch: theirs.sequence_score(batch, PLL_metric=pll), sentences, size=1)
    np.testing.assert_allclose(result.per_pair.margin, scores[0::2] - scores[1::2], rtol=0, atol=2e-5)
    clear = np.abs(scores[0::2] - scores[1::2]) > 2e-6
    assert ((scores[0::2] > scores[1::2]) == (result.per_pair.correct == 1))[clear].all()
    summed = in_batches(
        lambda batch: theirs.sequence_score(batch, PLL_metric=pll, reduction=lambda x: x.sum(0).item()),
        sentences[:60],
        size=1,
    )
    for protocol in ("native", "babylm-2025"):  # <bos> sentence <eos> either way with this tokenizer
        ours = score_sentences(model, sentences[:60], protocol, pll=pll).scores
        np.testing.assert_allclose(ours, summed, rtol=3e-6, atol=3e-5)

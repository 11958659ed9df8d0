"""A bigram model built by hand: its decisions are known in exact fractions."""

import itertools
import random
from fractions import Fraction
from math import prod

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from workbench.evals.blimp import blimp
from workbench.evals.scoring import score_sentences
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

WORDS = ["<pad>", "<bos>", "<eos>", "<mask>", "the", "a", "dog", "dogs", "run", "runs", "well", "."]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; spaces do not matter."""
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, "<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", mask_token="<mask>")
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def probabilities() -> list[list[Fraction]]:
    """p(next | word): each row the numbers 1 to 12, shuffled, over their sum; no two rows alike."""
    rows = []
    for index in range(len(WORDS)):
        numbers = list(range(1, len(WORDS) + 1))
        random.Random(index).shuffle(numbers)
        rows.append([Fraction(number, sum(numbers)) for number in numbers])
    return rows


@torch.no_grad()
def bigram_model(table: list[list[Fraction]], tokenizer: PreTrainedTokenizerFast) -> HookedTransformer:
    """Identity embedding, layers that add nothing, and log p(next | word) as the unembedding."""
    size = len(WORDS)
    config = ModelConfig(
        d_model=size, n_layers=1, n_heads=1, d_mlp=4, d_vocab=size, n_ctx=16,
        positions="rotary", norm="RMSNorm", tied=False,
    )  # fmt: skip
    model = HookedTransformer(config, tokenizer).eval()
    model.embed.W_E.copy_(torch.eye(size))
    model.blocks[0].attn.out_weight.zero_()
    model.blocks[0].mlp.out_weight.zero_()
    model.ln_final.w.fill_((1 / size + config.eps) ** 0.5)  # undoes the division by the root mean square
    logs = torch.tensor([[float(p) for p in row] for row in table], dtype=torch.float64).log()
    model.unembed_weight.copy_(logs.T)
    return model


def probability(table: list[list[Fraction]], sentence: str) -> Fraction:
    """p(sentence | BOS), exactly."""
    ids = [WORDS.index("<bos>"), *map(WORDS.index, sentence.split())]
    return prod(table[before][after] for before, after in itertools.pairwise(ids))


def some_pairs(count: int) -> list[tuple[str, str]]:
    """Random sentences of one to seven words, and pairs of the same bigrams in another order."""
    draw = random.Random(7)
    pairs = []
    for _ in range(count):
        good, bad = (" ".join(draw.choices(WORDS[4:], k=draw.randint(1, 7))) for _ in range(2))
        pairs.append((good, bad))
        x, y, z, w = draw.sample(WORDS[4:], 4)
        pairs.append((f"{x} {y} {x} {z} {x} {w}", f"{x} {z} {x} {y} {x} {w}"))
    return pairs


@pytest.fixture(scope="module")
def table():
    return probabilities()


@pytest.fixture(scope="module")
def model(table):
    return bigram_model(table, word_tokenizer())


def test_scores_are_the_log_probabilities(model, table):
    sentences = [sentence for pair in some_pairs(50) for sentence in pair]
    scores = score_sentences(model, sentences).scores
    wanted = [float(np.log(float(probability(table, sentence)))) for sentence in sentences]
    np.testing.assert_allclose(scores, wanted, rtol=1e-6)


@pytest.mark.parametrize(("protocol", "tie"), [("native", Fraction(1, 2)), ("lm-eval", 1), ("paper", 0)])
def test_counts_are_exact(model, table, make_pairs, protocol, tie):
    pairs = some_pairs(300)
    first, second = pairs[:350], pairs[350:]
    result = blimp(model, make_pairs(order__first=first, order__second=second), protocol)
    for uid, rows in (("order__first", first), ("order__second", second)):
        exact = [(probability(table, good), probability(table, bad)) for good, bad in rows]
        ties = sum(good == bad for good, bad in exact)
        right = sum(good > bad for good, bad in exact) + tie * ties
        assert ties >= len(rows) // 2
        assert 0 < right < len(rows)
        assert result.paradigms.loc[uid, "ties"] == ties
        assert result.paradigms.loc[uid, "accuracy"] == pytest.approx(float(right / len(rows)), abs=1e-12)


def test_the_mean_decides_otherwise_than_the_sum(model, table, make_pairs):
    """Lengths matter under a sum and not under a mean; each decision is the exact one."""
    pairs = [pair for pair in some_pairs(300)[::2] if all(" " in sentence for sentence in pair)]
    ids = model.tokenizer
    result = blimp(model, make_pairs(order__all=pairs), "minicons")
    summed = blimp(model, make_pairs(order__all=pairs), "native")
    assert (result.per_pair.correct != summed.per_pair.correct).sum() > 10
    checked = 0
    for (good, bad), correct in zip(pairs, result.per_pair.correct, strict=True):
        means = []
        for sentence in (good, bad):
            tokens = ids(sentence)["input_ids"]
            steps = [float(np.log(float(table[a][b]))) for a, b in itertools.pairwise(tokens)]
            means.append(np.mean(steps))
        if abs(means[0] - means[1]) > 1e-5:
            assert correct == float(means[0] > means[1])
            checked += 1
    assert checked > 150

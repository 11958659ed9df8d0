"""Labels: right on what is planted, at the nominal rate on what is not, and the statistics are scipy's."""

import dataclasses
import re

import numpy as np
import pytest
import scipy.stats
import torch
from scored_models import small_model, small_tokenizer
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from workbench.data.embedded.stories import stories
from workbench.data.embedded.word_classes import word_classes
from workbench.data.tokenizer import train_tokenizer
from workbench.errors import InputError
from workbench.interp.neurons import labels as module
from workbench.interp.neurons.examples import neuron_examples
from workbench.interp.neurons.labels import label_neurons, token_features
from workbench.interp.neurons.ranks import aucs, clustered_errors, p_greater, ranked
from workbench.interp.texts import story_rows
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

TOLD = stories(50, seed=9)
WORD = "said"
"""Frequent in the embedded stories, and one token of `words` with its space."""


@pytest.fixture(scope="module")
def words():
    """A tokenizer for which frequent words are one token."""
    return train_tokenizer(stories(300), 1500)


@pytest.fixture(scope="module")
def planted(words):
    """Random weights, but neuron 5 of layer 1 fires on one word: its direction in the embedding is its own, which
    nothing else reads or writes."""
    config = ModelConfig(d_model=32, n_layers=2, n_heads=4, d_mlp=40, d_vocab=len(words), n_ctx=128, init_std=0.1,
                         positions="none", norm="none", seed=4)  # fmt: skip
    model = HookedTransformer(config, words).eval()
    token = words.encode(f" {WORD}", add_special_tokens=False)
    assert len(token) == 1
    with torch.no_grad():
        model.embed.W_E[:, 31] = 0
        model.embed.W_E[token[0], 31] = 5
        for block in model.blocks:
            block.attn.out_weight[31] = 0
            block.mlp.out_weight[31] = 0
            block.attn.qkv_weight[:, 31] = 0
            block.mlp.in_weight[:, 31] = 0
        mlp = model.blocks[1].mlp
        mlp.in_weight[5], mlp.b_in[5] = 0, -1
        mlp.in_weight[5, 31] = 1
    return model


def test_a_planted_neuron_gets_exactly_its_label(planted, unchecked):
    found = label_neurons(planted, TOLD)
    assert found.label(1, 5) == f"word: {WORD}"
    assert found.auc[1, 5] == 1.0
    assert found.precision[1, 5] == 1.0
    assert found.p[1, 5] < 1e-6
    assert found.excess[1, 5] == pytest.approx(1)
    frame = found.to_frame().set_index("component")
    assert frame.label["L1N5"] == f"word: {WORD}"
    assert frame.excess["L1N5"] == frame.excess.max()
    assert found.passed.mean() < 0.25  # the others are as they were drawn


def test_it_gets_none_when_features_are_shuffled(planted, unchecked):
    shuffled = label_neurons(planted, TOLD, shuffle=True)
    assert not shuffled.passed.any()
    assert abs(shuffled.auc.mean() - 0.5) < 0.03
    lax = label_neurons(planted, TOLD, shuffle=True, control=False, least_auc=0.5, correction="bh")
    assert lax.passed.mean() <= 0.05


def test_an_untrained_model_is_labelled_at_the_nominal_rate_and_without_the_control_it_is_not(unchecked):
    rates, naive = [], []
    for seed in (11, 12):
        config = dataclasses.replace(small_model().config, seed=seed, init_std=0.02)
        model = HookedTransformer(config, small_tokenizer()).eval()
        rates.append(label_neurons(model, TOLD, seed=seed, alpha=0.1).passed.mean())
        naive.append(label_neurons(model, TOLD, seed=seed, control=False).passed.mean())
    # 256 neurons, of whom a tenth may pass; those of one model share its embedding, so they vary together.
    assert np.mean(rates) < 0.16
    assert np.mean(naive) > 0.3  # why the control is there: random directions "detect" words


def test_a_masked_model_is_asked_about_the_token_itself(unchecked):
    model = small_model(attention="bidirectional")
    found = label_neurons(model, TOLD, layers=[1], control=False)
    assert found.auc.shape == (1, 64)
    assert not any(name.startswith("next ") for name in found.features)
    assert any(name.startswith("word: ") for name in found.features)
    assert found.untrained is None
    assert found.level == 0


def test_chosen_and_tested_halves_share_no_story(planted, unchecked, monkeypatch):
    """What one half says of itself does not reach the other: the second half's features reversed leave the
    choice and undo the test."""
    plain = label_neurons(planted, TOLD, control=False)
    split = module._split

    def turned(*args):
        first, second = split(*args)
        assert not set(first.story) & set(second.story)
        assert abs(len(set(first.story)) - len(set(second.story))) <= 1
        return [first, second._replace(values=~second.values)]

    monkeypatch.setattr(module, "_split", turned)
    found = label_neurons(planted, TOLD, control=False)
    np.testing.assert_array_equal(found.feature, plain.feature)
    np.testing.assert_allclose(found.auc, 1 - plain.auc, atol=1e-12)
    assert found.label(1, 5) is None


def test_layers_in_several_passes_give_the_same(planted, unchecked, monkeypatch):
    whole = label_neurons(planted, TOLD, control=False)
    monkeypatch.setattr(module, "AT_ONCE", 1)
    told = []
    parts = label_neurons(planted, TOLD, control=False, progress=lambda *update: told.append(update))
    np.testing.assert_array_equal(parts.auc, whole.auc)
    assert told == [(0.5, "1 of 2 layers"), (1.0, "2 of 2 layers")]
    assert not planted.has_listeners()


def test_ranks_areas_and_p_are_those_of_scipy_and_sklearn():
    random = np.random.default_rng(0)
    x = np.stack([random.normal(size=200), random.integers(0, 4, 200), np.zeros(200)], 1)
    groups = random.random((200, 3)) < [0.3, 0.05, 0.9]
    x[groups[:, 0], 0] += 0.4
    ranks = ranked(torch.from_numpy(x))
    np.testing.assert_array_equal(ranks.ranks.numpy(), scipy.stats.rankdata(x, axis=0).T)
    found = aucs(ranks, groups)
    p = p_greater(found, groups.sum(0), ranks)
    for group, series in np.ndindex(3, 2):
        inside = groups[:, group]
        assert found[group, series] == pytest.approx(roc_auc_score(inside, x[:, series]), abs=1e-12)
        expected = scipy.stats.mannwhitneyu(
            x[inside, series], x[~inside, series], alternative="greater", method="asymptotic"
        )
        assert p[group, series] == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found[:, 2] == 0.5).all()
    assert (p[:, 2] == 1).all()


def test_intervals_cover_the_truth_when_tokens_of_a_story_are_alike():
    """Numbers with a part that a whole story shares: errors by story cover 95 %, as if tokens were alone do not."""
    random = np.random.default_rng(1)
    truth = scipy.stats.norm.cdf(1 / np.sqrt(2 * (1 + 1)))
    hits = narrow = 0
    for _ in range(200):
        story = np.repeat(np.arange(40), 10)
        shared = random.normal(size=40)[story]
        inside = np.repeat(random.random(40) < 0.5, 10)
        x = (shared + random.normal(size=400) + inside)[:, None]
        ranks = ranked(torch.from_numpy(x))
        auc = aucs(ranks, inside[:, None])[0, 0]
        if not 0 < inside.sum() < 400:
            continue
        error = clustered_errors(torch.from_numpy(x), ranks.ranks, inside, story)[0]
        alone = clustered_errors(torch.from_numpy(x), ranks.ranks, inside, np.arange(400))[0]
        hits += abs(auc - truth) < 1.96 * error
        narrow += abs(auc - truth) < 1.96 * alone
    assert 0.88 < hits / 200 < 0.99
    assert narrow / 200 < 0.75
    assert np.isnan(clustered_errors(torch.from_numpy(x), ranks.ranks, inside, np.zeros(400, int))[0])


def test_features_say_what_stands_in_the_text(words):
    text = 'Once, Tom met a cat. "Run, cat!" said Tom.\nTom found the ball, and Ann found it too.'
    found = token_features(words, [text, "Then Tom and Ann ran. So Tom sat by Ann."], least=1, words=200)
    pieces = [words.decode([i]) for i in words.encode(text, add_special_tokens=False)]
    ends = np.cumsum([len(piece) for piece in pieces])

    def at(name):
        mine = found.values[: len(pieces), found.names.index(name)]
        return [int(end) for end in ends[mine]]

    def after(pattern):
        return [match.end() for match in re.finditer(pattern, text)]

    assert at("word: found") == after("found")
    assert at("word: cat") == after("cat")
    assert at("mark: .") == after(r"\.")
    assert at("name") == after("Tom|Ann")
    assert at("first mention of the protagonist") == after("Tom")[:1]
    assert at("line break") == after("\n")
    assert at("next word: found") == after(r"(Tom|Ann)(?= found)")
    assert at("pronoun") == after(r"\bit\b")
    assert set(at("inside a quotation")) <= set(range(text.index('"') + 2, text.index('!"') + 2))
    assert len(at("opening quotation mark")) == len(at("closing quotation mark")) == 1
    assert at("near the start of the story") == [int(end) for end in ends[:10]]
    assert found.story.tolist().count(0) == len(pieces)


def test_a_features_tokens_are_cut_with_the_row(words):
    whole = token_features(words, TOLD, least=1)
    cut = token_features(words, TOLD, least=1, n_ctx=21)
    assert set(np.bincount(cut.story)) == {20}
    both = [name for name in cut.names if name in whole.names and name.startswith("word: ")]
    first = np.concatenate([np.flatnonzero(whole.story == story)[:20] for story in range(len(TOLD))])
    for name in both:
        np.testing.assert_array_equal(
            cut.values[:, cut.names.index(name)], whole.values[first, whole.names.index(name)]
        )


def test_a_word_is_in_one_class_at_most():
    seen: dict[str, str] = {}
    for name, members in word_classes().items():
        assert members
        for word in members:
            assert word == word.lower()
            assert seen.setdefault(word, name) == name
    assert seen["the"] == "determiner"
    assert seen["mice"] == "noun"
    assert seen["ran"] == "verb"


def test_unknown_characters_are_tokens_of_the_text(unchecked):
    """A tokenizer of half the words: the unknown token is special, but stands for text at its position."""
    pieces = pre_tokenizers.Whitespace()
    known = sorted({word for text in TOLD for word, _ in pieces.pre_tokenize_str(text)})[::2]
    names = ["<pad>", "<bos>", "<eos>", "<mask>", "<unk>", *known]
    backend = Tokenizer(
        models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pieces
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    model = small_model(d_vocab=len(names)).double()
    model.tokenizer = tokenizer
    rows = story_rows(tokenizer, TOLD, 96, end=False)
    assert any(tokenizer.unk_token_id in row for row in rows)
    counted = neuron_examples(model, TOLD).tokens
    assert counted == sum(len(row) - 1 for row in rows)
    found = label_neurons(model, TOLD, layers=[1], control=False)
    story = np.repeat(np.arange(len(rows)), [len(row) - 1 for row in rows])
    (x,) = module._activations(model, [1], TOLD, story, 0)
    hook = "blocks.1.mlp.hook_post"
    alone = [model.run_with_cache(torch.tensor([row]))[1][hook][0, 1:].detach() for row in rows]
    torch.testing.assert_close(x, torch.cat(alone), rtol=0, atol=1e-12)
    assert found.auc.shape == (1, 64)


@pytest.mark.parametrize(
    ("options", "words_of_error"),
    [
        (dict(stories=["one story"]), "two or more; found 1"),
        (dict(stories=["a", "b"]), "No feature occurs on 20 tokens of each half; give more stories"),
        (dict(correction="holms"), "Unknown correction 'holms'"),
        (dict(layers=[5]), "Block 5 has no neurons"),
    ],
)
def test_bad_input_is_named(options, words_of_error):
    with pytest.raises(InputError, match=words_of_error):
        label_neurons(small_model(), **{"stories": TOLD} | options)


def test_a_model_without_a_tokenizer_or_neurons_is_refused():
    with pytest.raises(InputError, match="has no tokenizer, but labels need text"):
        label_neurons(HookedTransformer(small_model().config), TOLD)
    with pytest.raises(InputError, match="This model has no neuron"):
        label_neurons(small_model(layout="aa", n_layers=2), TOLD)
    found = label_neurons(small_model(), TOLD, layers=[1], control=False)
    with pytest.raises(InputError, match="Block 0 was not labelled; labelled blocks: 1"):
        found.label(0, 3)


def test_it_is_drawn():
    pytest.importorskip("matplotlib")
    ax = label_neurons(small_model(), TOLD, layers=[1]).plot().axes[0]
    told = {text.get_text() for text in ax.get_legend().get_texts()}
    assert told == {"this model's neurons", "an untrained copy's", "95 % of those are below"}

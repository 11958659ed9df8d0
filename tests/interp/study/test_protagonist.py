"""A planted first-mention neuron is found among others, and its AUC is scikit-learn's."""

import numpy as np
import page_runs
import pytest
from sklearn.metrics import roc_auc_score

from workbench.data.embedded.stories import stories
from workbench.errors import InputError
from workbench.interp.heads import find_names
from workbench.interp.neurons.protagonist import (
    _auc,
    _test_detector,
    find_mentions,
    find_protagonist_neuron,
)
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def words():
    return page_runs.tokenizer()


@pytest.fixture(scope="module")
def texts():
    return stories(40, split="validation")


def model_of(words, **fields):
    config = ModelConfig(
        **dict(d_model=32, n_layers=2, n_heads=4, d_mlp=24, n_ctx=128, d_vocab=len(words)) | fields
    )
    return HookedTransformer(config, words).eval()


def test_mentions(words):
    texts = ["Tom saw Lily. Lily saw Tom, and Lily ran.", "It rained.", "Tommy met Tom."]
    found, heroes = find_mentions(words, texts, ["Tom", "Lily"], 64)
    assert heroes == ("Lily", "Tom")
    assert len(found) == 2
    first = found[0]
    assert words.decode(first.tokens[1 : first.first + 1]) == "Tom saw Lily"
    assert [words.decode(first.tokens[1 : at + 1]) for at in first.later] == [
        "Tom saw Lily. Lily", "Tom saw Lily. Lily saw Tom, and Lily",
    ]  # fmt: skip
    assert not set(first.others) & {0, first.first, *first.later}
    assert max(abs(at - first.first) for at in first.others) <= 8
    assert find_mentions(words, texts[:1], ["Tom", "Lily"], 3)[0] == []  # beyond the context


def test_a_planted_neuron_is_found(words, texts):
    model = model_of(words)
    names = find_names(texts)
    known, _ = find_mentions(words, texts, names, 128)
    first = {story.tokens.tobytes(): story.first for story in known}
    every = {story.tokens.tobytes(): (story.first, *story.later) for story in known}
    read = []
    model.embed.register_forward_hook(lambda module, args, out: read.append(args[0][0].numpy()))

    def plant(x, hook):
        x = x.clone()
        x[..., [3, 7]] = -1.0
        x[0, first[read[-1].tobytes()], 7] = 9.0
        x[0, list(every[read[-1].tobytes()]), 3] = 9.0  # a neuron of the name, not of its first mention
        return x

    model.blocks[1].mlp.hook_post.add_hook(plant, is_permanent=True)
    found = find_protagonist_neuron(model, texts, names)
    assert found.best.label == "L1N7"
    assert found.best[1:] == (1.0,) * 6
    assert found.untrained.auc < 0.9
    assert found.chosen_auc[1, 3] == pytest.approx(0.5)  # tells mentions from the rest, not first from later
    assert 0.8 < found.position.later_auc < 1.0
    assert found.stories == len(known)


def test_an_untrained_model_has_none(words, texts):
    found = find_protagonist_neuron(model_of(words, seed=3), texts, find_names(texts))
    assert found.best.low < max(found.untrained.high, found.position.high)
    assert found.best.auc < 0.9


def test_auc_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    first, others = random.normal(0.5, 1, (30, 4)).round(1), random.normal(0, 1, (50, 4)).round(1)
    labels = [1] * 30 + [0] * 50
    wanted = [roc_auc_score(labels, np.concatenate([first, others])[:, n]) for n in range(4)]
    np.testing.assert_allclose(_auc(first, others), wanted, rtol=1e-12)
    stories = [(first[i, :1], others[:0, 0], others[[i, i + 20], 0]) for i in range(30)]
    judged = _test_detector("x", stories, 0)
    flat = np.concatenate([story[2] for story in stories])
    wanted = roc_auc_score([1] * 30 + [0] * 60, np.concatenate([first[:, 0], flat]))
    assert judged.auc == pytest.approx(wanted, abs=1e-12)
    assert judged.low < judged.auc < judged.high
    assert np.isnan(judged.later_auc)


def test_bad_input(words, texts):
    with pytest.raises(InputError, match="1 of the stories contain a name; the search needs four"):
        find_protagonist_neuron(model_of(words), ["Tom ran.", "It rained."] * 1, ["Tom"])
    with pytest.raises(InputError, match="its layout is aa"):
        find_protagonist_neuron(model_of(words, n_layers=2, layout="aa"), texts, ["Tom"])
    model = model_of(words)
    model.tokenizer = None
    with pytest.raises(InputError, match="no tokenizer"):
        find_protagonist_neuron(model, texts, ["Tom"])

"""A tokenizer whose ids have holes: the model has a row for the largest id, from training to the scores."""

import json

import pytest
from tokenizers import Tokenizer

import training
from workbench.data.corpus import open_corpus
from workbench.data.embedded.stories import stories
from workbench.data.packing import pack
from workbench.data.report import corpus_report
from workbench.data.tokenizer import load_tokenizer, train_tokenizer, vocabulary_size
from workbench.errors import ConfigError
from workbench.runs.run import load

SHAPE = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_mlp": 32, "n_ctx": 16}
FAST = {"eval_every": 1000, "sample_tokens": 0, "final_eval_tokens": 64, "log_every": 5}


@pytest.fixture
def tokenizer_file(tmp_path):
    """300 tokens with the ids 0 to 300, without 5."""
    text = json.loads(train_tokenizer(list(stories(200)), 300).backend_tokenizer.to_str())
    text["model"]["vocab"] = {token: index + (index >= 5) for token, index in text["model"]["vocab"].items()}
    file = tmp_path / "tokenizer.json"
    Tokenizer.from_str(json.dumps(text)).save(str(file))
    return file


def test_the_model_has_a_row_for_the_largest_id(tokenizer_file, tmp_path):
    tokenizer = load_tokenizer(tokenizer_file)
    assert (len(tokenizer), vocabulary_size(tokenizer)) == (300, 301)
    data = {"n_stories": 200, "tokenizer": str(tokenizer_file)}
    corpus = open_corpus(None, n_stories=50)
    assert corpus_report(corpus, tokenizer, pack(corpus, tokenizer, 32)).d_vocab == 301
    run = training.train({**SHAPE, "d_vocab": 400}, data, out=tmp_path / "run", steps=2, quiet=True, **FAST)
    assert run.model.config.d_vocab == 301
    assert load(tmp_path / "run").model.to_tokens("The cat").max() < 301
    with pytest.raises(ConfigError, match=r"set model\.d_vocab=301"):
        training.train({**SHAPE, "d_vocab": 300}, data, out=tmp_path / "small", steps=2, quiet=True, **FAST)

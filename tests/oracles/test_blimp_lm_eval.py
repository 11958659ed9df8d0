"""Protocol `lm-eval` against lm-evaluation-harness: the same weights, the same pairs, equal decisions."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from exported_runs import write_run
from scored_models import small_model, trained_model

from workbench.data.pairs import open_pairs
from workbench.evals.blimp import blimp
from workbench.model.hf import to_hf
from workbench.runs.foreign import export

pytest.importorskip("lm_eval")


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def harness_scores(model, sentences, folder=None, **options) -> np.ndarray:
    """What the harness' own Hugging Face backend gives each sentence as a BLiMP choice.

    It opens `folder` by itself, if there is one; else it is given the model.
    """
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    given = dict(pretrained=folder, device="cpu")
    if folder is None:
        given = dict(pretrained=to_hf(model), tokenizer=model.tokenizer)
    backend = HFLM(**given, batch_size=64, **options)
    requests = [
        Instance("loglikelihood", {}, ("", f" {sentence}"), index) for index, sentence in enumerate(sentences)
    ]
    return np.array([score for score, _ in backend.loglikelihood(requests, disable_tqdm=True)])


def compare(model, pairs, protocol="lm-eval", **options) -> None:
    """Equal scores to float32's rounding, equal decisions everywhere."""
    result = blimp(model, pairs, protocol).per_pair
    sentences = [text for pair in result.itertuples() for text in (pair.sentence_good, pair.sentence_bad)]
    theirs = harness_scores(model, sentences, **options)
    ours = result[["logp_good", "logp_bad"]].to_numpy().ravel()
    # Both run in float32: 1e-6 of a sum of some 100 nats, and the harness adds in float32.
    np.testing.assert_allclose(ours, theirs, rtol=3e-6, atol=3e-5)
    chosen = theirs.reshape(-1, 2).argmax(1)  # its accuracy: the first of equals
    flipped = np.flatnonzero((result.correct.to_numpy() == 1.0) != (chosen == 0))
    assert len(flipped) == 0, (
        f"{len(flipped)} decisions differ, margins {result.margin.iloc[flipped].tolist()}"
    )
    assert 0.1 < result.correct.mean() < 0.9
    assert len(result) >= 2000


def test_random_weights_on_embedded_pairs():
    compare(small_model(), open_pairs(None).select(limit=80))


def test_trained_weights_on_embedded_pairs():
    compare(trained_model(), open_pairs(None).select(limit=80))


@pytest.mark.parametrize("weights", ["random", "trained"])
def test_on_the_real_blimp(weights, real_data):
    model = small_model() if weights == "random" else trained_model()
    pairs = open_pairs(str(real_data / "blimp"))
    compare(model, pairs.select(limit=30))


def test_babylm_2023_is_the_harness_with_eos_in_front():
    model = small_model()
    compare(model, open_pairs(None).select(limit=80), "babylm-2023", prefix_token_id=2)


LLAMA = dict(positions="rotary", norm="RMSNorm", activation="silu", gated=True, tied=False,
             n_key_value_heads=2, qkv_bias=False, out_bias=False, mlp_bias=False)  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [{}, dict(attention_scale=1.0, qkv_bias=False, windows=(0, 5)), LLAMA],
    ids=["gpt2", "neo", "llama"],
)
def test_an_exported_folder_scores_the_same(fields, tmp_path):
    """The harness opens the folder by itself: settings, weights and tokenizer are all read from it."""
    model = small_model(**fields)
    run = write_run(tmp_path / "run", model)
    export(run, tmp_path / "folder")
    compare(model, open_pairs(None).select(limit=80), folder=str(tmp_path / "folder"))


def test_equal_sentences_are_right_here_as_there(make_tie):
    result = blimp(small_model(), make_tie, "lm-eval")
    assert result.per_pair.correct.tolist() == [1.0]
    assert result.overall.micro.ties == 1
    good, bad = harness_scores(small_model(), ["The dog ran.", "The dog ran."])
    assert good == bad


@pytest.fixture
def make_tie():
    from workbench.data.pairs import Pair, PairSet

    return PairSet("made", "folder", {"tie": [Pair("The dog ran.", "The dog ran.", "tie", "tie", 0)]})


def test_the_harness_own_task_counts_the_same(real_data, tmp_path, monkeypatch):
    """Its evaluator from end to end on one paradigm, with the fields of its BLiMP task."""
    import datasets
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    uid = "anaphor_number_agreement"
    task = dict(
        task=f"ours_{uid}", dataset_path=str(real_data / "blimp"), dataset_name=uid,
        output_type="multiple_choice", validation_split="train", num_fewshot=0, doc_to_text="",
        doc_to_target=0, doc_to_choice="{{[sentence_good, sentence_bad]}}",
        metric_list=[dict(metric="acc", aggregation="mean", higher_is_better=True)],
    )  # fmt: skip
    model = small_model()
    backend = HFLM(pretrained=to_hf(model), tokenizer=model.tokenizer, batch_size=64)
    theirs = lm_eval.simple_evaluate(backend, tasks=[task], bootstrap_iters=0, log_samples=False)
    assert theirs is not None
    ours = blimp(model, open_pairs(str(real_data / "blimp")), "lm-eval", paradigms=[uid])
    assert ours.overall.micro.accuracy == pytest.approx(
        theirs["results"][f"ours_{uid}"]["acc,none"], abs=1e-12
    )

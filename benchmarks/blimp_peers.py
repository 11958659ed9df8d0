"""Who scores BLiMP in the benchmark. Each takes a model, all pairs and a stride (peers score every n-th
pair), and gives seconds, margins of the compared pairs, and how many pairs it scored."""

import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from workbench.model.hf import to_hf

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
BATCHES = (32, 64)
"""Batch sizes that the harness is given; its better one counts. On two cores 16 and 128 are slower."""

Timing = tuple[float, list[float], int]


def ours(model: Any, pairs: Any, stride: int) -> Timing:
    """From the sentences to the shares; all pairs, because sharing prefixes is the point."""
    from workbench.evals.blimp import blimp

    blimp(model, pairs.select(limit=1), "lm-eval")
    began = time.perf_counter()
    result = blimp(model, pairs, "lm-eval")
    _ = result.overall
    return time.perf_counter() - began, result.per_pair.margin.tolist()[::stride], len(pairs)


def harness(model: Any, pairs: Any, stride: int) -> Timing:
    """`loglikelihood` of lm-evaluation-harness' own backend, at its better batch size."""
    from lm_eval.api.instance import Instance

    sentences = _sentences(pairs, stride)
    requests = [Instance("loglikelihood", {}, ("", text), i) for i, text in enumerate(sentences)]
    times, scores = [], []
    for batch_size in BATCHES:
        backend = _backend(model, batch_size)
        backend.loglikelihood(requests[:128], disable_tqdm=True)
        began = time.perf_counter()
        scores = [score for score, _ in backend.loglikelihood(requests, disable_tqdm=True)]
        times.append(time.perf_counter() - began)
    return min(times), _margins(scores), len(sentences) // 2


def minicons(model: Any, pairs: Any, stride: int) -> Timing:
    """Sums by minicons with BOS in front, 64 sentences a batch, sorted by their length in letters."""
    from minicons.scorer import IncrementalLMScorer

    sentences = _sentences(pairs, stride)
    scorer = IncrementalLMScorer(to_hf(model), "cpu", tokenizer=model.tokenizer)
    order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
    scores = [0.0] * len(sentences)
    began = time.perf_counter()
    for start in range(0, len(order), 64):
        batch = order[start : start + 64]
        texts = [sentences[index] for index in batch]
        found = scorer.sequence_score(texts, reduction=lambda x: x.sum(0).item(), bos_token=True)
        for index, score in zip(batch, found, strict=True):
            scores[index] = score
    return time.perf_counter() - began, _margins(scores), len(sentences) // 2


def whole_ours(model: Any, pairs: Any, stride: int) -> Timing:
    """From the files to the accuracies."""
    from workbench.data.pairs import open_pairs

    began = time.perf_counter()
    pairs = open_pairs(str(DATA / "blimp"))
    opened = time.perf_counter() - began
    seconds, _, count = ours(model, pairs, stride)
    return opened + seconds, [], count


def whole_harness(model: Any, pairs: Any, stride: int) -> Timing:
    """`simple_evaluate`, with the fields of the harness' BLiMP tasks, from the files to the accuracies;
    every `stride`-th paradigm."""
    import datasets.config
    import lm_eval

    uids = list(pairs.paradigms)[::stride]
    fields: dict[str, Any] = dict(
        dataset_path=str(DATA / "blimp"), output_type="multiple_choice", validation_split="train",
        num_fewshot=0, doc_to_text="", doc_to_target=0, doc_to_choice="{{[sentence_good, sentence_bad]}}",
        metric_list=[dict(metric="acc", aggregation="mean", higher_is_better=True)],
    )  # fmt: skip
    tasks: list[Any] = [dict(fields, task=f"ours_{uid}", dataset_name=uid) for uid in uids]
    evaluate: Callable[..., Any] = lm_eval.simple_evaluate
    backend = _backend(model, BATCHES[0])
    with tempfile.TemporaryDirectory() as cache:
        datasets.config.HF_DATASETS_CACHE = Path(cache)
        began = time.perf_counter()
        evaluate(backend, tasks=tasks, bootstrap_iters=0, log_samples=False)
        seconds = time.perf_counter() - began
    return seconds, [], sum(len(pairs.paradigms[uid]) for uid in uids)


Contestant = Callable[[Any, Any, int], Timing]
SCORING: dict[str, Contestant] = {"ours": ours, "lm-eval": harness, "minicons": minicons}
WHOLE: dict[str, Contestant] = {"ours": whole_ours, "lm-eval": whole_harness}


def _sentences(pairs: Any, stride: int) -> list[str]:
    chosen = pairs.pairs[::stride]
    return [f" {text}" for pair in chosen for text in (pair.sentence_good, pair.sentence_bad)]


def _margins(scores: list[float]) -> list[float]:
    return [good - bad for good, bad in zip(scores[0::2], scores[1::2], strict=True)]


def _backend(model: Any, batch_size: int) -> Any:
    backend = import_module("lm_eval.models.huggingface").HFLM
    return backend(pretrained=to_hf(model), tokenizer=model.tokenizer, batch_size=batch_size)

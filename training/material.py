"""What a run reads: its corpus, opened, tokenised and packed, ready to be batched."""

import dataclasses
from pathlib import Path
from typing import Any

from training.memo import remembered
from workbench.console import Progress
from workbench.errors import ConfigError, RunError
from workbench.io import read_json
from workbench.runs import folder
from workbench.runs.config import RunSettings


@dataclasses.dataclass(frozen=True)
class Material:
    """What a run reads, ready to be batched."""

    settings: RunSettings
    tokenizer: Any
    tokenizer_hash: str
    packed: Any


def prepare(settings: RunSettings, run: Path | None = None, progress: Progress | None = None) -> Material:
    """Open the corpus, make or read the tokenizer, pack the tokens.

    Args:
        settings: the run's; the vocabulary comes back as large as the tokenizer turned out.
        run: an existing run, whose tokenizer is read and whose corpus must be the same.
        progress: says what takes its time.

    Raises:
        DataError, ConfigError: no such corpus, an empty one, a tokenizer that does not fit.
        RunError: the corpus is not the one that the run began with.
    """
    from workbench.data.corpus import open_corpus
    from workbench.data.packing import pack
    from workbench.data.tokenizer import corpus_tokenizer, load_tokenizer, tokenizer_hash, vocabulary_size

    # In a process that trains many runs, a corpus is opened and packed once (see `training.memo`).

    if progress is not None and progress.due():
        progress.update(0.0, "reading the corpus")
    data = settings.data
    given = data.tokenizer if run is None else run / folder.TOKENIZER
    tokenizer = None if given is None else load_tokenizer(Path(given), apply_config=run is None)
    corpus = remembered(
        ("corpus", data.source, data.n_stories, data.column, data.limit),
        lambda: open_corpus(data.source, n_stories=data.n_stories, column=data.column, limit=data.limit),
    )
    size = settings.model.d_vocab
    if tokenizer is None:
        tokenizer = corpus_tokenizer(corpus.train, size, corpus.fingerprint)
    rows = vocabulary_size(tokenizer)
    if rows > size:
        raise ConfigError(
            f"model.d_vocab = {size:,} is smaller than the tokenizer, which has {rows:,} tokens; "
            f"set model.d_vocab={rows}."
        )
    if run is None:
        shape = dataclasses.replace(settings.model, d_vocab=rows)
        data = dataclasses.replace(data, source=corpus.source)
        settings = dataclasses.replace(settings, model=shape, data=data)
    room = settings.model.n_ctx - 1
    prompt = len(tokenizer.encode(settings.train.sample_prompt, add_special_tokens=False))
    if settings.train.sample_tokens and settings.model.objective == "clm" and prompt >= room:
        raise ConfigError(
            f"train.sample_prompt has {prompt} tokens, the context of {settings.model.n_ctx} has room for "
            f"{room - 1} and a continuation; shorten it, or set train.sample_tokens=0."
        )
    if progress is not None:
        progress.close()  # packing has a bar of its own
    digest = tokenizer_hash(tokenizer)
    packed = remembered(
        ("packed", corpus.fingerprint, digest, settings.model.n_ctx),
        lambda: pack(corpus, tokenizer, settings.model.n_ctx),
    )
    material = Material(settings, tokenizer, digest, packed)
    if run is not None:
        _check_same_data(run, packed)
    return material


def batch_shape(settings: RunSettings) -> dict[str, Any]:
    """What batches for training and for evaluation have in common."""
    return {
        "batch_size": settings.train.batch_size,
        "n_ctx": settings.model.n_ctx,
        "cross_story": settings.data.cross_story,
        "objective": settings.model.objective,
    }


def _check_same_data(run: Path, packed: Any) -> None:
    then, now = read_json(run / folder.DATA_CARD), packed.data_card()
    if "fingerprint" not in then and "imported_from" in then:
        return
    if then.get("fingerprint") != now.get("fingerprint"):
        raise RunError(
            f"the corpus {now.get('source')} is not the one that {run} began with (its fingerprint differs); "
            "pass the original with --data, or train a new run."
        )

"""What all members share: one tokenizer for each size of vocabulary, so that their losses can be compared."""

import dataclasses
from pathlib import Path
from typing import Any

from training.memo import remembered
from training.sweep.plan import Member, Plan
from workbench.data.cache import locked
from workbench.runs.config import DataSettings, RunSettings


def corpus_of(data: DataSettings) -> Any:
    """The corpus, opened once in a process that keeps."""
    from workbench.data.corpus import open_corpus

    key = ("corpus", data.source, data.n_stories, data.column, data.limit)
    return remembered(
        key,
        lambda: open_corpus(data.source, n_stories=data.n_stories, column=data.column, limit=data.limit),
    )


def vocabulary_of(plan: Plan) -> dict[int, int]:
    """Make the tokenizers (they stay in the cache); d_vocab asked for to what came out.

    Raises:
        WorkbenchError: a corpus that cannot be read, a vocabulary that no tokenizer can have.
    """
    from workbench.data.tokenizer import load_tokenizer, vocabulary_size

    found = {}
    for member in plan.members:
        asked = member.settings.model.d_vocab
        if asked in found:
            continue
        given = member.settings.data.tokenizer
        tokenizer = load_tokenizer(Path(given)) if given is not None else _train(member, asked)
        found[asked] = vocabulary_size(tokenizer)
    return found


def with_tokenizer(folder: Path, plan: Plan, member: Member) -> RunSettings:
    """The member's settings with the sweep's tokenizer, which is written to the folder if it is missing."""
    if member.settings.data.tokenizer is not None:
        return member.settings
    file = tokenizer_file(folder, plan, member)
    if not file.exists():
        _write(file, plan, member)
    data = dataclasses.replace(member.settings.data, tokenizer=str(file))
    return dataclasses.replace(member.settings, data=data)


def write_tokenizers(folder: Path, plan: Plan) -> None:
    """Put every tokenizer of the plan into the folder."""
    for member in plan.members:
        with_tokenizer(folder, plan, member)


def tokenizer_file(folder: Path, plan: Plan, member: Member) -> Path:
    """tokenizer.json; with the number of tokens in its name where members differ in it."""
    sizes = {one.settings.model.d_vocab for one in plan.members if one.settings.data.tokenizer is None}
    size = member.settings.model.d_vocab
    return Path(folder) / ("tokenizer.json" if len(sizes) == 1 else f"tokenizer-{size}.json")


def _write(file: Path, plan: Plan, member: Member) -> None:
    from workbench.data.tokenizer import save_tokenizer

    size = member.settings.model.d_vocab
    first = next(
        one
        for one in plan.members
        if one.settings.model.d_vocab == size and one.settings.data.tokenizer is None
    )
    asked = {came: wish for wish, came in plan.vocabulary.items()}.get(size, size)
    with locked(file.with_name(f".{file.name}.lock")):
        if not file.exists():
            save_tokenizer(_train(first, asked), file)


def _train(member: Member, d_vocab: int) -> Any:
    from workbench.data.tokenizer import corpus_tokenizer

    corpus = corpus_of(member.settings.data)
    return corpus_tokenizer(corpus.train, d_vocab, corpus.fingerprint)

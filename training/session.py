"""Begin a run, or go on with one: everything around the loop.

Nothing is written to the run's place before its settings are checked, its corpus opened and packed and
its model built; then the folder appears whole.
"""

import dataclasses
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from training.config import RunSettings, resolve
from training.progress import Progress
from training.signals import StopSignals
from workbench.errors import ConfigError, RunError
from workbench.files import BAD_DISK, disk_reason, read_json, write_json
from workbench.runs import folder
from workbench.runs.card import write_card
from workbench.runs.checkpoint import checkpoint_steps, read_model, read_optimizer, sweep_leftovers
from workbench.runs.lock import locked


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` or `resume` ended."""

    run: Path
    step: int
    finished: bool
    signal: int | None = None
    """The signal that ended it early; the run was saved."""


@dataclasses.dataclass(frozen=True)
class Material:
    """What a run reads, ready to be batched."""

    settings: RunSettings
    tokenizer: Any
    tokenizer_hash: str
    packed: Any


def train(settings: RunSettings, out: Path, quiet: bool = False) -> Outcome:
    """Train a new run.

    Args:
        settings: from `training.config.resolve`.
        out: the run folder to make.
        quiet: no progress line.

    Raises:
        WorkbenchError: bad settings or data, an existing folder, a full disk, or a loss that is not finite.
        Stopped: a signal came before the run folder was made; nothing is left behind.
    """
    out = Path(out)
    progress = Progress(out.name, quiet=quiet)
    with StopSignals() as signals:
        folder.check_free(out)
        _check_compiler(settings)
        use_threads(settings.train.threads)
        material = prepare(settings, progress=progress)
        settings = material.settings
        if settings.train.dtype == "auto":
            from training.precision import faster_dtype

            settings = _with_train(settings, dtype=faster_dtype())
        from workbench.model.transformer import HookedTransformer

        model = HookedTransformer(settings.model, material.tokenizer)
        signals.arm()
        folder.create_run(out, settings.to_dict(), material.tokenizer, material.packed.data_card())
        with locked(out):
            return _fit(out, dataclasses.replace(material, settings=settings), model, None, progress, signals)


def resume(
    run: str | os.PathLike[str],
    *,
    steps: int | None = None,
    tokens: int | None = None,
    minutes: float | None = None,
    data: str | None = None,
    threads: int | None = None,
    wandb: bool | None = None,
    quiet: bool = False,
) -> Outcome:
    """Go on with a run from its last good checkpoint.

    Without a limit: to the end that was asked for. With one: that much more from where it stands; the
    learning rate then follows the schedule of the longer run, as if it had been asked for at the start.
    An imported run begins to train here, on the corpus given, with a fresh optimiser.

    Args:
        run: the run folder.
        steps, tokens, minutes: how much more; at most one.
        data: where the corpus is now, if it moved; it must be the same corpus.
        threads: CPU threads, in place of the run's own number.
        wandb: switch tracking on or off.
        quiet: no progress line.

    Raises:
        WorkbenchError: no such run, no whole checkpoint, other data than before, already finished.
    """
    path, asked = folder.find_run(run)
    if asked is not None:
        raise RunError(f"{run}: training goes on from the last checkpoint; name the run alone: {path}.")
    progress = Progress(path.absolute().name, quiet=quiet)
    with StopSignals() as signals, locked(path):
        sweep_leftovers(path)
        settings = resolve(folder.read_config(path))
        point = folder.good_checkpoint(path, optimizer=True) if checkpoint_steps(path) else None
        state = point.state if point else {"step": 0, "seconds_trained": 0.0}
        if "imported_from" in state and data is None:
            raise RunError(
                f"{path} was imported and has no corpus of its own; fine-tune it on yours: "
                f"workbench resume {path} --data stories.txt --minutes 10"
            )
        more = {"steps": steps, "tokens": tokens, "minutes": minutes}
        settings = _extended(settings, state, more)
        if all(value is None for value in more.values()) and _is_finished(path, settings, state):
            raise RunError(
                f"{path} is finished at step {state['step']:,}; train it for longer with "
                f"`workbench resume {path} --minutes 5`."
            )
        if wandb is not None:
            settings = dataclasses.replace(settings, track=dataclasses.replace(settings.track, wandb=wandb))
        if threads is not None:
            settings = _with_train(settings, threads=threads)
        if data is not None:
            settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, source=data))
        use_threads(settings.train.threads)
        material = prepare(settings, path, progress)
        from workbench.model.transformer import HookedTransformer

        if point is None:
            model = HookedTransformer(settings.model, material.tokenizer)
        else:
            model = read_model(point.path, material.tokenizer)
        signals.arm()
        folder.write_config(path, settings.to_dict())
        if "imported_from" in state:
            # From here on it is a run like any other, whose training began with these weights.
            write_json(path / folder.DATA_CARD, {**material.packed.data_card(), **_origin(path)})
            point = None
        if point is not None:
            progress.say(f"Going on from step {point.step:,}.")
        return _fit(path, material, model, point, progress, signals)


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
    from workbench.data.tokenizer import corpus_tokenizer, load_tokenizer, tokenizer_hash

    if progress is not None and progress.due():
        progress.update(0.0, "reading the corpus")
    data = settings.data
    given = data.tokenizer if run is None else run / folder.TOKENIZER
    tokenizer = None if given is None else load_tokenizer(Path(given))
    corpus = open_corpus(data.source, n_stories=data.n_stories, column=data.column, limit=data.limit)
    size = settings.model.d_vocab
    if tokenizer is None:
        tokenizer = corpus_tokenizer(corpus.train, size, corpus.fingerprint)
    if len(tokenizer) > size:
        raise ConfigError(
            f"model.d_vocab = {size:,} is smaller than the tokenizer, which has {len(tokenizer):,} tokens; "
            f"set model.d_vocab={len(tokenizer)}."
        )
    if run is None:
        shape = dataclasses.replace(settings.model, d_vocab=len(tokenizer))
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
    packed = pack(corpus, tokenizer, settings.model.n_ctx)
    material = Material(settings, tokenizer, tokenizer_hash(tokenizer), packed)
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


def use_threads(threads: int | None) -> None:
    """Set torch's CPU threads, if asked to."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _fit(
    run: Path,
    material: Material,
    model: Any,
    point: Any,
    progress: Progress,
    signals: StopSignals,
) -> Outcome:
    from training.loop import Trainer
    from training.memory import keep_freed_pages
    from training.tracking import Record
    from training.wandb_copy import wanted
    from workbench.data.batches import Batches, eval_batches

    keep_freed_pages()
    settings = material.settings
    train_split, validation_split = material.packed.train, material.packed.validation
    shape = batch_shape(settings)
    tracker = partial(_tracker, run, settings, progress) if wanted(settings.track.wandb) else None
    record = Record(run, upto=point.step if point else 0, tracker=tracker)
    finished = False
    trainer = Trainer(
        run=run,
        settings=settings,
        model=model,
        batches=Batches(train_split, seed=settings.train.seed, **shape),
        validation=lambda tokens: eval_batches(validation_split, max_tokens=tokens, **shape),
        validation_tokens=validation_split.n_tokens,
        tokenizer_hash=material.tokenizer_hash,
        record=record,
        progress=progress,
        stopping=lambda: signals.requested is not None,
    )
    try:
        if point is not None:
            trainer.restore(point.state, read_optimizer(point.path))
        finished = trainer.fit()
    except OSError as error:
        if error.errno not in BAD_DISK:
            raise
        raise RunError(
            f"{run} stopped after step {trainer.step:,}: {disk_reason(error)}; its checkpoints are "
            f"untouched. Mend that, then: workbench resume {run}"
        ) from None
    finally:
        progress.close()
        record.close(complete=finished)
    try:
        write_card(run)
    except OSError as error:
        progress.say(f"Warning: the model card of {run} could not be written: {disk_reason(error)}.")
    return Outcome(run, trainer.step, finished, None if finished else signals.requested)


def _tracker(run: Path, settings: RunSettings, progress: Progress, earlier: Any) -> Any:
    from training.wandb_copy import WandbTracker

    values = settings.to_dict()
    chosen = values.pop("track")
    config = {"parameters": settings.model.n_params, "tokens_per_step": settings.tokens_per_step, **values}
    return WandbTracker(run, chosen, config, progress.say, earlier)


def _check_compiler(settings: RunSettings) -> None:
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    if settings.train.compile and not any(name and shutil.which(name) for name in names):
        raise ConfigError(
            "train.compile needs a C++ compiler (g++ or clang++) and none was found; "
            "install one, or train without --compile."
        )


def _with_train(settings: RunSettings, **changes: Any) -> RunSettings:
    return dataclasses.replace(settings, train=dataclasses.replace(settings.train, **changes))


def _extended(
    settings: RunSettings, state: dict[str, Any], more: dict[str, float | int | None]
) -> RunSettings:
    """The settings with a limit so much later than where the run stands."""
    given = {name: value for name, value in more.items() if value is not None}
    if not given:
        return settings
    if len(given) > 1:
        raise ConfigError(f"--{' and --'.join(given)} were both given; a run has one limit.")
    (name, value), *_ = given.items()
    if not value > 0:
        raise ConfigError(f"--{name} must be above 0; found {value!r}.")
    done = {
        "steps": state["step"],
        "tokens": state["step"] * settings.tokens_per_step,
        "minutes": state["seconds_trained"] / 60,
    }[name]
    return _with_train(settings, **{"steps": None, "tokens": None, "minutes": None, name: done + value})


def _is_finished(run: Path, settings: RunSettings, state: dict[str, Any]) -> bool:
    from training.schedule import Budget

    chosen = settings.train
    budget = Budget.of(chosen.steps, chosen.tokens, chosen.minutes, settings.tokens_per_step)
    if not budget.done(state["step"], state["seconds_trained"]):
        return False
    rows = [row for row in folder.read_rows(run / folder.METRICS) if row.get("step") == state["step"]]
    sampled = not chosen.sample_tokens or any(row.get("kind") == "sample" for row in rows)
    return sampled and any(row.get("final") for row in rows)


def _origin(run: Path) -> dict[str, Any]:
    """Where an imported run came from, as its data.json says."""
    card = read_json(run / folder.DATA_CARD)
    return {key: card[key] for key in ("imported_from", "family") if key in card}


def _check_same_data(run: Path, packed: Any) -> None:
    then, now = read_json(run / folder.DATA_CARD), packed.data_card()
    if "fingerprint" not in then and "imported_from" in then:
        return
    if then.get("fingerprint") != now.get("fingerprint"):
        raise RunError(
            f"the corpus {now.get('source')} is not the one that {run} began with (its fingerprint differs); "
            "pass the original with --data, or train a new run."
        )

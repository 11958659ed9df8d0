"""Begin a run, or go on with one: everything around the loop.

Nothing is written to the run's place before its settings are checked, its corpus opened and packed and
its model built; then the folder appears whole.
"""

import dataclasses
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.callbacks import NO_HOOKS, Hooks
from training.distributed import Alone, from_environment, join, shares
from training.material import Material, batch_shape, prepare
from training.memo import remembered
from training.optimizers import check_installed
from training.signals import StopSignals
from workbench.console import Progress
from workbench.errors import ConfigError, RunError, shown
from workbench.io import BAD_DISK, disk_reason, locked, read_json, write_json
from workbench.runs import folder
from workbench.runs import zoo as shipped
from workbench.runs.card import write_card
from workbench.runs.checkpoint import checkpoint_steps, read_model, read_optimizer, sweep_leftovers
from workbench.runs.config import RunSettings, resolve

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` or `resume` ended."""

    run: Path
    step: int
    finished: bool
    signal: int | None = None
    """The signal that ended it early; the run was saved."""
    leads: bool = True
    """False in a process that only helped to train; another one writes and speaks."""


def train(settings: RunSettings, out: Path, quiet: bool = False, hooks: Hooks = NO_HOOKS) -> Outcome:
    """Train a new run.

    Args:
        settings: from `workbench.runs.config.resolve`.
        out: the run folder to create.
        quiet: no progress line.
        hooks: callbacks and the loss of a caller in Python.

    Raises:
        WorkbenchError: bad settings or data, an existing folder, a full disk, or a loss that is not finite.
        Stopped: a signal came before the run folder was made; nothing is left behind.
    """
    out = Path(out)
    place = from_environment()
    if place is None or place["rank"] == 0:
        folder.check_free(out)
    with StopSignals() as signals, _joined(settings) as (group, device):
        progress = _progress(out.name, quiet, group, hooks)
        with group.leader_first():
            if group.leads:
                _check_compiler(settings, device)
                check_installed(settings.train.optimizer)
                use_threads(settings.train.threads, group)
                material = prepare(settings, progress=progress)
                settings = material.settings
                if settings.train.dtype == "auto":
                    from training.precision import faster_dtype

                    dtype = remembered(("dtype", str(device)), lambda: faster_dtype(device))
                    settings = _with_train(settings, dtype=dtype)
                # Built before the folder is there: a model too large leaves nothing behind.
                model = _build(settings, material.tokenizer, device)
                signals.arm()
                data = material.packed.data_card()
                folder.create_run(out, settings.to_dict(), material.tokenizer, data)
            else:
                settings = resolve(folder.read_config(out))
                use_threads(settings.train.threads, group)
                material = prepare(settings, out)
                model = _build(settings, material.tokenizer, device)
                signals.arm()
        material = dataclasses.replace(material, settings=settings)
        with _owned(out, group):
            return _fit(out, material, model, None, progress, signals, group, hooks)


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
    hooks: Hooks = NO_HOOKS,
) -> Outcome:
    """Continue a run from its last intact checkpoint.

    Without a limit the run continues to its original end. With one it trains for that much more; the
    learning rate then follows the schedule of the longer run, as if it had been set at the start. An imported
    run starts to train here, on the given corpus, with a fresh optimiser.

    Args:
        run: the run folder.
        steps, tokens, minutes: how much more; at most one.
        data: where the corpus is now, if it moved; it must be the same corpus.
        threads: CPU threads, in place of the run's own number.
        wandb: switch tracking on or off.
        quiet: no progress line.
        hooks: callbacks and the loss of a caller in Python; a run with a custom loss needs it again.

    Raises:
        WorkbenchError: no such run, no intact checkpoint, other data than before, already finished.
    """
    path, asked = folder.find_run(run)
    shipped.refuse_shipped(path, "trained further")
    if asked is not None:
        raise RunError(f"{run}: training goes on from the last checkpoint; name the run alone: {path}.")
    first = resolve(folder.read_config(path))
    with StopSignals() as signals, _joined(first) as (group, device), _owned(path, group):
        progress = _progress(path.absolute().name, quiet, group, hooks)
        with group.leader_first():
            if group.leads:
                sweep_leftovers(path)
            settings = resolve(folder.read_config(path)) if group.leads else first
            point = folder.good_checkpoint(path, optimizer=True) if checkpoint_steps(path) else None
            state = point.state if point else {"step": 0, "seconds_trained": 0.0}
            _check_loss(path, state, hooks)
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
                settings = dataclasses.replace(
                    settings, track=dataclasses.replace(settings.track, wandb=wandb)
                )
            if threads is not None:
                settings = _with_train(settings, threads=threads)
            if data is not None:
                settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, source=data))
            use_threads(settings.train.threads, group)
            material = prepare(settings, path, progress)
            model = _build(settings, material.tokenizer, device, point)
            signals.arm()
        # Behind the barrier: the others have read the old configuration and the old origin.
        imported = "imported_from" in state
        if group.leads:
            with _disk_in_one_line(path, lambda: state["step"]):
                folder.write_config(path, settings.to_dict())
                if imported:
                    write_json(path / folder.DATA_CARD, {**material.packed.data_card(), **_origin(path)})
        if imported:  # from here on it is a run like any other, whose training began with these weights
            point = None
        if point is not None:
            progress.say(f"Resuming at step {point.step:,}.")
        longer = any(value is not None for value in more.values())
        return _fit(path, material, model, point, progress, signals, group, hooks, longer)


def use_threads(threads: int | None, group: Alone | None = None) -> None:
    """Set torch's CPU threads: as asked, or an equal share for each of several processes."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    elif group is not None and group.world > 1:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", group.world))
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // here))


@contextmanager
def _joined(settings: RunSettings) -> Iterator[tuple[Alone, "torch.device"]]:
    """The group that this process trains in, and where it computes."""
    from training.device import pick_device

    place = from_environment()
    if place is not None:  # before anything is joined or written
        shares(settings.train.batch_size, settings.train.accumulate, place["rank"], place["world"])
    device = pick_device(settings.train.device, place["local_rank"] if place else None)
    with join(device) as group:
        yield group, device


def _progress(name: str, quiet: bool, group: Alone, hooks: Hooks) -> Progress:
    if hooks.silent or not group.leads:
        return Progress(name, io.StringIO(), quiet=True)
    return Progress(name, quiet=quiet)


def _check_loss(run: Path, state: dict[str, Any], hooks: Hooks) -> None:
    """Refuse to continue a run under another loss than the one it was trained with."""
    name = state.get("custom_loss")
    if name is not None and hooks.loss is None:
        raise RunError(
            f"{run} was trained with the custom loss {shown(name)}; continue it from Python: "
            f"training.resume({str(run)!r}, loss={shown(name)})."
        )


def _owned(run: Path, group: Alone) -> AbstractContextManager[Any]:
    """The run's lock, which the process that writes holds for all."""
    return locked(run) if group.leads else nullcontext()


def _build(settings: RunSettings, tokenizer: Any, device: "torch.device", point: Any = None) -> Any:
    """A new model, or a checkpoint's, on its device."""
    from workbench.model.transformer import HookedTransformer

    if point is None:
        return HookedTransformer(settings.model, tokenizer).to(device)
    return read_model(point.path, tokenizer).to(device)


def _fit(
    run: Path,
    material: Material,
    model: Any,
    point: Any,
    progress: Progress,
    signals: StopSignals,
    group: Alone,
    hooks: Hooks,
    longer: bool = False,
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
    tracked = group.leads and wanted(settings.track.wandb)
    tracker = partial(_tracker, run, settings, progress) if tracked else None
    start = point.step if point else 0
    with _disk_in_one_line(run, lambda: start):
        record = Record(run, upto=start, tracker=tracker, writes=group.leads)
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
        group=group,
        hooks=hooks,
    )
    try:
        with _disk_in_one_line(run, lambda: trainer.step):
            if point is not None:
                trainer.restore(point.state, read_optimizer(point.path))
            if longer:
                trainer.extend()
            finished = trainer.fit()
    finally:
        progress.close()
        record.close(complete=finished)
    if group.leads:
        try:
            write_card(run)
        except OSError as error:
            progress.say(f"Warning: the model card of {run} could not be written: {disk_reason(error)}.")
    return Outcome(run, trainer.step, finished, None if finished else signals.requested, group.leads)


@contextmanager
def _disk_in_one_line(run: Path, step: Callable[[], int]) -> Iterator[None]:
    """An error of the disk as one line that says where the run stands and how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in BAD_DISK:
            raise
        raise RunError(
            f"{run} stopped after step {step():,}: {disk_reason(error)}; its checkpoints are "
            f"untouched. Fix this, then run `workbench resume {run}`"
        ) from None


def _tracker(run: Path, settings: RunSettings, progress: Progress, earlier: Any) -> Any:
    from training.wandb_copy import WandbTracker

    values = settings.to_dict()
    chosen = values.pop("track")
    config = {"parameters": settings.model.n_params, "tokens_per_step": settings.tokens_per_step, **values}
    return WandbTracker(run, chosen, config, progress.say, earlier)


def _check_compiler(settings: RunSettings, device: "torch.device") -> None:
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    if (
        device.type == "cpu"
        and settings.train.compile
        and not any(name and shutil.which(name) for name in names)
    ):
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
    from training.stopping import EarlyStopping

    chosen = settings.train
    budget = Budget.of(chosen.steps, chosen.tokens, chosen.minutes, settings.tokens_per_step)
    rows = [row for row in folder.read_rows(run / folder.METRICS) if row.get("step", -1) <= state["step"]]
    stopped = EarlyStopping(chosen.patience, rows).stopped
    if not (stopped or budget.done(state["step"], state["seconds_trained"])):
        return False
    last = [row for row in rows if row["step"] == state["step"]]
    sampled = not chosen.sample_tokens or any(row["kind"] == "sample" for row in last)
    return sampled and any(row.get("final") for row in last)


def _origin(run: Path) -> dict[str, Any]:
    """Where an imported run came from, as its data.json says."""
    card = read_json(run / folder.DATA_CARD)
    return {key: card[key] for key in ("imported_from", "family") if key in card}

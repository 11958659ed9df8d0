"""Training: `train` and `resume` from Python; `workbench train` and `workbench sweep` use the same code."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.callbacks import Callback, Loss
    from workbench.model.config import ModelConfig
    from workbench.runs.run import Run

__all__ = ["resume", "train"]


def train(
    model: "str | ModelConfig | Mapping[str, Any]" = "tiny",
    data: str | Mapping[str, Any] | None = None,
    *,
    out: str | os.PathLike[str],
    steps: int | None = None,
    tokens: int | str | None = None,
    minutes: float | None = None,
    quiet: bool = False,
    callbacks: "Sequence[Callback]" = (),
    loss: "Loss | None" = None,
    **settings: Any,
) -> "Run":
    """Train a new run and return it, opened at its last checkpoint.

    Args:
        model: a preset (`workbench presets` lists them), a `ModelConfig`, or its fields as a dict.
        data: where the stories come from (hub name, folder, .txt, .jsonl, .parquet), or the fields of the
            `data` section as a dict; None for the embedded stories.
        out: the run folder to create.
        steps, tokens, minutes: the limit; at most one. Ten minutes if none is given.
        quiet: print nothing.
        callbacks: functions called every `log_every` updates with a `training.callbacks.TrainingState`. A
            returned dict of numbers is written to metrics.jsonl (rows of kind "callback") and to wandb.
        loss: a function `loss(model, batch) -> scalar tensor` to minimise instead of cross-entropy.
        settings: fields of the `train` section, such as `batch_size=8, lr=1e-3, seed=1`.

    Raises:
        WorkbenchError: invalid settings or data, an existing folder, a full disk, a loss that is not finite.

    Example:
        >>> run = training.train("nano", out="runs/first", steps=100)  # doctest: +SKIP
        >>> run.metrics.query("kind == 'train'").loss.iloc[-1]  # doctest: +SKIP
    """
    from training import session
    from training.callbacks import Hooks
    from workbench.model.config import ModelConfig
    from workbench.runs.config import resolve
    from workbench.runs.run import load

    values: dict[str, Any] = {"train": dict(settings)}
    limits = {"steps": steps, "tokens": tokens, "minutes": minutes}
    values["train"] |= {name: value for name, value in limits.items() if value is not None}
    if isinstance(model, ModelConfig):
        values["model"] = model.to_dict()
    elif not isinstance(model, str):
        values["model"] = dict(model)
    if data is not None:
        values["data"] = {"source": data} if isinstance(data, str | os.PathLike) else dict(data)
    chosen = resolve(values, preset=model if isinstance(model, str) else None)
    session.train(chosen, Path(out), quiet, Hooks(tuple(callbacks), loss, silent=quiet))
    return load(out)


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
    callbacks: "Sequence[Callback]" = (),
    loss: "Loss | None" = None,
) -> "Run":
    """Continue a run from its last intact checkpoint and return it, opened at its new last checkpoint.

    Args:
        run: the run folder.
        steps, tokens, minutes: how much more to train; at most one. None: to the run's original end.
        data: where the corpus is now, if it moved; it must be the same corpus.
        threads: CPU threads, in place of the run's own number.
        wandb: turn tracking on or off.
        quiet: print nothing.
        callbacks, loss: see `train`.

    Raises:
        WorkbenchError: no such run, no intact checkpoint, other data than before, or already finished.
    """
    from training import session
    from training.callbacks import Hooks
    from workbench.runs.run import load

    outcome = session.resume(
        run, steps=steps, tokens=tokens, minutes=minutes, data=data, threads=threads, wandb=wandb,
        quiet=quiet, hooks=Hooks(tuple(callbacks), loss, silent=quiet),
    )  # fmt: skip
    return load(outcome.run)

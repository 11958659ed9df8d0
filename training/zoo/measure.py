"""A run's checkpoints measured on the whole validation split, alike for all: which one ships, and what
float16 costs it."""

import dataclasses
from pathlib import Path
from typing import Any

from training.evaluate import Evaluation, evaluate
from training.material import Material, prepare
from workbench.errors import RunError
from workbench.runs import folder
from workbench.runs.checkpoint import checkpoint_folder, checkpoint_steps, read_model
from workbench.runs.config import resolve

SLACK = 1.05
"""How much higher a loss on a part of the split may be for its checkpoint to be measured on all."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The checkpoint that ships, and why."""

    step: int
    last: int
    """The last checkpoint's step."""
    found: Evaluation
    """Of its float32 weights."""
    measured: dict[int, float]
    """Validation loss of each checkpoint that was compared, nats a token."""


def open_material(run: Path, data: str | None = None) -> Material:
    """The run's corpus and tokenizer.

    Args:
        run: the run folder.
        data: where the corpus is now, if it moved.

    Raises:
        RunError: the corpus is not the one that the run was trained on.
    """
    settings = resolve(folder.read_config(run))
    if data is not None:
        settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, source=data))
    return prepare(settings, run)


def measure(model: Any, material: Material, tokens: int | None = None) -> Evaluation:
    """Loss of a model on the validation split, as at the end of training.

    Args:
        model: with the material's vocabulary.
        material: see `open_material`.
        tokens: only so many; None for all.

    Raises:
        RunError: nothing to score.
    """
    from workbench.data.batches import eval_batches

    settings = material.settings
    batches = eval_batches(
        material.packed.validation, settings.train.batch_size, settings.model.n_ctx, max_tokens=tokens,
        objective=settings.model.objective or "clm", cross_story=settings.data.cross_story,
    )  # fmt: skip
    found = evaluate(model, batches)
    if found is None:
        raise RunError("the validation split has no tokens to score.")
    return found


def choose(run: Path, material: Material, tokens: int | None = None) -> Chosen:
    """The better of the last checkpoint and the one with the lowest validation loss on the way.

    Evaluations on the way read a part of the split; here both are measured on all of it, unless the one on
    the way is behind by more than two parts of a split can differ.

    Raises:
        RunError: no checkpoint.
    """
    steps = checkpoint_steps(run)
    if not steps:
        raise RunError(f"{run} has no checkpoint, so there is nothing to ship; train it first.")
    rows = folder.read_rows(run / folder.METRICS)
    losses: dict[int, float] = {
        row["step"]: row["loss"]
        for row in rows
        if row.get("kind") == "eval" and row.get("step") in steps and not row.get("final")
    }
    ends = [row["loss"] for row in rows if row.get("kind") == "eval" and row.get("step") == steps[-1]]
    near = [step for step, loss in losses.items() if not ends or loss <= ends[-1] * SLACK]
    best_on_the_way = min(near, key=lambda step: losses[step]) if near else steps[-1]
    candidates = sorted({best_on_the_way, steps[-1]})
    found = {
        step: measure(read_model(checkpoint_folder(run, step), material.tokenizer), material, tokens)
        for step in candidates
    }
    best = min(found, key=lambda step: (found[step].loss, step))
    measured = {step: one.loss for step, one in found.items()}
    return Chosen(step=best, last=steps[-1], found=found[best], measured=measured)

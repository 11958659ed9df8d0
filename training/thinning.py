"""Which checkpoints stay on the disk as a run goes on."""

from pathlib import Path

from training.schedule import checkpoint_due
from workbench.errors import RunError
from workbench.runs.checkpoint import (
    checkpoint_folder,
    checkpoint_steps,
    delete_checkpoint,
    drop_optimizer,
    read_state,
)
from workbench.runs.config import TrainSettings


def thin_out(run: Path, step: int, settings: TrainSettings, best: int | None = None) -> None:
    """Of the planned checkpoints all but the last few lose the optimiser's state; of those that interruptions
    left only the newest stays, and only until a planned one follows.

    Args:
        run: the run folder.
        step: where the run stands; later checkpoints are left alone.
        settings: `checkpoint_every` says what is planned, `keep_optimizer` how many stay whole (0: all).
        best: the step of the best evaluation, whose weights stay.
    """
    steps = [found for found in checkpoint_steps(run) if found <= step]
    planned = [
        found
        for found in steps
        if found == best or checkpoint_due(found, settings.checkpoint_every) or _is_planned(run, found)
    ]
    keep = settings.keep_optimizer
    for found in planned[:-keep] if keep else []:
        drop_optimizer(run, found)
    for found in steps[:-1]:
        if found not in planned:
            delete_checkpoint(run, found)


def _is_planned(run: Path, step: int) -> bool:
    try:
        return read_state(checkpoint_folder(run, step)).get("planned", True)
    except RunError:
        return True  # damaged: left for its owner to look at

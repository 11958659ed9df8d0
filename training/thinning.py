"""Which checkpoints stay on the disk as a run goes on."""

from pathlib import Path

from workbench.errors import RunError
from workbench.runs.checkpoint import (
    checkpoint_folder,
    checkpoint_steps,
    delete_checkpoint,
    drop_optimizer,
    read_state,
)


def thin_out(run: Path, step: int, keep: int, best: int | None = None) -> None:
    """Drop older optimiser states, and older checkpoints that neither the spacing nor `best` asks for.

    Args:
        run: the run folder.
        step: where the run stands; later checkpoints are left alone.
        keep: how many of the last checkpoints stay as they are; 0: all.
        best: the step of the best evaluation, whose weights stay.
    """
    older = [found for found in checkpoint_steps(run) if found <= step][: -keep or None]
    for found in older if keep else []:
        drop_optimizer(run, found)
        try:
            planned = read_state(checkpoint_folder(run, found)).get("planned", True)
        except RunError:
            continue  # damaged: left for its owner to look at
        if not planned and found != best:
            delete_checkpoint(run, found)

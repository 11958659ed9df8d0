"""What a run was trained on: any step's batch, rebuilt from the run folder (Pythia, Biderman et al. 2023).

Nothing was recorded on the way: a batch is a function of the seed and the step.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch

from training.material import batch_shape, prepare
from workbench.data.batches import Batch, Batches
from workbench.errors import ConfigError
from workbench.runs import folder
from workbench.runs.config import RunSettings, resolve


@dataclasses.dataclass(frozen=True)
class TrainedOn:
    """The training batches of one run; make it with `trained_on`."""

    run: Path
    settings: RunSettings
    batches: Batches
    tokenizer: Any

    def batch(self, step: int) -> Batch:
        """The rows whose gradients made the update from checkpoint `step` to `step + 1`.

        Args:
            step: 0 for the first update.

        Returns:
            `[batch_size * accumulate, n_ctx]`: the micro-batches of one update under each other.

        Raises:
            ConfigError: a negative step.
        """
        if step < 0:
            raise ConfigError(f"a step is 0 or more; found {step}.")
        many = self.settings.train.accumulate
        parts = [self.batches.batch(step * many + part) for part in range(many)]
        segments = [part.segments for part in parts if part.segments is not None]
        return Batch(
            torch.cat([part.tokens for part in parts]),
            torch.cat([part.targets for part in parts]),
            torch.cat(segments) if segments else None,
        )

    def text(self, step: int) -> list[str]:
        """What the model read at that step, a text for each row."""
        return self.tokenizer.batch_decode(self.batch(step).tokens)


def trained_on(run: str | os.PathLike[str], data: str | None = None) -> TrainedOn:
    """Open a run's training data; packs the corpus again if the cache lost it.

    Args:
        run: the run folder, or its bare name under `runs/`.
        data: where the same corpus is now, if it moved.

    Raises:
        RunError: no such run, or the corpus is not the one that it was trained on.
    """
    path, _ = folder.find_run(run)
    settings = resolve(folder.read_config(path))
    if data is not None:
        settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, source=data))
    material = prepare(settings, path)
    batches = Batches(material.packed.train, seed=settings.train.seed, **batch_shape(settings))
    return TrainedOn(path, settings, batches, material.tokenizer)

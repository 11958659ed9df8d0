"""One update: which windows are read, their gradient, its sum over all processes, the optimiser's step."""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch

from training.callbacks import Loss
from training.distributed import Alone, shares
from training.evaluate import IGNORE
from workbench.data.batches import Batch
from workbench.errors import ConfigError
from workbench.model.transformer import compiled_loss
from workbench.runs.config import RunSettings
from workbench.stats import derive


class NotRecorded(UserWarning):
    """Training on the GPU goes on without CUDA graphs, which costs small models most of their speed."""


class Updater:
    """Updates a model from the windows of a step.

    Args:
        settings: resolved settings.
        model: a `HookedTransformer`.
        batches: of the training split; `.batch(index)`.
        optimizer: holds the gradients and makes the update.
        group: the processes that share each step's windows.
        loss: a custom loss, in place of the model's own; it is neither compiled nor captured in a CUDA graph.
    """

    def __init__(
        self,
        settings: RunSettings,
        model: Any,
        batches: Any,
        optimizer: Any,
        group: Alone,
        loss: Loss | None = None,
    ) -> None:
        self.settings, self.model, self.batches = settings, model, batches
        self.optimizer, self.group = optimizer, group
        chosen = settings.train
        self._shares = shares(chosen.batch_size, chosen.accumulate, group.rank, group.world)
        if chosen.compile:
            torch._dynamo.reset()  # a process keeps eight compiled shapes, and a sweep trains many
        self.loss: Callable[..., torch.Tensor] = compiled_loss(model) if chosen.compile else model.loss
        if chosen.label_smoothing or chosen.z_loss:
            extra = {"label_smoothing": chosen.label_smoothing, "z_loss": chosen.z_loss}
            self.loss = functools.partial(self.loss, **extra)
        self._custom = loss is not None
        if loss is not None:
            if chosen.compile or chosen.label_smoothing or chosen.z_loss:
                raise ConfigError(
                    "a custom loss cannot be combined with train.compile, train.label_smoothing or "
                    "train.z_loss; compute them in the loss."
                )
            self.loss = lambda tokens, targets, segments: loss(model, Batch(tokens, targets, segments))
        self._on_gpu = model.device.type == "cuda"
        self._captured: Any = None

    def prepare(self, step: int) -> None:
        """Compile, and on a GPU record the step's kernels, before time is counted. Changes nothing."""
        if self.settings.train.compile:
            self._gradient(step)
            self.optimizer.zero_grad()
        if self._on_gpu and self._can_be_captured():
            from training.captured import CapturedStep

            try:
                self._captured = CapturedStep(self.loss, self.optimizer, self._pieces(step)[0][0])
            except RuntimeError as error:  # some step of this shape waits for the GPU
                self.optimizer.zero_grad()
                reason = str(error).strip().splitlines()[0][:100]
                warnings.warn(
                    f"this model's step cannot be recorded and is launched kernel by kernel ({reason}).",
                    NotRecorded,
                    stacklevel=2,
                )

    def __call__(self, step: int, lr: float) -> tuple[float, float]:
        """Update from step's windows.

        Returns:
            The mean loss over all scored tokens and the gradient's norm before clipping. If either is not
            finite, nothing has been changed.
        """
        if self._captured is not None and not self.model.has_listeners():
            return self._replay(step, lr)
        loss = self._gradient(step)
        if isinstance(loss, float) and not math.isfinite(loss):
            return loss, math.nan
        norm = self.optimizer.step(lr, loss if isinstance(loss, torch.Tensor) else None)
        if math.isfinite(norm):
            self.optimizer.zero_grad()
        return float(loss), norm

    def _pieces(self, step: int) -> list[tuple[Batch, float]]:
        """This process's forward passes of a step: a batch on its device, and the share of the step's scored
        tokens that it holds."""
        chosen, device = self.settings.train, self.model.device
        if chosen.accumulate == 1 and self.group.world == 1:
            return [(self.batches.batch(step).to(device), 1.0)]
        whole = [self.batches.batch(step * chosen.accumulate + part) for part in range(chosen.accumulate)]
        total = max(1, sum(map(_scored, whole)))
        mine = [whole[part].rows(rows) for part, rows in self._shares]
        return [(batch.to(device), _scored(batch) / total) for batch in mine]

    def _seed(self, step: int) -> None:
        if self.settings.model.dropout:
            own = (self.group.rank,) if self.group.rank else ()
            torch.manual_seed(derive(self.settings.train.seed, "dropout", step, *own))

    def _gradient(self, step: int) -> float | torch.Tensor:
        """Gradients of step's windows, summed over all processes; returns their mean loss: a number, or a
        tensor on the GPU that nobody has waited for."""
        self._seed(step)
        pieces = self._pieces(step)
        mean: Any = 0.0
        for batch, share in pieces:
            loss = self.loss(batch.tokens, batch.targets, batch.segments)
            loss = loss if share == 1.0 else loss * share
            mean = mean + (loss.detach() if self._on_gpu else loss.item())
            if isinstance(mean, float) and not math.isfinite(mean):
                break
            loss.backward()
            if len(pieces) > 1 or self.group.world > 1:
                self.optimizer.gather()
        if self.group.world > 1:
            mean = self.group.sum(float(mean))[0]
            if math.isfinite(mean):
                self.group.add_up(self.optimizer.gradient)
        return mean

    def _can_be_captured(self) -> bool:
        """Whether a step's work is the same each time and never waits for the GPU: a masked model looks for
        padding in its input, passes of different sizes are different work, and so are some optimisers'."""
        if self._custom:
            return False
        rows = {batch.tokens.shape for batch, _ in self._pieces(0)}
        return len(rows) == 1 and self.settings.model.attention == "causal" and self.optimizer.queues

    def _replay(self, step: int, lr: float) -> tuple[float, float]:
        self._seed(step)
        for place, (batch, share) in enumerate(self._pieces(step)):
            self._captured.add(batch, share, first=place == 0)
        if self.group.world > 1:
            self.group.add_up(self._captured.total)
            self.group.add_up(self.optimizer.gradient)
        return self._captured.update(lr)


def _scored(batch: Batch) -> int:
    """Scored tokens of a batch."""
    return int((batch.targets != IGNORE).sum())

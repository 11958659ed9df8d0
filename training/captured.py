"""A training step on a GPU as two CUDA graphs: small models do not wait for their kernels to be launched."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workbench.data.batches import Batch

_WARM_UP = 3
"""Passes before the capture, in which libraries allocate what they need (PyTorch's notes on CUDA graphs)."""


class CapturedStep:
    """Forward, backward and update, recorded once and replayed with other batches and learning rates.

    The recorded work is the trainer's own, so results are those of the same kernels launched one by one. A
    hook added later is not in the recording: the trainer then takes the ordinary way.

    Args:
        loss_of: `(tokens, targets, segments) -> loss`; must not wait for the device.
        optimizer: with `gather` and `queue_update`.
        batch: one on the device; all others must have its shape.
    """

    def __init__(self, loss_of: Callable[..., Tensor], optimizer: Any, batch: Batch) -> None:
        self._loss_of, self._optimizer, self._batch = loss_of, optimizer, batch
        device = batch.tokens.device
        self._share = torch.ones((), device=device)
        self.total = torch.zeros((), device=device)
        """The step's loss so far: the sum of the passes' losses, each times its share."""
        self._lr = torch.zeros((), device=device)
        self._found = torch.zeros(2, device=device)
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._pass()
                optimizer.zero_grad()
            optimizer.queue_update(self._lr, torch.full((), torch.nan, device=device))  # changes nothing
        torch.cuda.current_stream(device).wait_stream(side)
        self._passes: dict[bool, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._record_pass(first=True)
        self._update = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._update, pool=self._pool):
            norm = optimizer.queue_update(self._lr, self.total)
            self._found.copy_(torch.stack([self.total, norm]))

    def _pass(self) -> Tensor:
        batch = self._batch
        loss = self._loss_of(batch.tokens, batch.targets, batch.segments) * self._share
        loss.backward()
        return loss.detach()

    def _record_pass(self, first: bool) -> None:
        """The pass that begins a step's gradient, or one that adds to it."""
        if not first:
            self._optimizer.begun()
        graph = self._passes[first] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            loss = self._pass()
            self._optimizer.gather()
            if first:
                self.total.copy_(loss)
            else:
                self.total.add_(loss)
        self._optimizer.zero_grad()

    def add(self, batch: Batch, share: float, first: bool) -> None:
        """One forward and backward pass; its gradient counts with the weight `share`."""
        if first not in self._passes:
            self._record_pass(first)
        self._batch.tokens.copy_(batch.tokens)
        self._batch.targets.copy_(batch.targets)
        if self._batch.segments is not None and batch.segments is not None:
            self._batch.segments.copy_(batch.segments)
        self._share.fill_(share)
        self._passes[first].replay()

    def update(self, lr: float) -> tuple[float, float]:
        """Update from the gradient that was added up, and wait for it.

        Returns:
            The step's loss and the gradient's norm; if either is not finite, nothing was changed.
        """
        self._lr.fill_(lr)
        self._update.replay()
        loss, norm = self._found.tolist()
        return loss, norm

"""From a batch's activations to the vectors of its rows: a word's first or last token, or their mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor

from probes.activations.blocks import TOKEN_CHOICES, Batch
from workbench.errors import ConfigError, nearest

LARGEST = float(torch.finfo(torch.float16).max)


def need_choice(token: str) -> str:
    """`first`, `last` or `mean`.

    Raises:
        ConfigError: anything else.
    """
    if token not in TOKEN_CHOICES:
        raise ConfigError(f"token {token!r} is none of first, last, mean. {nearest(token, TOKEN_CHOICES)}")
    return token


class Gatherer:
    """Picks the rows of one batch out of any hook point's activation.

    Args:
        batch: the rows' places.
        width: tokens of the padded batch.
        token: `first`, `last` or `mean`.
        device: where the activations are.
    """

    def __init__(self, batch: Batch, width: int, token: str, device: torch.device) -> None:
        self.n_rows, self.n_spans = batch.first.shape
        self._width = width
        start = (batch.at * width)[:, None]
        self._segment: Tensor | None = None
        self._count: Tensor | None = None
        if token == "mean" and (batch.first != batch.last).any():
            counts = (batch.last - batch.first + 1).ravel()
            segment = np.repeat(np.arange(len(counts)), counts)
            within = np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts, counts)
            flat = (start + batch.first).ravel()[segment] + within
            self._segment = torch.from_numpy(segment).to(device)
            self._count = torch.from_numpy(counts).to(device)
        else:
            flat = (start + (batch.last if token == "last" else batch.first)).ravel()
        self._flat = torch.from_numpy(np.ascontiguousarray(flat)).to(device)

    def __call__(self, x: Float[Tensor, "batch pos *unit"]) -> tuple[Float16[Tensor, "row width"], int]:
        """The rows' vectors, spans side by side, and how many numbers were too large for float16 (they
        become its largest)."""
        if x.is_contiguous():
            picked = x.flatten(0, 1).index_select(0, self._flat).flatten(1)
        else:  # heads that attention left transposed: copying all of them would cost more than the rows
            picked = x[self._flat // self._width, self._flat % self._width].flatten(1)
        if self._segment is not None and self._count is not None:
            sums = picked.new_zeros(len(self._count), picked.shape[1], dtype=torch.float32)
            picked = sums.index_add_(0, self._segment, picked.float()) / self._count[:, None]
        low, high = (float(end) for end in picked.aminmax())  # one fast pass, and NaN where one is
        large = 0
        if not (low >= -LARGEST and high <= LARGEST):
            if low != low:
                return picked.to(torch.float16), -1
            large = int((picked.abs() > LARGEST).sum())
            picked = picked.clamp(-LARGEST, LARGEST)
        return picked.to(torch.float16).view(self.n_rows, -1), large


def padded(windows: Sequence[list[int]], pad: int | None, device: Any) -> tuple[Tensor, Tensor | None]:
    """Token ids [batch pos], padded on the right, and where they are none; None if there is no padding."""
    from workbench.model.tl import pad_rows

    tokens, real = pad_rows(list(windows), pad)
    return tokens.to(device), None if bool(real.all()) else real.to(device)

"""`Features`: the activations of a corpus' rows, on the disk until they are asked for."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, Int
from torch import Tensor

from probes.activations.hooks import place_of
from workbench.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class Features:
    """What a model computed at the rows of a corpus, by hook point.

    `features["blocks.0.hook_resid_post"]` is float16 [row width], where `width` is spans x d_model (x heads
    and head width for a hook point with heads).
    """

    model: str
    """Key of the weights."""
    corpus: str
    """Key of the corpus and the choice of token."""
    n_rows: int
    n_spans: int
    widths: Mapping[str, int]
    """Numbers of a row, by hook point."""
    folder: Path
    heads: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Heads of the hook points that have some."""
    seconds: float = 0.0
    """That reading took; 0 where everything was there."""
    read: int = 0
    """Tokens that the model read for it."""
    clipped: int = 0
    """Numbers too large for float16."""
    _rows: tuple[np.ndarray, ...] = dataclasses.field(default=(), repr=False)
    """Rows of each block."""
    _shards: tuple[Mapping[str, np.ndarray], ...] = dataclasses.field(default=(), repr=False)

    @property
    def hooks(self) -> tuple[str, ...]:
        """Names of the hook points, from the first layer on."""
        return tuple(self.widths)

    def __getitem__(self, hook: str) -> Float16[Tensor, "row width"]:
        """All rows of one hook point, in the corpus' order."""
        return self.rows(hook, None)

    def rows(self, hook: str, rows: Int[np.ndarray, " some"] | None) -> Float16[Tensor, "some width"]:
        """Some rows of one hook point, in the order in which they are named; all if None.

        Raises:
            InputError: no such hook point was read.
        """
        if hook not in self.widths:
            raise InputError(f"{hook!r} was not read. {nearest(hook, self.widths)}")
        place = np.full(self.n_rows, -1, np.int64)
        count = self.n_rows if rows is None else len(rows)
        if rows is None:
            place = np.arange(self.n_rows)
        else:
            place[rows] = np.arange(count)
            if len(np.unique(rows)) != count:
                raise InputError("a row is named twice.")
        out = np.empty((count, self.widths[hook]), np.float16)
        for mine, shard in zip(self._rows, self._shards, strict=True):
            to = place[mine]
            wanted = to >= 0
            if wanted.all():
                out[to] = shard[hook]
            elif wanted.any():
                out[to[wanted]] = shard[hook][wanted]
        return torch.from_numpy(out)

    def head(self, hook: str, head: int) -> Float16[Tensor, "row d_head"]:
        """One head's vectors, spans side by side.

        Raises:
            InputError: the hook point has no heads, or not so many.
        """
        count = self.heads.get(hook, 0)
        if not 0 <= head < count:
            raise InputError(f"{hook} has {count} heads; there is no head {head}.")
        x = self[hook].view(self.n_rows, self.n_spans, count, -1)
        return x[:, :, head].reshape(self.n_rows, -1)

    def stack(self, hooks: Sequence[str]) -> Float16[Tensor, "set row width"]:
        """Several hook points of one width, as the fitting wants them."""
        widths = {self.widths[hook] for hook in hooks if hook in self.widths}
        if len(widths) > 1:
            raise InputError(f"hook points of widths {sorted(widths)} cannot be stacked.")
        return torch.stack([self[hook] for hook in hooks])

    def layer_of(self, hook: str) -> int:
        """The block of a hook point; -1 for the embedding."""
        return place_of(hook).depth

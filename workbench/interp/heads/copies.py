"""Loss on the second of two copies: what a model gains from having read random tokens before.

Olsson et al. 2022 (arXiv:2209.11895) see induction heads form where this falls. On `[BOS] r r` the tokens
of r behind its first are predicted twice: from tokens that say nothing about them, and with r in sight.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.interp.paired import Change, mean_change
from workbench.interp.texts import IGNORED, TextBatch, row_nats


@dataclasses.dataclass(frozen=True)
class CopyLoss:
    """Mean loss on the same tokens in the first and in the second r, nats a token."""

    first: Float[np.ndarray, " sequence"]
    second: Float[np.ndarray, " sequence"]
    untrained: Change
    """`change` of an untrained copy; NaN if there was none."""
    seed: int = 0

    @property
    def change(self) -> Change:
        """Second minus first, with its 95 % interval over other sequences; below 0, r is read again."""
        return mean_change(self.second - self.first, seed=self.seed)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {
            "first": float(self.first.mean()),
            "second": float(self.second.mean()),
            **self.change._asdict(),
            **{f"untrained_{name}": value for name, value in self.untrained._asdict().items()},
            "sequences": len(self.first),
        }


@torch.no_grad()
def copy_loss(
    networks: Sequence[Any], rows: Sequence[Int[Tensor, " pos"]], length: int, seed: int = 0
) -> CopyLoss:
    """Read the same `[BOS] r r` with a model, and with its untrained copy if there is one.

    Args:
        networks: the model, and perhaps a copy.
        rows: sequences that end in r r.
        length: tokens in r.
        seed: of the intervals.
    """
    tokens = torch.stack(list(rows))
    places = torch.arange(tokens.shape[1], device=tokens.device)
    start = tokens.shape[1] - 2 * length
    found = []
    for network in networks:
        nats = []
        for copy in (0, 1):
            # The token that follows is the target; that r begins again, nobody can know.
            begins = start + copy * length
            scored = (places >= begins) & (places < begins + length - 1)
            targets = torch.where(scored, tokens.roll(-1, 1), IGNORED)
            parts = [
                row_nats(network, TextBatch(part, wanted))
                for part, wanted in zip(tokens.split(32), targets.split(32), strict=True)
            ]
            nats.append(torch.cat(parts).cpu().numpy() / (length - 1))
        found.append(nats)
    first, second = found[0]
    none = Change(np.nan, np.nan, np.nan)
    untrained = mean_change(found[1][1] - found[1][0], seed=seed) if len(found) > 1 else none
    return CopyLoss(first, second, untrained, seed)

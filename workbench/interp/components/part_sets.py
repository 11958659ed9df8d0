"""Sets of heads and MLPs, each the model in which only these are left, measured on the same pairs."""

import math
from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit
from torch import Tensor

from workbench.interp.ablation.ablate import Replacement, ablated
from workbench.interp.components.encoded_pairs import EncodedPairs
from workbench.interp.components.smallest_result import decisions
from workbench.interp.parts import Part

Parts = tuple[Part, ...]


class Measured:
    """Sets of parts, each measured once on the same pairs.

    Args:
        network: a `HookedTransformer` in evaluation mode.
        parts: all that can be kept.
        given: what replaces them.
        pairs: what is scored.
        tick: called after each measurement.
    """

    def __init__(
        self,
        network: Any,
        parts: Parts,
        given: Replacement,
        pairs: EncodedPairs,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.network, self.parts, self.given, self.pairs, self._tick = network, parts, given, pairs, tick
        self._known: dict[frozenset[Part], np.ndarray] = {}

    def margins(self, kept: Iterable[Part]) -> Float[np.ndarray, " pair"]:
        """Of the model in which only these parts are left, in nats."""
        key = frozenset(kept)
        if key not in self._known:
            gone = [part for part in self.parts if part not in key]
            with ablated(self.network, gone, self.given.how, self.given):
                self._known[key] = self.pairs.margins(self.network)
            self._tick()
        return self._known[key]

    def accuracy(self, kept: Iterable[Part]) -> float:
        """Share of pairs decided right; a tie counts half."""
        return float(decisions(self.margins(kept)).mean())

    def preference(self, kept: Iterable[Part]) -> float:
        """Mean probability of the good sentence of the two."""
        return float(expit(self.margins(kept)).mean())

    def slopes(self, kept: Parts) -> dict[Part, float]:
        """Of every part, the derivative of the preference by a gate between its replacement (0) and its own
        value (1), kept parts at 1 and the others at 0."""
        network = self.network
        points: dict[str, list[Part]] = {}
        for part in self.parts:
            points.setdefault(part.hook_name, []).append(part)
        like = dict(dtype=network.dtype, device=network.device)
        gates = {
            name: torch.tensor([[1.0 if part in kept else 0.0] for part in mine], **like).requires_grad_()
            for name, mine in points.items()
        }

        def gate(x: Tensor, hook: Any) -> Tensor:
            mine, by = points[hook.name], gates[hook.name]
            new = torch.zeros((), **like)
            if self.given.how != "zero":
                new = torch.stack([self.given.values[part] for part in mine]).to(x)
            return new + by * (x - new)

        odds = expit(self.margins(kept))
        weights = odds * (1 - odds) / len(odds)
        with network.hooks(fwd_hooks=[(name, gate) for name in points]):
            found = self.pairs.pull_back(network, weights, list(gates.values()))
        self._tick()
        return {
            part: float(slope)
            for mine, slopes in zip(points.values(), found, strict=True)
            for part, slope in zip(mine, slopes.flatten().tolist(), strict=True)
        }


def drawn_sets(parts: Parts, kept: Parts, draws: int, seed: int) -> list[Parts]:
    """Different sets of as many parts, each of them another than `kept`; all there are if they are no more.

    Args:
        parts: to draw from.
        kept: how many, and which not all together.
        draws: number of sets.
        seed: of the draws.
    """
    size, count = len(kept), math.comb(len(parts), len(kept)) - 1
    if count <= draws:
        return [one for one in combinations(parts, size) if set(one) != set(kept)]
    random, found = np.random.default_rng(seed), {}
    while len(found) < draws:
        drawn = random.choice(len(parts), size, replace=False)
        one = tuple(parts[index] for index in np.sort(drawn))
        if set(one) != set(kept):
            found[one] = None
    return list(found)

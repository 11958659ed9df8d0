"""The passes over all pairs that fill a component matrix: direct attribution, gradients, interventions."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.evals.workers import Tally, for_each
from workbench.interp.ablation.ablate import Replacement
from workbench.interp.components.effects import Cell, Interventions, direct, gradient
from workbench.interp.components.pair_batches import PairBatch, PairRows, groups, pair_batch
from workbench.interp.parts import Part

SWAPS = ("patch", "noise", "denoise")
TOKENS_PER_BATCH = {"cpu": 512}
"""Tokens of one batch before it is copied for its cells. A GPU takes 32 times as many."""
NUMBERS_AT_ONCE = 2**24
"""Of logits that are held for direct attribution and gradients."""


class Passes:
    """What is to be measured, and how far it is.

    Args:
        network: in eval mode.
        rows: the pairs.
        parts: what is intervened on.
        given: what ablated parts write, one for each draw.
        methods: see `component_matrix`.
        progress: see there.
    """

    def __init__(
        self,
        network: Any,
        rows: Sequence[PairRows],
        parts: Sequence[Part],
        given: Sequence[Replacement],
        methods: Sequence[str],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.network, self.rows, self.parts, self.given, self.methods = network, rows, parts, given, methods
        self.swaps = any(name in SWAPS for name in methods)
        self.groups = groups(rows, TOKENS_PER_BATCH.get(network.device.type, 32 * 512))
        cells = (len(given) if "ablate" in methods else 0) + self.swaps
        self.cost = {"direct": 4, "gradient": 4, "cells": max(1, cells * len(parts))}
        passes = [name for name in ("direct", "gradient") if name in methods] + ["cells"] * bool(cells)
        total = sum(self.cost[name] for name in passes) * sum(map(len, self.groups))
        count = len(rows)

        def tick(share: float) -> None:
            if progress is not None:
                progress(int(share * count), count)

        self.tally, self.passes = Tally(max(1, total), tick), passes

    def run(
        self, threads: int, width: int, where: Sequence[int]
    ) -> dict[str, Float[np.ndarray, "pair component"]]:
        """Effects by method, [pair component], NaN for components that a method does not know."""
        found = {name: np.full((len(self.rows), width), np.nan) for name in (*self.methods, *SWAPS)}
        for name, effect in found.items():
            effect[:, slice(None) if name == "direct" else where] = 0.0
        if "direct" in self.passes:
            for batch in self._batches("direct"):
                found["direct"][batch.pairs] = direct(self.network, batch)
        if "gradient" in self.passes:
            for batch in self._batches("gradient"):
                each = [gradient(self.network, batch, self.parts, given) for given in self.given]
                found["gradient"][batch.pairs[:, None], where] = np.mean(each, 0)
        if "cells" in self.passes:
            with Interventions(self.network) as interventions:
                for_each(lambda some: self._cells(interventions, some, found, where), self.groups, threads)
        return found

    def _batches(self, name: str) -> Iterator[PairBatch]:
        """Each batch, one after the other, with tables of logits of bounded size."""
        most = max(1, NUMBERS_AT_ONCE // self.network.config.d_vocab)
        for some in self.groups:
            size = max(1, most // max(pair.tokens.size for pair in (self.rows[number] for number in some)))
            for start in range(0, len(some), size):
                mine = some[start : start + size]
                yield pair_batch(self.network, self.rows, mine)
                self.tally.add(self.cost[name] * len(mine))

    def _cells(
        self,
        interventions: Interventions,
        some: Sequence[int],
        found: dict[str, np.ndarray],
        where: Sequence[int],
    ) -> None:
        batch: PairBatch = pair_batch(self.network, self.rows, some)
        given: list[Replacement | None] = [*self.given] if "ablate" in self.methods else []
        if self.swaps and batch.swap is not None:
            given.append(None)
        if given:
            cells = [Cell(part, one) for one in given for part in self.parts]
            base, after = interventions(batch, cells)
            lost = (base - after).reshape(len(given), len(self.parts), len(some), 2)
            here = batch.pairs[:, None]
            if "ablate" in self.methods:
                found["ablate"][here, where] = lost[: len(self.given)].sum(-1).mean(0).T
            if given[-1] is None:
                found["noise"][here, where] = lost[-1, ..., 0].T
                found["denoise"][here, where] = lost[-1, ..., 1].T
                found["patch"][here, where] = lost[-1].sum(-1).T
        self.tally.add(self.cost["cells"] * len(some))

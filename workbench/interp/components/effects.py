"""What each component does to the margins of a batch of minimal pairs: directly, when it is taken out, and
when the two sentences of a pair exchange what it wrote.

Every intervention is a cell: a head or an MLP, and what goes in for its output. A cell's run is the base run
up to its block, so it starts from the stream there, and many cells go through the later blocks as one batch.
"""

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.evals.normaliser import Readout
from workbench.interp.ablation.ablate import Replacement
from workbench.interp.components.pair_batches import PairBatch
from workbench.interp.direct.readout import path_probabilities
from workbench.interp.direct.writers import project, written
from workbench.interp.parts import Part

CELLS_AT_ONCE = 5
"""Copies of a batch that go through a block together."""
LOGITS_AT_ONCE = 2**19
"""Numbers in a table of probabilities: as many as stay in a processor's cache."""
SHARP = 1e-6
"""Completeness that is asked of float32 integrals."""


class Cell(NamedTuple):
    """One intervention."""

    part: Part
    given: Replacement | None
    """What goes in; None for the other sentence's."""


class Interventions:
    """Runs cells on batches of pairs; may be used by several threads at once. A context manager: it listens
    at the outputs of heads and MLPs while it is open.

    Args:
        model: a `HookedTransformer` in eval mode.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.readout = model, Readout.of(model)
        self._local = threading.local()
        self._open = ExitStack()

    def __enter__(self) -> "Interventions":
        def edit(x: Tensor, hook: Any) -> Tensor | None:
            change = getattr(self._local, "changes", {}).get(hook.name)
            return None if change is None else change(x)

        names = [name for name in self.model.hook_dict if name.endswith(("attn.hook_z", "hook_mlp_out"))]
        self._open.enter_context(self.model.hooks(fwd_hooks=[(name, edit) for name in names]))
        return self

    def __exit__(self, *_: Any) -> None:
        self._open.close()

    def __call__(
        self, batch: PairBatch, cells: Sequence[Cell]
    ) -> tuple[Float[np.ndarray, "pair 2"], Float[np.ndarray, "cell pair 2"]]:
        """Log-probabilities (see `PairBatch.log_probs`) of the base run, and of every cell's."""
        model, rows = self.model, len(batch.tokens)
        weighted = model.config.residual == "weighted"
        sights = {1: batch.sight(model, 1)}
        x = model._embed(batch.tokens, batch.positions)
        written, streams = [x], []
        for block in model.blocks:
            streams.append(x)
            x = block(x, sights[1], None, written)
        base = batch.log_probs(model, self.readout, x, 1)[0]
        found = base.new_empty(len(cells), *base.shape)
        layers = np.array([cell.part.layer for cell in cells])
        for layer in np.unique(layers).tolist():
            here = np.flatnonzero(layers == layer)
            for some in np.split(here, range(CELLS_AT_ONCE, len(here), CELLS_AT_ONCE)):
                count = len(some)
                if count not in sights:
                    sights[count] = batch.sight(model, count)
                x = streams[layer].repeat(count, 1, 1)
                wrote = [part.repeat(count, 1, 1) for part in written[: layer + 1]] if weighted else []
                self._local.changes = self._changes(batch, [cells[index] for index in some], rows)
                for block in model.blocks[layer:]:
                    x = block(x, sights[count], None, wrote)
                    self._local.changes = {}
                found[torch.from_numpy(some)] = batch.log_probs(model, self.readout, x, count)
        return base.cpu().numpy(), found.cpu().numpy()

    def _changes(self, batch: PairBatch, cells: Sequence[Cell], rows: int) -> dict[str, Any]:
        """What to do at each hook point to the copies of the rows, a copy for each cell."""
        together: dict[str, list[tuple[int, Cell]]] = {}
        for copy, cell in enumerate(cells):
            together.setdefault(cell.part.hook_name, []).append((copy, cell))

        def change(mine: list[tuple[int, Cell]]) -> Any:
            def replace(x: Tensor) -> Tensor:
                x = x.clone()
                for copy, cell in mine:
                    here = x[copy * rows : (copy + 1) * rows]
                    here = here if cell.part.kind == "mlp" else here[:, :, cell.part.unit]
                    here.copy_(_new(batch, cell, here))
                return x

            return replace

        return {name: change(mine) for name, mine in together.items()}


def _new(batch: PairBatch, cell: Cell, x: Float[Tensor, "row pos width"]) -> Tensor:
    """What goes in for a part's output."""
    if cell.given is None:
        assert batch.swap is not None
        return x.gather(1, batch.swap[..., None].expand(x.shape))
    if cell.given.how == "zero":
        return torch.zeros_like(x)
    values = cell.given.values[cell.part].to(x)
    return values.expand(x.shape) if cell.given.how == "mean" else values[batch.positions]


def direct(model: Any, batch: PairBatch) -> Float[np.ndarray, "pair component"]:
    """Direct attribution of each pair's margin, whole sentences, as `attribute_pair` gives it; columns in the
    order of `workbench.interp.direct.writers.components`."""
    places = (batch.tokens, batch.node_row, batch.node_place)
    parts = written(model, *places, positions=batch.positions, mask=batch.mask)
    weight, bias = model.readout_weight.detach(), model.readout_bias
    nodes = len(batch.net)
    direction = weight.new_zeros(nodes, weight.shape[1], dtype=torch.float64)
    direction.index_add_(0, batch.target_node, weight[batch.target_token].double() * batch.weight[:, None])
    added = direction.new_zeros(nodes)
    if bias is not None:
        added.index_add_(0, batch.target_node, bias.detach()[batch.target_token].double() * batch.weight)
    for some in (batch.net != 0).nonzero()[:, 0].split(max(1, LOGITS_AT_ONCE // len(weight))):
        logits = model.unembed(parts.final[some]).detach()
        expected = path_probabilities(logits, 1e-12 if logits.dtype == torch.float64 else SHARP)
        direction[some] -= batch.net[some, None] * (expected @ weight).double()
        if bias is not None:
            added[some] -= batch.net[some] * (expected @ bias.detach()).double()
    contributions = project(model, parts, direction)
    contributions[:, -1] += added
    pair = batch.row_pair[batch.node_row]
    out = contributions.new_zeros(len(batch.pairs), contributions.shape[1])
    return out.index_add_(0, pair, contributions).cpu().numpy()


def gradient(
    model: Any, batch: PairBatch, parts: Sequence[Part], given: Replacement
) -> Float[np.ndarray, "pair part"]:
    """First-order estimate of what the margin loses by an ablation: gradient x (activation - replacement),
    summed over positions (attribution patching: Nanda 2023; Syed et al. 2023, arXiv:2310.10348)."""
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any) -> None:
        kept[hook.name] = x

    with (
        torch.enable_grad(),
        model.hooks(fwd_hooks=[(part.hook_name, keep) for part in _first_of_hook(parts)]),
    ):
        x = model.residual(batch.tokens, positions=batch.positions, mask=batch.mask)
        final = x[batch.node_row, batch.node_place]
        log_probs = model.unembed(final).log_softmax(-1)[batch.target_node, batch.target_token]
        gradients = torch.autograd.grad((log_probs * batch.weight).sum(), list(kept.values()))
    slopes = dict(zip(kept, gradients, strict=True))
    out = batch.weight.new_zeros(len(batch.pairs), len(parts))
    for column, part in enumerate(parts):
        x, slope = kept[part.hook_name].detach(), slopes[part.hook_name]
        if part.head is not None:
            x, slope = x[:, :, part.unit], slope[:, :, part.unit]
        change = x - _new(batch, Cell(part, given), x)
        rows = (slope * change).sum((1, 2), dtype=torch.float64)
        out[:, column].index_add_(0, batch.row_pair, rows)
    return out.cpu().numpy()


def _first_of_hook(parts: Sequence[Part]) -> list[Part]:
    return list({part.hook_name: part for part in parts}.values())

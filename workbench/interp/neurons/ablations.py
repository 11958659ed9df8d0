"""Each neuron at its baseline, one run each: the truth that other attributions are held against."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.interp.neurons.gradients import NEURON, Progress
from workbench.interp.patching.base_run import Base
from workbench.interp.patching.metrics import Metric
from workbench.interp.patching.resume import Cells, run_cells


@torch.no_grad()
def ablations(
    base: Base,
    metric: Metric,
    moved: Mapping[int, Float[Tensor, "pair pos neuron"]],
    value: Float[np.ndarray, " pair"],
    by_position: bool,
    progress: Progress = lambda done, total: None,
) -> dict[int, Float[Tensor, "pair pos_or_1 neuron"]]:
    """What the metric loses when a neuron goes to its baseline; by layer. Neurons that are there already
    score 0 and take no run.

    Args:
        base: the run.
        metric: what is attributed.
        moved: by layer, the activations at their baselines.
        value: the metric of the run.
        by_position: one position at a time; else a neuron goes at all of them together.
        progress: told the runs done and their number.
    """
    differs, grids = {}, []
    for layer, there in moved.items():
        mine = there != base.kept[NEURON.hook_name(layer)]
        differs[layer] = mine if by_position else mine.any(1, keepdim=True)
        pos, unit = differs[layer].any(0).nonzero().T.cpu().numpy()
        grids.append((np.full(len(pos), layer), pos if by_position else np.full(len(pos), -1), unit))
    cells = Cells(*map(np.concatenate, zip(*grids, strict=True)))
    found = {layer: torch.zeros(mine.shape, dtype=torch.float64) for layer, mine in differs.items()}
    if not len(cells):
        return found
    source = {NEURON.hook_name(layer): there for layer, there in moved.items()}

    def tick(share: float) -> None:
        progress(round(share * len(cells)), len(cells))

    effects = torch.from_numpy(value - run_cells(base, NEURON, cells, source, metric, value, tick))
    for layer, table in found.items():
        here = np.flatnonzero(cells.layer == layer)
        table[:, np.maximum(cells.pos[here], 0), cells.unit[here]] = effects[here].T
        table *= differs[layer].cpu()  # a pair in which nothing changed
    return found

"""What a patch puts in: the other run's activations, or what stands for them."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import InputError
from workbench.interp.patching.base_run import Base
from workbench.interp.patching.resume import Cells
from workbench.interp.patching.sites import Site


def donor_values(
    site: Site, donor: Base, values: str, seed: int, means: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """What goes in, by hook name, [pair pos ...] or [pair head query_pos key_pos].

    Args:
        site: what is patched.
        donor: the other run.
        values: see `workbench.interp.patching.sweep.patch`.
        seed: of the pairs that `resample` draws.
        means: activations' means over a corpus; over the other run if not given.

    Raises:
        InputError: the mean of patterns, or one pair to resample from.
    """
    tokens, mask, kept = donor.tokens, donor.attention_mask, donor.kept
    if values == "zero":
        return {name: torch.zeros_like(x) for name, x in kept.items()}
    if values == "mean":
        if site.is_pattern:
            raise InputError("a pattern has no mean over positions; choose values other, zero or resample.")
        if means is not None:
            return {name: means[name].to(x).expand(x.shape) for name, x in kept.items()}
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        return {name: x[real].mean(0).expand(x.shape) for name, x in kept.items()}
    if values == "resample":
        if len(tokens) < 2:
            raise InputError("resampling needs at least two pairs to draw from.")
        random = torch.Generator().manual_seed(seed)
        shift = int(torch.randint(1, len(tokens), (1,), generator=random))
        return {name: x.roll(shift, 0) for name, x in kept.items()}
    return kept


def aligned(
    site: Site, source: Mapping[str, Tensor], base: Base, places: Int[Tensor, "pair pos"]
) -> dict[str, Tensor]:
    """The other run's activations at the patched run's positions; its own where nothing stands for them.

    Raises:
        InputError: patterns, whose keys are positions as well.
    """
    if site.is_pattern:
        raise InputError("a pattern's keys are positions of its own prompt; align other sites than pattern.")
    pair = torch.arange(len(places), device=places.device)[:, None]
    there = places >= 0
    return {
        name: torch.where(
            there.view(*there.shape, *[1] * (x.ndim - 2)), x[pair, places.clamp(min=0)], base.kept[name]
        )
        for name, x in source.items()
    }


def moves(site: Site, cells: Cells, source: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> np.ndarray:
    """Indices of the cells whose patch is not, to the bit, what is there already."""
    found = np.empty(len(cells), dtype=bool)
    for layer in np.unique(cells.layer):
        name = site.hook_name(int(layer))
        differs = (source[name] != there[name]).any(0)
        if site.is_pattern:
            differs = differs.any(-1).T
        elif site.unit != "neuron":
            differs = differs.any(-1)
        grid = differs.reshape(len(differs), -1).cpu().numpy()  # [pos unit]
        here = np.flatnonzero(cells.layer == layer)
        rows = np.where(cells.pos[here, None] < 0, grid.any(0), grid[np.maximum(cells.pos[here], 0)])
        units_here = np.maximum(cells.unit[here], 0)
        found[here] = rows[np.arange(len(here)), units_here]
    return np.flatnonzero(found)

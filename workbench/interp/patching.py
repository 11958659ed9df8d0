"""Activation patching: which activation, put from one run into another, moves the answer.

Meng et al. 2022 (arXiv:2202.05262), as Heimersheim & Nanda 2024 (arXiv:2404.15255) tell to use it: denoising
puts clean activations into the corrupted run and asks what suffices, noising the reverse and asks what is
needed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.scoring import ready
from workbench.interp.metrics import Metric
from workbench.interp.patch_result import PatchResult
from workbench.interp.prompts import choose_metric, labels, prompts
from workbench.interp.resume import Base, Cells, Tick, run_cells
from workbench.interp.sites import Site, find_site, layers_with, units

Direction = Literal["denoise", "noise"]
Values = Literal["other", "zero", "mean", "resample"]


@torch.no_grad()
def patch(
    model: Any,
    clean: Any,
    corrupted: Any,
    *,
    right: Any = None,
    wrong: Any = None,
    metric: Metric | Callable[[Tensor], Tensor] | None = None,
    site: str = "resid_pre",
    by_position: bool = True,
    units_of: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    direction: Direction = "denoise",
    values: Values = "other",
    seed: int = 0,
    tick: Tick = lambda share: None,
) -> PatchResult:
    """Patch every place of a kind, one at a time, and measure each.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: prompts, or token ids [pair pos].
        corrupted: as many prompts of the same numbers of tokens.
        right: the clean prompts' answer, a text of one token or an id, or one for each pair. With `wrong`
            it gives the default metric, the logit difference at the last token.
        wrong: the corrupted prompts' answer.
        metric: see `workbench.interp.metrics`, or a function from logits [pair pos d_vocab] to [pair].
        site: a name of `workbench.interp.sites.SITES`: resid_pre, resid_mid, resid_post, attn_out, mlp_out,
            z, q, k, v, pattern, result (one cell a head) or neuron.
        by_position: one cell for each position too; else all positions are patched together.
        units_of: only these heads or neurons.
        layers: only these blocks.
        positions: only these positions.
        direction: `denoise` runs the corrupted prompts and puts clean values in, `noise` the reverse.
        values: what goes in: the other run's activation, zeros, its mean over pairs and positions, or
            another pair's activation at the same place.
        seed: of the pairs that `resample` draws.
        tick: told now and then which share of the work is done.

    Raises:
        InputError: an unknown site, prompts of different lengths, answers that are not one token, a metric
            of the wrong shape, layers, positions or heads that the model does not have.
    """
    chosen = find_site(site)
    with ready(model) as network:
        first, second, mask = prompts(network, clean, corrupted)
        metric = choose_metric(network, metric, right, wrong, first, mask)
        into, other = (second, first) if direction == "denoise" else (first, second)
        names = [chosen.hook_name(layer) for layer in layers_with(network.config, chosen)]
        base, donor = Base(network, into, mask, names), Base(network, other, mask, names)
        cells = plan(network.config, chosen, into.shape[1], by_position, units_of, layers, positions)
        source = _source(chosen, donor, values, seed)
        moves = _moves(chosen, cells, source, base.kept)
        ends = [metric.of_stream(network, run.streams[-1]).double().cpu().numpy() for run in (base, donor)]
        effects = np.tile(ends[0], (len(cells), 1))  # a patch of what is there already changes nothing
        effects[moves] = run_cells(base, chosen, cells.pick(moves), source, metric, ends[0], tick)
        tick(1.0)
    return sweep_result(
        chosen, cells, metric, effects, ends[0], ends[1], labels(model, into), direction, values
    )


def sweep_result(
    site: Site,
    cells: Cells,
    metric: Metric,
    per_pair: Float[np.ndarray, "cell pair"],
    base: Float[np.ndarray, " pair"],
    other: Float[np.ndarray, " pair"],
    tokens: Sequence[str],
    direction: Direction,
    values: Values = "other",
) -> PatchResult:
    """The metric of all cells, under their names.

    Args:
        site: what was patched.
        cells: where.
        metric: what was measured.
        per_pair: with each patch.
        base: without one.
        other: in the run that the values came from.
        tokens: of the first pair's patched run.
        direction: see `patch`.
        values: see `patch`.
    """
    return PatchResult(
        site=site.name,
        direction=direction,
        values=values,
        metric=metric.name,
        layers=cells.layer,
        positions=None if (cells.pos < 0).all() else cells.pos,
        units=cells.unit if site.unit else None,
        unit=site.unit,
        per_pair=per_pair,
        base=base,
        other=other,
        tokens=tuple(tokens),
    )


def plan(
    config: Any,
    site: Site,
    length: int,
    by_position: bool,
    chosen: Sequence[int] | None,
    layers: Sequence[int] | None,
    positions: Sequence[int] | None,
) -> Cells:
    """The cells of a sweep: layers x positions x heads or neurons.

    Raises:
        InputError: layers, positions, heads or neurons that are not there.
    """
    count = units(config, site)
    if chosen is not None and not count:
        raise InputError(f"{site.name} has no heads or neurons to choose from.")
    if positions is not None and not by_position:
        raise InputError("positions were given; patch them with by_position=True.")
    have = layers_with(config, site)
    axes = [
        have if layers is None else _within(layers, have, "layer"),
        [-1] if not by_position else _within(positions, range(length), "position"),
        [-1] if not count else _within(chosen, range(count), site.unit or ""),
    ]
    grid = np.stack(np.meshgrid(*(np.array(axis) for axis in axes), indexing="ij")).reshape(3, -1)
    return Cells(*grid)


def _within(chosen: Sequence[int] | None, there: Iterable[int], what: str) -> list[int]:
    there = list(there)
    if chosen is None:
        return there
    for one in chosen:
        if one not in there:
            raise InputError(f"{what} {one} is not there to be patched; there are {there[0]} to {there[-1]}.")
    return list(chosen)


def _source(site: Site, donor: Base, values: Values, seed: int) -> dict[str, Tensor]:
    """What goes in, by hook name, [pair pos ...] or [pair head query_pos key_pos]."""
    tokens, mask, kept = donor.tokens, donor.attention_mask, donor.kept
    if values == "zero":
        return {name: torch.zeros_like(x) for name, x in kept.items()}
    if values == "mean":
        if site.is_pattern:
            raise InputError("a pattern has no mean over positions; choose values other, zero or resample.")
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        return {name: x[real].mean(0).expand(x.shape) for name, x in kept.items()}
    if values == "resample":
        if len(tokens) < 2:
            raise InputError("resampling needs at least two pairs to draw from.")
        random = torch.Generator().manual_seed(seed)
        shift = int(torch.randint(1, len(tokens), (1,), generator=random))
        return {name: x.roll(shift, 0) for name, x in kept.items()}
    return kept


def _moves(site: Site, cells: Cells, source: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> np.ndarray:
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

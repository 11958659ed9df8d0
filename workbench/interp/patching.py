"""Activation patching: which activation, put from one run into another, moves the answer.

Meng et al. 2022 (arXiv:2202.05262), as Heimersheim & Nanda 2024 (arXiv:2404.15255) tell to use it: denoising
puts clean activations into the corrupted run and asks what suffices, noising the reverse and asks what is
needed.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.console import OnProgress, progress_bar
from workbench.errors import InputError
from workbench.evals.scoring import ready
from workbench.interp.components import Site, find_site_layers, layers_with, units
from workbench.interp.engine import CachedRun, Cells, Sweep, cached_hooks
from workbench.interp.metrics import Direction, Function, Metric, choose_metric
from workbench.interp.prompts import Alignment, aligned_prompts, labels
from workbench.interp.texts import Reference, mean_activations, reference_batches
from workbench.model.tl import activation_bytes, activation_bytes_bound, format_bytes, free_memory
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# What a sweep of patches found.


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PatchResult(Result):
    """The metric of every patch and pair; cells run over layers, positions and units, the last fastest."""

    site: str
    direction: str
    values: str
    metric: str
    layers: Int[np.ndarray, " cell"]
    positions: Int[np.ndarray, " cell"] | None
    """None if all positions were patched together."""
    units: Int[np.ndarray, " cell"] | None
    """Head or neuron of each cell."""
    unit: str | None
    per_pair: Float[np.ndarray, "cell pair"]
    """The metric with the patch."""
    base: Float[np.ndarray, " pair"]
    """The metric of the run that was patched, without a patch."""
    other: Float[np.ndarray, " pair"]
    """The metric of the run that the values came from."""
    tokens: tuple[str, ...]
    """Of the first pair's patched run."""
    reference: Reference | None = None
    """The text of `values="mean"`, if it was given."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of `effect`."""
        position = () if self.positions is None else ("pos",)
        return ("layer", *position, *(() if self.unit is None else (self.unit,)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of those axes."""
        columns = [self.layers, self.positions, self.units]
        return tuple(len(np.unique(column)) for column in columns if column is not None)

    @property
    def effect(self) -> Float[np.ndarray, "..."]:
        """Mean change of the metric over pairs, one axis for each name in `axes`."""
        return (self.per_pair - self.base).mean(1).reshape(self.shape)

    @property
    def value(self) -> Float[np.ndarray, "..."]:
        """Mean metric over pairs, with the same axes: what transformer-lens' sweeps give."""
        return self.per_pair.mean(1).reshape(self.shape)

    @property
    def recovered(self) -> Float[np.ndarray, "..."]:
        """The effect as a share of the difference between the two runs: 0 no change, 1 all of it; NaN where
        the two do not differ."""
        difference = self.other.mean() - self.base.mean()
        return self.effect / (difference if difference else np.nan)

    def to_frame(self) -> "pd.DataFrame":
        """One row a cell: layer, pos, head or neuron, value, effect, recovered, standard error."""
        import pandas as pd

        change = self.per_pair - self.base[None]
        count = change.shape[1]
        columns: dict[str, Any] = {"layer": self.layers}
        if self.positions is not None:
            columns["pos"] = self.positions
        if self.unit is not None:
            columns[self.unit] = self.units
        return pd.DataFrame(columns).assign(
            value=self.per_pair.mean(1),
            effect=change.mean(1),
            recovered=self.recovered.ravel(),
            error=change.std(1, ddof=1) / count**0.5 if count > 1 else np.nan,
        )

    def plot(self, ax: "Axes | None" = None, recovered: bool = False) -> "Figure":
        """Draw the effects as a heat map and return the figure.

        Args:
            ax: axes to draw into; a new figure if not set.
            recovered: draw the fraction of the two runs' difference in place of the effect.
        """
        from workbench.plots.patching import plot_patches

        title = f"{self.site}, {self.direction} with {self.values} values"
        frame = self.to_frame()
        return plot_patches(frame, self.tokens, metric=self.metric, title=title, recovered=recovered, ax=ax)


# What a patch puts in: the other run's activations, or what stands for them.


def donor_values(
    site: Site, donor: CachedRun, values: str, seed: int, means: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """What goes in, by hook name, [pair pos ...] or [pair head query_pos key_pos].

    Args:
        site: what is patched.
        donor: the other run.
        values: see `patch`.
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
    site: Site, source: Mapping[str, Tensor], base: CachedRun, places: Int[Tensor, "pair pos"]
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


# How many pairs a sweep can hold in memory at once.


@dataclasses.dataclass(frozen=True)
class SomePairs(Metric):
    """A metric of many pairs, of a few of them."""

    whole: Metric
    first: int
    name: str
    reads: Int[Tensor, " pair"] | None

    @classmethod
    def of(cls, whole: Metric, some: slice) -> "SomePairs":
        """The metric of the pairs of a slice."""
        return cls(whole, some.start, whole.name, None if whole.reads is None else whole.reads[some])

    def __call__(
        self, model: Any, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        return self.whole(model, x, pair + self.first)


def pair_groups(
    model: Any,
    sides: Sequence[tuple[Tensor, Tensor | None]],
    names: Sequence[str],
    memory: int | None,
) -> list[slice]:
    """Pairs that fit into memory together, with what both runs keep.

    Args:
        model: a `HookedTransformer`.
        sides: tokens [pair pos] and mask of both runs.
        names: hook points kept besides what a `CachedRun` keeps.
        memory: bytes to be had; by default half of what is free.

    Raises:
        InputError: one pair alone takes more.
    """
    pairs = len(sides[0][0])
    if memory is None:
        free = free_memory(model.device)
        memory = None if free is None else free // 2
    if memory is None or sum(activation_bytes_bound(model, *tokens.shape) for tokens, _ in sides) <= memory:
        return [slice(0, pairs)]
    wanted = {*names, *cached_hooks(model)}
    each = sum(sum(activation_bytes(model, 1, tokens.shape[1], wanted).values()) for tokens, _ in sides)
    size = memory // each
    if size < 1:
        raise InputError(
            f"the activations of one pair take {format_bytes(each)}, and {format_bytes(memory)} are "
            "available; choose fewer layers, a smaller site or shorter prompts, or give more memory."
        )
    return [slice(first, min(first + size, pairs)) for first in range(0, pairs, size)]


def refuse_split(metric: Metric, values: str, groups: int) -> None:
    """Refuse what needs all pairs at once.

    Raises:
        InputError: with what does.
    """
    whole = "a function of the logits" if isinstance(metric, Function) else None
    whole = f"values={values!r}" if values in ("mean", "resample") else whole
    if whole is not None:
        raise InputError(
            f"the pairs fit into memory in {groups} groups only, and {whole} needs all of them at once; give "
            "fewer or shorter pairs, fewer layers, or more memory."
        )


Values = Literal["other", "zero", "mean", "resample"]


@torch.no_grad()
def patch(
    model: ModelLike,
    clean: Any,
    corrupted: Any,
    *,
    right: Any = None,
    wrong: Any = None,
    metric: Metric | Callable[[Tensor], Tensor] | str | None = None,
    site: str = "resid_pre",
    by_position: bool = True,
    units_of: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    direction: Direction = "denoise",
    values: Values = "other",
    reference: Any = None,
    seed: int = 0,
    alignment: Alignment | None = None,
    memory: int | None = None,
    progress: bool | OnProgress | None = None,
) -> PatchResult:
    """Patch every place of a kind, one at a time, and measure each.

    Args:
        model: a run, a `HookedTransformer` or the name of a run.
        clean: prompts, or token ids [pair pos].
        corrupted: as many prompts, of the same numbers of tokens unless there is an alignment.
        right: the clean prompts' answer, a text of one token or an id, or one for each pair. With `wrong`
            it gives the default metric, the logit difference at the last token.
        wrong: the corrupted prompts' answer.
        metric: a name, a metric, or a function of logits; see
            `workbench.interp.metrics.choose_metric`. For one pair it may give a scalar.
        site: resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, q, k, v, pattern, result (one cell a
            head) or neurons; or its hook point: `hook_z`, `blocks.2.attn.hook_z` (only that block).
        by_position: one cell for each position too; else all positions are patched together.
        units_of: only these heads or neurons.
        layers: only these blocks.
        positions: only these positions.
        direction: `denoise` runs the corrupted prompts and puts clean values in, `noise` the reverse.
        values: what goes in: the other run's activation, zeros, the mean over a corpus, or another pair's
            activation at the same place.
        reference: the corpus whose mean goes in, as `workbench.interp.texts.text_batches` takes it; the
            other run's own pairs and positions if not given.
        seed: of the pairs that `resample` draws.
        alignment: which token stands for which, where a pair differs in length: see
            `workbench.interp.prompts.align`. Positions are those of the patched prompts; one that
            has no counterpart is not patched. The answers, or the function, are then read at each run's own
            end.
        memory: bytes that activations may take; by default half of what is free. Pairs that do not fit
            together are swept one group after the other.
        progress: True for a progress bar, False for none, or a callback.

    Raises:
        InputError: an unknown site, prompts of different lengths without an alignment, answers that are not
            one token, a metric of the wrong shape, layers, positions or heads that the model does not have,
            a pair that does not fit into memory.

    Warns:
        UserWarning: no patch changes anything.
    """
    chosen, layers = find_site_layers(site, layers)
    with progress_bar(progress, "Patching") as on_progress, ready(as_model(model)) as network:
        sides = aligned_prompts(network, clean, corrupted, alignment)
        clean_side = sides[0]
        if direction == "denoise":
            sides.reverse()
        metrics = _metrics(network, metric, right, wrong, sides, clean_side, alignment)
        places = None
        if alignment is not None:
            places = alignment.places(direction == "noise", sides[0][0].shape[1]).to(network.device)
        length = sides[0][0].shape[1]
        cells = plan(network.config, chosen, length, by_position, units_of, layers, positions)
        names = [chosen.hook_name(layer) for layer in np.unique(cells.layer).tolist()]
        means, text = _means(network, chosen, names, reference, values, seed)
        parts = []
        groups = pair_groups(network, sides, names, memory)
        if len(groups) > 1:
            refuse_split(metrics[0], "other" if means else values, len(groups))
        for done, some in enumerate(groups):
            base, donor = (
                CachedRun(network, tokens[some], None if mask is None else mask[some], names)
                for tokens, mask in sides
            )
            mine = metrics if len(groups) == 1 else tuple(SomePairs.of(one, some) for one in metrics)
            source = donor_values(chosen, donor, values, seed, means)
            if places is not None:
                source = aligned(chosen, source, base, places[some])
            parts.append(
                _swept(
                    base,
                    donor,
                    chosen,
                    cells,
                    source,
                    mine,
                    lambda x, message, n=done: on_progress((n + x) / len(groups), message),
                )
            )
        per_pair, mine, other = (np.concatenate(part, -1) for part in zip(*parts, strict=True))
    if not (per_pair != mine).any():
        warnings.warn(
            "no patch changes anything: do the prompts differ where the answer can see it?", stacklevel=3
        )
    into = sides[0][0]
    result = sweep_result(
        chosen, cells, metrics[0], per_pair, mine, other, labels(network, into), direction, values
    )
    return dataclasses.replace(result, reference=text)


def _means(
    model: Any, site: Site, names: Sequence[str], reference: Any, values: Values, seed: int
) -> tuple[dict[str, Tensor] | None, Reference | None]:
    """Return means over a corpus and what it is, if there is one."""
    if reference is None:
        return None, None
    if values != "mean" or site.is_pattern:
        raise InputError(
            "a reference is the corpus of values='mean', and patterns have no mean over positions."
        )
    recorded, batches = reference_batches(model, reference, seed)
    return mean_activations(model, names, batches), recorded


def _swept(
    base: CachedRun,
    donor: CachedRun,
    site: Site,
    cells: Cells,
    source: Mapping[str, Tensor],
    metrics: Sequence[Metric],
    on_progress: OnProgress,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The metric of each cell and pair, of each pair of the base run, and of the donor."""
    moving = moves(site, cells, source, base.kept)
    unpatched, other = (
        metric.of_stream(run.model, run.streams[-1]).double()
        for metric, run in zip(metrics, (base, donor), strict=True)
    )
    here = unpatched.cpu().numpy()
    effects = np.tile(here, (len(cells), 1))  # a patch of what is there already changes nothing
    sweep = Sweep(site, cells.pick(moving), source)
    effects[moving] = base.measure(sweep, metrics[0], on_progress, unpatched).cpu().numpy()
    on_progress(1.0, "")
    return effects, here, other.cpu().numpy()


def _metrics(
    model: Any,
    metric: Metric | Callable[[Tensor], Tensor] | str | None,
    right: Any,
    wrong: Any,
    sides: Sequence[tuple[Tensor, Tensor | None]],
    clean: tuple[Tensor, Tensor | None],
    alignment: Alignment | None,
) -> tuple[Metric, Metric]:
    """The metric of the patched run and that of the other; they read each its own end."""
    if alignment is not None and isinstance(metric, Metric):
        raise InputError(
            "a metric object reads fixed positions, which the two runs of an alignment do not share; give "
            "right and wrong answers, a name, or a function of the logits."
        )
    first, second = (choose_metric(model, metric, right, wrong, *side, clean) for side in sides)
    return first, second


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
            raise InputError(f"{what.capitalize()} {one} is out of range ({there[0]}-{there[-1]}).")
    return list(chosen)

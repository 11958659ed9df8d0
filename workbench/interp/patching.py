"""Activation patching: insert activations of one run into another and measure the change (Meng et al. 2022,
arXiv:2202.05262).

Denoising inserts clean activations into the corrupted run and shows what is sufficient; noising does the
reverse and shows what is necessary (Heimersheim & Nanda 2024, arXiv:2404.15255).
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
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
from workbench.interp.metrics import (
    NO_EFFECT,
    Direction,
    Function,
    Metric,
    MetricInput,
    PromptPairs,
    effect_summary,
    percent,
    strongest,
)
from workbench.interp.prompts import Alignment, Answers, PromptInput, Prompts, labels
from workbench.interp.texts import Reference, mean_activations, reference_batches
from workbench.model.tl import activation_bytes, activation_bytes_bound, format_bytes, free_memory
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from workbench.model.config import ModelConfig
    from workbench.model.transformer import HookedTransformer


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
    """The metric of the edited run, without an edit."""
    other: Float[np.ndarray, " pair"]
    """The metric of the donor's run."""
    tokens: tuple[str, ...]
    """Of the first pair's edited prompt."""
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
        """Mean metric over pairs with the same axes, as `transformer_lens.patching` returns it."""
        return self.per_pair.mean(1).reshape(self.shape)

    @property
    def recovered(self) -> Float[np.ndarray, "..."]:
        """The effect as a fraction of the difference between the two runs; NaN where they do not differ."""
        difference = self.other.mean() - self.base.mean()
        return self.effect / (difference if difference else np.nan)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per cell: layer, pos, head or neuron, value, effect, recovered, error (standard)."""
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

    def summary(self, rows: int = 15) -> "RenderableType":
        """Return the patches with the largest effects."""
        cells = []
        for row in strongest(self.to_frame(), "effect", rows):
            place = [f"L{row['layer']}"]
            if self.positions is not None:
                place.append(f"{row['pos']} {self.tokens[row['pos']]!r}")
            if self.unit is not None:
                place.append(str(row[self.unit]))
            cells.append([*place, f"{row['effect']:+.3f}", percent(row["recovered"])])
        header = ["layer", *([] if self.positions is None else ["position"])]
        header += [] if self.unit is None else [self.unit.replace("_", "/")]
        what = f"{len(self.layers):,} patches of {self.site}, the {len(cells)} largest:"
        changed = bool(self.effect.any())
        return effect_summary(self, what, [*header, "effect", "recovered"], cells, 2, changed)

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


def donor_values(
    site: Site, donor: CachedRun, values: str, seed: int, means: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return what is inserted, by hook name, [pair pos ...] or [pair head query_pos key_pos].

    Args:
        site: what is patched.
        donor: the donor's run.
        values: see `patch`.
        seed: of the pairs that `resample` draws.
        means: mean activations over a corpus; over the donor's run if not set.

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
    """Return the donor's activations at the matching positions; the edited run's own where none matches.

    Raises:
        InputError: patterns, whose keys are positions as well.
    """
    if site.is_pattern:
        raise InputError("a pattern's keys are positions of its own prompt; align other sites than pattern.")
    pair = torch.arange(len(places), device=places.device)[:, None]
    matched = places >= 0
    return {
        name: torch.where(
            matched.view(*matched.shape, *[1] * (x.ndim - 2)), x[pair, places.clamp(min=0)], base.kept[name]
        )
        for name, x in source.items()
    }


def changed_cells(
    site: Site, cells: Cells, source: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> np.ndarray:
    """Return the indices of the cells whose inserted value differs from the run's own."""
    changed = np.empty(len(cells), dtype=bool)
    for layer in np.unique(cells.layer):
        name = site.hook_name(int(layer))
        differs = (source[name] != own[name]).any(0)
        if site.is_pattern:
            differs = differs.any(-1).T
        elif site.unit != "neuron":
            differs = differs.any(-1)
        grid = differs.reshape(len(differs), -1).cpu().numpy()  # [pos unit]
        index = np.flatnonzero(cells.layer == layer)
        rows = np.where(cells.pos[index, None] < 0, grid.any(0), grid[np.maximum(cells.pos[index], 0)])
        changed[index] = rows[np.arange(len(index)), np.maximum(cells.unit[index], 0)]
    return np.flatnonzero(changed)


@dataclasses.dataclass(frozen=True)
class SomePairs(Metric):
    """A metric of many pairs, restricted to some of them."""

    whole: Metric
    first: int
    name: str
    reads: Int[Tensor, " pair"] | None

    @classmethod
    def of(cls, whole: Metric, some: slice) -> "SomePairs":
        """Return the metric of a slice of the pairs."""
        return cls(whole, some.start, whole.name, None if whole.reads is None else whole.reads[some])

    def __call__(
        self, model: "HookedTransformer", x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        return self.whole(model, x, pair + self.first)


def pair_groups(
    model: "HookedTransformer", sides: Sequence[Prompts], names: Sequence[str], memory: int | None
) -> list[slice]:
    """Split pairs into groups whose activations in both runs fit into memory.

    Args:
        model: runs the pairs.
        sides: prompts of both runs.
        names: hook points that are kept in addition to those of a `CachedRun`.
        memory: in bytes; by default half of what is free.

    Raises:
        InputError: one pair does not fit.
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
    """Refuse to split pairs into groups where all are needed at once.

    Raises:
        InputError: with what needs them.
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
    clean: PromptInput,
    corrupted: PromptInput,
    *,
    right: Answers | None = None,
    wrong: Answers | None = None,
    metric: MetricInput = None,
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
    """Patch a site at every layer, position and unit, one cell at a time, and measure the effect of each.

    Args:
        model: a run, a `HookedTransformer` or the name of a run.
        clean: prompts, or token ids [pair pos].
        corrupted: as many prompts, of the same numbers of tokens unless there is an alignment.
        right: the clean prompts' answer, a text of one token or an id, or one for each pair; with `wrong`, of
            the default metric, the logit difference at the last token.
        wrong: the corrupted prompts' answer.
        metric: a name, a metric, or a function of logits; see
            `workbench.interp.metrics.choose_metric`. For one pair it may give a scalar.
        site: resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, q, k, v, pattern, result (one cell a
            head) or neurons; or its hook point: `hook_z`, `blocks.2.attn.hook_z` (only that block).
        by_position: patch each position alone; else all positions together.
        units_of: only these heads or neurons.
        layers: only these blocks.
        positions: only these positions.
        direction: `denoise` inserts clean activations into the run of the corrupted prompts, `noise` the
            reverse.
        values: what is inserted: the other run's activation (`other`), zeros, the mean over a corpus, or the
            activation of another pair at the same position (`resample`).
        reference: the corpus of the mean, as `workbench.interp.texts.text_batches` takes it; the other run's
            own pairs and positions if not set.
        seed: of the pairs that `resample` draws.
        alignment: which tokens of a pair correspond, where it differs in length; see
            `workbench.interp.prompts.align`. Positions are those of the edited prompts; one without a match
            is not patched. Answers and functions are read at each run's own end.
        memory: bytes that activations may take; by default half of what is free. Pairs that do not fit
            together are processed in groups.
        progress: True for a progress bar, False for none, or a callback.

    Raises:
        InputError: an unknown site, prompts of different lengths without an alignment, answers that are not
            one token, a metric of the wrong shape, layers, positions or heads that the model does not have,
            a pair that does not fit into memory.

    Warns:
        UserWarning: no patch changes the metric.
    """
    chosen, layers = find_site_layers(site, layers)
    with progress_bar(progress, "Patching") as on_progress, ready(as_model(model)) as network:
        pairs = PromptPairs.of(
            network,
            clean,
            corrupted,
            right=right,
            wrong=wrong,
            metric=metric,
            direction=direction,
            alignment=alignment,
        )
        sides, metrics = (pairs.edited, pairs.donor), (pairs.metric, pairs.donor_metric)
        length = pairs.edited.tokens.shape[1]
        places = None
        if alignment is not None:
            places = alignment.places(direction == "noise", length).to(network.device)
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
            of_group = metrics if len(groups) == 1 else [SomePairs.of(each, some) for each in metrics]
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
                    of_group,
                    lambda x, message, n=done: on_progress((n + x) / len(groups), message),
                )
            )
        per_pair, own, other = (np.concatenate(part, -1) for part in zip(*parts, strict=True))
    if not (per_pair != own).any():
        warnings.warn(NO_EFFECT, stacklevel=3)
    tokens = labels(network, pairs.edited.tokens)
    result = sweep_result(chosen, cells, metrics[0], per_pair, own, other, tokens, direction, values)
    return dataclasses.replace(result, reference=text)


def _means(
    model: "HookedTransformer", site: Site, names: Sequence[str], reference: Any, values: Values, seed: int
) -> tuple[dict[str, Tensor] | None, Reference | None]:
    """Return the means over a reference and the reference; None without one."""
    if reference is None:
        return None, None
    if values != "mean" or site.is_pattern:
        raise InputError(
            "reference needs values='mean' and a site other than pattern, which has no mean over positions."
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
    """Return the metric of each cell and pair, of the base run's pairs, and of the donor's."""
    changed = changed_cells(site, cells, source, base.kept)
    unpatched, other = (
        metric.of_stream(run.model, run.streams[-1]).double()
        for metric, run in zip(metrics, (base, donor), strict=True)
    )
    own = unpatched.cpu().numpy()
    values = np.tile(own, (len(cells), 1))
    sweep = Sweep(site, cells.pick(changed), source)
    values[changed] = base.measure(sweep, metrics[0], on_progress, unpatched).cpu().numpy()
    on_progress(1.0, "")
    return values, own, other.cpu().numpy()


def end_values(
    pairs: PromptPairs, base: CachedRun, donor: CachedRun
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """Return the metric of the edited run without an edit, and of the donor's run."""
    base_value, other = (
        metric.of_stream(run.model, run.streams[-1]).double().cpu().numpy()
        for metric, run in ((pairs.metric, base), (pairs.donor_metric, donor))
    )
    return base_value, other


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
    """Return the result of a sweep; see `PatchResult` for the arguments."""
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
    config: "ModelConfig",
    site: Site,
    length: int,
    by_position: bool,
    chosen: Sequence[int] | None,
    layers: Sequence[int] | None,
    positions: Sequence[int] | None,
) -> Cells:
    """Return the cells of a sweep: layers x positions x heads or neurons.

    Raises:
        InputError: layers, positions, heads or neurons out of range.
    """
    count = units(config, site)
    if chosen is not None and not count:
        raise InputError(f"{site.name} has no heads or neurons to choose from.")
    if positions is not None and not by_position:
        raise InputError("positions need by_position=True.")
    axes = [
        _within(layers, layers_with(config, site), "layer"),
        [-1] if not by_position else _within(positions, range(length), "position"),
        [-1] if not count else _within(chosen, range(count), site.unit or ""),
    ]
    grid = np.stack(np.meshgrid(*(np.array(axis) for axis in axes), indexing="ij")).reshape(3, -1)
    return Cells(*grid)


def _within(chosen: Sequence[int] | None, available: Sequence[int], what: str) -> Sequence[int]:
    for index in chosen or ():
        if index not in available:
            raise InputError(f"{what.capitalize()} {index} is out of range ({available[0]}-{available[-1]}).")
    return available if chosen is None else chosen

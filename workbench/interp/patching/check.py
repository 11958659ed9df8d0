"""Estimates beside exact effects: how far attribution patching is to be trusted here.

Syed et al. 2023 (arXiv:2310.10348) and Hanna et al. 2024 (arXiv:2403.17806) judge estimates so: an estimate
is a slope, and saturated softmaxes and norms bend.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.scoring import ready
from workbench.interp.patching.attribution import attribution_patch
from workbench.interp.patching.base_run import Base
from workbench.interp.patching.edges import edge_attribution
from workbench.interp.patching.metric_choice import choose_metric
from workbench.interp.patching.metrics import Metric
from workbench.interp.patching.path_ends import find_receivers, reaches
from workbench.interp.patching.paths import path_patch
from workbench.interp.patching.prompts import labels, prompts
from workbench.interp.patching.resume import Tick, run_cells
from workbench.interp.patching.sites import find_site, layers_with
from workbench.interp.patching.source import moves
from workbench.interp.patching.sweep import Direction, plan

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class AttributionCheck:
    """Mean effects over pairs, exact and estimated, cell by cell."""

    what: str
    """The site, or `edges`."""
    direction: str
    metric: str
    cells: Mapping[str, np.ndarray]
    """Column -> value of each cell: layer, pos and head or neuron; or sender and receiver."""
    names: tuple[str, ...]
    """Of the cells."""
    steps: tuple[int, ...]
    """Of each estimate; 0 is the plain gradient."""
    exact: Float[np.ndarray, " cell"]
    estimates: Float[np.ndarray, "estimate cell"]
    total: int
    """Cells of the whole sweep, of which these are a sample or all."""

    axes = ("estimate", "cell")
    """Names of the axes of `estimates`."""

    @property
    def estimators(self) -> tuple[str, ...]:
        """`gradient`, `5 steps`, ..."""
        return tuple("gradient" if count == 0 else f"{count} steps" for count in self.steps)

    @property
    def pearson(self) -> Float[np.ndarray, " estimate"]:
        """Correlation of each estimate with the exact effects; NaN where either is constant."""
        return self._each("pearsonr")

    @property
    def spearman(self) -> Float[np.ndarray, " estimate"]:
        """Rank correlation; NaN where either is constant."""
        return self._each("spearmanr")

    @property
    def slope(self) -> Float[np.ndarray, " estimate"]:
        """Slope of the regression of each estimate on the exact effects: below 1 it sees too little."""
        return self._each("linregress")

    def _each(self, function: str) -> np.ndarray:
        from scipy import stats

        found = np.full(len(self.steps), np.nan)
        for index, estimate in enumerate(self.estimates):
            # what differs by rounding only is constant
            if all(np.ptp(values) > 1e-6 * np.abs(values).max() for values in (self.exact, estimate)):
                found[index] = getattr(stats, function)(self.exact, estimate)[0]
        return found

    def to_frame(self) -> "pd.DataFrame":
        """One row a cell: its columns, exact, and a column for each estimate."""
        import pandas as pd

        given = dict(zip(self.estimators, self.estimates, strict=True))
        return pd.DataFrame(dict(self.cells)).assign(exact=self.exact, **given)

    def worst(self, count: int = 10, estimator: str | None = None) -> "pd.DataFrame":
        """The cells where an estimate (the last if not named) and the exact effect disagree most.

        Raises:
            InputError: no such estimate.
        """
        if estimator is not None and estimator not in self.estimators:
            raise InputError(f"there is no estimate {estimator!r}; there are {', '.join(self.estimators)}.")
        frame = self.to_frame()
        error = frame[estimator or self.estimators[-1]] - frame["exact"]
        order = np.argsort(-error.abs().to_numpy(), kind="stable")[:count]
        frame.insert(0, "cell", list(self.names))
        return frame.assign(error=error).iloc[order].reset_index(drop=True)

    def plot(self, ax: Any = None) -> Any:
        """Estimate against exact effect, with the line where they are equal; needs matplotlib.

        Args:
            ax: matplotlib axes; new ones if not set.

        Returns:
            The axes.
        """
        from workbench.plots.patch_check import plot_check

        return plot_check(self, ax)


def check_attribution(
    model: Any,
    clean: Any,
    corrupted: Any,
    *,
    right: Any = None,
    wrong: Any = None,
    metric: Metric | Callable[[Tensor], Tensor] | str | None = None,
    site: str = "z",
    by_position: bool = True,
    layers: Sequence[int] | None = None,
    direction: Direction = "denoise",
    steps: Sequence[int] = (0, 5),
    cells: int | None = None,
    seed: int = 0,
    tick: Tick = lambda share: None,
) -> AttributionCheck:
    """Patch exactly and estimate the same patches.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: as in `workbench.interp.patching.sweep.patch`, as are all others that it has.
        steps: an estimate for each: 0 the plain gradient, n the mean of n on the way (EAP-IG).
        cells: patch only so many, drawn by `seed`; all if not set.
        seed: of the draw.
        tick: told now and then which share of the exact patches is done.

    Raises:
        InputError: as `patch`, no estimate, or fewer than one cell.
    """
    many = _distinct(steps)
    chosen = find_site(site)
    with ready(model) as network, torch.no_grad():
        first, second, mask = prompts(network, clean, corrupted)
        into, other = (second, first) if direction == "denoise" else (first, second)
        metric = choose_metric(network, metric, right, wrong, into, mask, (first, mask))
        plans = plan(network.config, chosen, into.shape[1], by_position, None, layers, None)
        drawn = _sample(len(plans), cells, seed)
        names = [chosen.hook_name(layer) for layer in layers_with(network.config, chosen)]
        base, donor = Base(network, into, mask, names), Base(network, other, mask, names)
        before = metric.of_stream(network, base.streams[-1]).double().cpu().numpy()
        picked = plans.pick(drawn)
        exact = np.zeros((len(drawn), len(before)))
        moving = moves(chosen, picked, donor.kept, base.kept)
        exact[moving] = (
            run_cells(base, chosen, picked.pick(moving), donor.kept, metric, before, tick) - before
        )
        tick(1.0)
        same = {"site": site, "by_position": by_position, "layers": layers, "direction": direction}
        sweeps = [
            attribution_patch(network, first, second, metric=metric, steps=count, **same) for count in many
        ]
        tokens = labels(network, into)
    columns: dict[str, np.ndarray] = {"layer": picked.layer}
    if by_position:
        columns["pos"] = picked.pos
    if chosen.unit is not None:
        columns[chosen.unit] = picked.unit
    return AttributionCheck(
        what=site,
        direction=direction,
        metric=metric.name,
        cells=columns,
        names=tuple(
            _name(int(layer), int(pos), int(unit), tokens, chosen.unit)
            for layer, pos, unit in zip(*picked, strict=True)
        ),
        steps=many,
        exact=exact.mean(1),
        estimates=np.stack([(one.per_pair - one.base).mean(1)[drawn] for one in sweeps]),
        total=len(plans),
    )


def check_edges(
    model: Any,
    clean: Any,
    corrupted: Any,
    *,
    right: Any = None,
    wrong: Any = None,
    metric: Metric | Callable[[Tensor], Tensor] | str | None = None,
    receivers: Any = "all",
    direction: Direction = "denoise",
    steps: Sequence[int] = (0, 5),
    tick: Tick = lambda share: None,
) -> AttributionCheck:
    """Patch the direct path of edges exactly and estimate the same edges.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: as in `workbench.interp.patching.paths.path_patch`, as are all others that it has.
        receivers: only the edges into these.
        steps: see `check_attribution`.
        tick: told now and then which share of the exact patches is done.

    Raises:
        InputError: as `path_patch`, or no estimate.
    """
    many = _distinct(steps)
    given = {"right": right, "wrong": wrong, "metric": metric, "direction": direction}
    chosen = find_receivers(model.config, receivers)
    exact = path_patch(model, clean, corrupted, receivers=chosen, tick=tick, **given)
    found = [edge_attribution(model, clean, corrupted, steps=count, **given) for count in many]
    rows = [found[0].receivers.index(one) for one in chosen]
    path = np.array([[reaches(model.config, sender, one) for sender in exact.senders] for one in chosen])
    to, of = path.nonzero()
    columns = {
        "sender": np.array([exact.senders[index].label for index in of], dtype=object),
        "receiver": np.array([exact.receivers[index] for index in to], dtype=object),
    }
    return AttributionCheck(
        what="edges",
        direction=direction,
        metric=exact.metric,
        cells=columns,
        names=tuple(f"{a} → {b}" for a, b in zip(*columns.values(), strict=True)),
        steps=many,
        exact=exact.effect[to, of],
        estimates=np.stack([one.score[rows][to, of] for one in found]),
        total=len(to),
    )


def _distinct(steps: Sequence[int]) -> tuple[int, ...]:
    found = tuple(dict.fromkeys(int(count) for count in steps))
    if not found:
        raise InputError("no estimate was asked for; steps=[0] is the plain gradient.")
    return found


def _sample(total: int, count: int | None, seed: int) -> np.ndarray:
    if count is None or count >= total:
        return np.arange(total)
    if count < 1:
        raise InputError(f"at least one cell has to be patched; cells={count}.")
    random = np.random.default_rng(seed)
    return np.sort(random.choice(total, count, replace=False))


def _name(layer: int, pos: int, unit: int, tokens: Sequence[str], kind: str | None) -> str:
    place = "" if pos < 0 else f" at {pos} {tokens[pos]!r}"
    return f"L{layer}" + ("" if kind is None else f"{'N' if kind == 'neuron' else 'H'}{unit}") + place

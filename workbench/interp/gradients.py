"""Attribution patching and edge attribution patching, and how well they estimate the exact effects.

To first order, replacing an activation a by a donor's a' changes the metric by grad(metric) . (a' - a), so
one forward and one backward pass estimate a whole sweep (Nanda 2023; Syed et al. 2023, arXiv:2310.10348).
The estimate is poor where a softmax or a norm is saturated. With `steps` the gradient is averaged while the
embeddings go from the edited run's to the donor's, as in EAP-IG (Hanna et al. 2024, arXiv:2403.17806).
`check_attribution` and `check_edges` compare estimates with exact patching.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.console import OnProgress, make_table, progress_bar, stack
from workbench.errors import InputError, shown
from workbench.evals.scoring import ready
from workbench.interp.components import Component, Site, find_site_layers, layers_with
from workbench.interp.engine import (
    CachedRun,
    Cells,
    Sweep,
    activation_gradients,
    embedding_hook,
    frozen_hooks,
    tokens_per_batch,
)
from workbench.interp.metrics import NO_EFFECT, Direction, Metric, MetricInput, PromptPairs, effect_summary
from workbench.interp.patching import PatchResult, changed_cells, end_values, plan, sweep_result
from workbench.interp.paths import (
    find_receivers,
    find_senders,
    list_receivers,
    path_patch,
    reaches,
    step_of,
)
from workbench.interp.prompts import Answers, PromptInput, labels
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from workbench.model.transformer import HookedTransformer


MOST_STEPS = 1000


@torch.no_grad()
def attribution_patch(
    model: ModelLike,
    clean: PromptInput,
    corrupted: PromptInput,
    *,
    right: Answers | None = None,
    wrong: Answers | None = None,
    metric: MetricInput = None,
    site: str = "z",
    by_position: bool = True,
    layers: Sequence[int] | None = None,
    direction: Direction = "denoise",
    steps: int = 0,
) -> PatchResult:
    """Estimate the sweep of `patch` from gradients.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: see `patch` for this and for all arguments that `patch` has.
        steps: 0 takes the gradient in the edited run; n takes the mean of n gradients on the path from its
            embeddings to the donor's.

    Returns:
        A `PatchResult` whose effects are the estimates.

    Raises:
        InputError: as `patch`; steps below 0 or above 1,000.
    """
    chosen, layers = find_site_layers(site, layers)
    with ready(as_model(model)) as network:
        pairs = PromptPairs.of(
            network, clean, corrupted, right=right, wrong=wrong, metric=metric, direction=direction
        )
        names = [chosen.hook_name(layer) for layer in layers_with(network.config, chosen)]
        keep = [embedding_hook(network), *names]
        base, donor = (CachedRun(network, *side, keep) for side in (pairs.edited, pairs.donor))
        return _estimate(base, donor, pairs, chosen, layers, by_position, steps)


def _estimate(
    base: CachedRun,
    donor: CachedRun,
    pairs: PromptPairs,
    site: Site,
    layers: Sequence[int] | None,
    by_position: bool,
    steps: int,
) -> PatchResult:
    """Estimate a sweep from runs that keep the site and the embeddings."""
    network, metric = base.model, pairs.metric
    names = {layer: site.hook_name(layer) for layer in layers_with(network.config, site)}
    gradients = mean_gradients(base, donor, metric, list(names.values()), steps)
    cells = plan(network.config, site, base.tokens.shape[1], by_position, None, layers, None)
    estimates = {
        layer: _sum_over_units(gradients[name] * (donor.kept[name] - base.kept[name]), site, by_position)
        for layer, name in names.items()
    }
    ends = end_values(pairs, base, donor)
    per_pair = _of_cells(estimates, cells) + ends[0]
    return sweep_result(
        site, cells, metric, per_pair, ends[0], ends[1], labels(network, base.tokens), pairs.direction
    )


def mean_gradients(
    base: CachedRun, donor: CachedRun, metric: Metric, names: Sequence[str], steps: int
) -> dict[str, Tensor]:
    """Return the metric's gradient at hook points, or its mean on the path to the donor's embeddings.

    Args:
        base: the run; it and the donor keep their embeddings (`embedding_hook`).
        donor: the other run.
        metric: is differentiated.
        names: hook points.
        steps: 0 for the gradient in the run itself; n for the mean of n gradients, at the middles of n equal
            parts of the path.

    Raises:
        InputError: steps below 0 or above 1,000.
    """
    if not 0 <= steps <= MOST_STEPS:
        raise InputError(
            f"steps must be 0 for the plain gradient, or up to {MOST_STEPS:,}; found {shown(steps)}."
        )
    entry, model = embedding_hook(base.model), base.model
    total: dict[str, Tensor] = {}
    for fraction in [0.0] if steps == 0 else [(step + 0.5) / steps for step in range(steps)]:
        gradients = activation_gradients(
            model,
            names,
            lambda stream: metric.of_stream(model, stream),
            base.tokens,
            torch.lerp(base.kept[entry], donor.kept[entry], fraction),
            attention_mask=base.attention_mask,
        ).gradients
        for name, gradient in gradients.items():
            gradient = gradient / max(1, steps)
            total[name] = gradient if name not in total else total[name].add_(gradient)
    return total


def _sum_over_units(product: Tensor, site: Site, by_position: bool) -> Float[Tensor, "pair pos unit"]:
    """Sum over all axes but pair, position (1 if all together) and unit (1 if the site has none)."""
    if site.is_pattern:
        summed = product.sum(-1).transpose(1, 2)
    elif site.unit in ("head", "kv_head"):
        summed = product.sum(-1)
    elif site.unit == "neuron":
        summed = product
    else:
        summed = product.sum(-1, keepdim=True)
    return summed if by_position else summed.sum(1, keepdim=True)


def _of_cells(estimates: dict[int, Tensor], cells: Cells) -> Float[np.ndarray, "cell pair"]:
    """Return each cell's entry of its layer's table [pair pos unit]."""
    values = np.empty((len(cells), len(next(iter(estimates.values())))))
    for layer in set(cells.layer.tolist()):
        rows = np.flatnonzero(cells.layer == layer)
        pos, unit = np.maximum(cells.pos[rows], 0), np.maximum(cells.unit[rows], 0)
        values[rows] = estimates[layer].double().cpu().numpy()[:, pos, unit].T
    return values


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class EdgeAttribution(Result):
    """Estimated effect of every edge between two components on each pair; NaN where there is no edge."""

    senders: tuple[Component, ...]
    receivers: tuple[Component, ...]
    direction: str
    metric: str
    steps: int
    per_pair: Float[np.ndarray, "receiver sender pair"]
    """In the metric's unit."""
    base: Float[np.ndarray, " pair"]
    """The metric of the edited run, without an edit."""
    other: Float[np.ndarray, " pair"]
    """The metric of the donor's run."""

    axes = ("receiver", "sender")
    """Names of the axes of `score`."""

    @property
    def score(self) -> Float[np.ndarray, "receiver sender"]:
        """Mean estimate over pairs."""
        return self.per_pair.mean(-1)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per edge: sender, receiver, score, error (standard error over pairs)."""
        import pandas as pd

        edges = np.nonzero(~np.isnan(self.score))
        scores = self.per_pair[edges]
        count = scores.shape[1]
        return pd.DataFrame(
            {
                "sender": np.array([sender.label for sender in self.senders], dtype=object)[edges[1]],
                "receiver": np.array([receiver.label for receiver in self.receivers], dtype=object)[edges[0]],
                "score": scores.mean(1),
                "error": scores.std(1, ddof=1) / count**0.5 if count > 1 else np.nan,
            }
        )

    def top(self, count: int = 20) -> "pd.DataFrame":
        """Return the edges with the largest absolute score, the largest first."""
        frame = self.to_frame()
        order = np.argsort(-frame["score"].abs().to_numpy(), kind="stable")[:count]
        return frame.iloc[order].reset_index(drop=True)

    def summary(self, rows: int = 15) -> "RenderableType":
        """Return the edges with the largest scores."""
        frame = self.top(rows)
        how = f"mean of {self.steps} gradients" if self.steps else "plain gradient"
        cells = [[row["sender"], row["receiver"], f"{row['score']:+.3f}"] for row in frame.to_dict("records")]
        what = f"{len(self.to_frame()):,} edges, {how}, the {len(cells)} largest:"
        changed = bool(frame["score"].to_numpy().any())
        return effect_summary(self, what, ["from", "to", "score"], cells, 2, changed)

    def plot(self, ax: "Axes | None" = None, count: int = 25) -> "Figure":
        """Draw the strongest edges as a graph, the embedding below and the logits above, and return the
        figure.

        Args:
            ax: axes to draw into; a new figure if not set.
            count: number of edges.
        """
        from workbench.plots.patching import plot_edges

        how = f"{self.steps} steps" if self.steps else "plain gradient"
        edges, total = self.top(count), int((~np.isnan(self.score)).sum())
        title = f"{len(edges)} strongest edges of {total:,}, {how}; {self.metric}, {self.direction}"
        return plot_edges(edges, [sender.label for sender in self.senders], title=title, ax=ax)


@torch.no_grad()
def edge_attribution(
    model: ModelLike,
    clean: PromptInput,
    corrupted: PromptInput,
    *,
    right: Answers | None = None,
    wrong: Answers | None = None,
    metric: MetricInput = None,
    direction: Direction = "denoise",
    steps: int = 0,
) -> EdgeAttribution:
    """Score every edge by edge attribution patching, all positions together.

    Edges lead from the embedding, each head and each MLP to each later head's q, k and v, each MLP and the
    logits. A score is the metric's gradient at the reader's input times the change of that input when one
    writer alone writes what it wrote in the donor's run (Syed et al. 2023); where a norm lies between writer
    and reader, the change behind the norm. `path_patch` gives the exact effects of the same edges. The
    gradients of all readers' inputs are held at once: 3 n_heads + 1 residual streams per block.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: see `patch` for this and for corrupted, right, wrong, metric and direction.
        steps: see `attribution_patch`.

    Raises:
        InputError: as `patch`; steps below 0 or above 1,000.
    """
    with ready(as_model(model)) as network:
        pairs = PromptPairs.of(
            network, clean, corrupted, right=right, wrong=wrong, metric=metric, direction=direction
        )
        metric = pairs.metric
        keep = [embedding_hook(network), *frozen_hooks(network)]
        base, donor = (CachedRun(network, *side, keep) for side in (pairs.edited, pairs.donor))
        senders, receivers = find_senders(network.config), list_receivers(network.config)
        inputs = list(dict.fromkeys(input_hook(network, receiver) for receiver in receivers))
        gradients = mean_gradients(base, donor, metric, inputs, steps)
        ends = end_values(pairs, base, donor)
        scores = _edge_scores(base, donor, senders, receivers, gradients)
    return EdgeAttribution(senders, receivers, direction, metric.name, steps, scores, ends[0], ends[1])


def input_hook(model: "HookedTransformer", receiver: Component) -> str:
    """Return the hook point of what a receiver reads."""
    if receiver.kind == "logits":
        post = model.config.norm_place == "post"
        return f"blocks.{model.config.n_layers - 1}.hook_{'normalized_' if post else ''}resid_post"
    name = f"blocks.{receiver.layer}."
    return name + ("hook_mlp_in" if receiver.kind == "mlp" else f"attn.hook_{receiver.kind}_input")


def _edge_scores(
    base: CachedRun,
    donor: CachedRun,
    senders: tuple[Component, ...],
    receivers: tuple[Component, ...],
    gradients: dict[str, Tensor],
) -> Float[np.ndarray, "receiver sender pair"]:
    """Return the score of each edge and pair."""
    model, (pairs, length) = base.model, base.tokens.shape
    scores = np.full((len(receivers), len(senders), pairs), np.nan)
    size = max(1, tokens_per_batch(base.tokens.device) // (pairs * length))
    for start in range(0, len(senders), size):
        chunk = senders[start : start + size]
        for step, x in base.frozen(donor, [None, *chunk], length):
            streams = x.unflatten(0, (-1, pairs))
            # Minus the unchanged stream of the same batch: exactly 0 where a sender's change does not reach.
            change = streams[1:] - streams[:1]
            for row, receiver in enumerate(receivers):
                if step_of(model.config, receiver) != step:
                    continue
                gradient = gradients[input_hook(model, receiver)]
                gradient = gradient if receiver.unit is None else gradient[:, :, receiver.unit]
                products = torch.einsum("npld,pld->np", change, gradient).double().cpu().numpy()
                earlier = [i for i, sender in enumerate(chunk) if reaches(model.config, sender, receiver)]
                scores[row, [start + i for i in earlier]] = products[earlier]
    return scores


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class AttributionCheck(Result):
    """Exact and estimated effects of the same patches, mean over pairs."""

    what: str
    """The site, or `edges`."""
    direction: str
    metric: str
    cells: Mapping[str, np.ndarray]
    """Column -> value of each cell: layer, pos and head or neuron; or sender and receiver."""
    names: tuple[str, ...]
    """Labels of the cells."""
    steps: tuple[int, ...]
    """Steps of each estimate; 0 is the plain gradient."""
    exact: Float[np.ndarray, " cell"]
    estimates: Float[np.ndarray, "estimate cell"]
    total: int
    """Number of cells of the whole sweep, from which these may be a sample."""

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
        """Slope of the regression of each estimate on the exact effects; below 1 if too small."""
        return self._each("linregress")

    def _each(self, function: str) -> np.ndarray:
        from scipy import stats

        values = np.full(len(self.steps), np.nan)
        for index, estimate in enumerate(self.estimates):
            # Effects that differ by rounding only are constant.
            if all(np.ptp(x) > 1e-6 * np.abs(x).max() for x in (self.exact, estimate)):
                values[index] = getattr(stats, function)(self.exact, estimate)[0]
        return values

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per cell: its columns, exact, and a column for each estimate."""
        import pandas as pd

        given = dict(zip(self.estimators, self.estimates, strict=True))
        return pd.DataFrame(dict(self.cells)).assign(exact=self.exact, **given)

    def worst(self, count: int = 10, estimator: str | None = None) -> "pd.DataFrame":
        """Return the cells where an estimate (the last if not named) is farthest from the exact effect.

        Raises:
            InputError: no such estimate.
        """
        if estimator is not None and estimator not in self.estimators:
            raise InputError(f"Unknown estimate {estimator!r}; choose from {', '.join(self.estimators)}.")
        frame = self.to_frame()
        error = frame[estimator or self.estimators[-1]] - frame["exact"]
        order = np.argsort(-error.abs().to_numpy(), kind="stable")[:count]
        frame.insert(0, "cell", list(self.names))
        return frame.assign(error=error).iloc[order].reset_index(drop=True)

    def summary(self, rows: int = 15) -> "RenderableType":
        """Return how each estimate agrees with the exact effects, and the cells where they differ most."""
        sample = "" if len(self.exact) == self.total else f" of {self.total:,}"
        figures = zip(self.estimators, self.pearson, self.spearman, self.slope, strict=True)
        agreement = [
            [name, *("–" if value != value else f"{value:.3f}" for value in values)]
            for name, *values in figures
        ]
        names = ["exact", *self.estimators, "error"]
        cells = [
            [row["cell"], *(f"{row[name]:+.3f}" for name in names)]
            for row in self.worst(rows).to_dict("records")
        ]
        return stack(
            f"{self.what}: {len(self.exact):,}{sample} cells, exact and estimated change of the "
            f"{self.metric}:\n",
            make_table(["estimate", "Pearson", "Spearman", "slope"], agreement),
            f"\nwhere the exact effect and {self.estimators[-1]} disagree most:\n",
            make_table(["cell", *names], cells),
            None if self.exact.any() else f"\n{NO_EFFECT}",
        )

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw estimates against exact effects with the diagonal, and return the figure."""
        from workbench.plots.patching import plot_estimates

        sample = "" if len(self.exact) == self.total else f" of {self.total:,}"
        fits = zip(self.estimators, zip(self.pearson, self.slope, strict=True), strict=True)
        return plot_estimates(
            self.exact,
            dict(zip(self.estimators, self.estimates, strict=True)),
            self.names,
            dict(fits),
            metric=self.metric,
            title=f"{self.what}, {self.direction}: {len(self.exact):,}{sample} cells",
            ax=ax,
        )


def check_attribution(
    model: ModelLike,
    clean: PromptInput,
    corrupted: PromptInput,
    *,
    right: Answers | None = None,
    wrong: Answers | None = None,
    metric: MetricInput = None,
    site: str = "z",
    by_position: bool = True,
    layers: Sequence[int] | None = None,
    direction: Direction = "denoise",
    steps: Sequence[int] = (0, 5),
    cells: int | None = None,
    seed: int = 0,
    progress: bool | OnProgress | None = None,
) -> AttributionCheck:
    """Compare the estimates of attribution patching with the exact effects of the same patches.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: see `patch` for this and for all arguments that `patch` has.
        steps: of each estimate: 0 for the plain gradient, n for the mean of n on the path (EAP-IG).
        cells: number of cells to patch, drawn at random; all if not set.
        seed: of the draw.
        progress: True for a progress bar, False for none, or a callback.

    Raises:
        InputError: as `patch`, no estimate, or fewer than one cell.
    """
    counts = _distinct(steps)
    chosen, layers = find_site_layers(site, layers)
    with (
        progress_bar(progress, "Patching") as on_progress,
        ready(as_model(model)) as network,
        torch.no_grad(),
    ):
        pairs = PromptPairs.of(
            network, clean, corrupted, right=right, wrong=wrong, metric=metric, direction=direction
        )
        metric = pairs.metric
        plans = plan(network.config, chosen, pairs.edited.tokens.shape[1], by_position, None, layers, None)
        drawn = _sample(len(plans), cells, seed)
        names = [chosen.hook_name(layer) for layer in layers_with(network.config, chosen)]
        keep = [embedding_hook(network), *names]
        base, donor = (CachedRun(network, *side, keep) for side in (pairs.edited, pairs.donor))
        unpatched = metric.of_stream(network, base.streams[-1]).double()
        picked = plans.pick(drawn)
        exact = np.zeros((len(drawn), len(unpatched)))
        changed = changed_cells(chosen, picked, donor.kept, base.kept)
        sweep = Sweep(chosen, picked.pick(changed), donor.kept)
        exact[changed] = (base.measure(sweep, metric, on_progress, unpatched) - unpatched).cpu().numpy()
        on_progress(1.0, "")
        estimates = [_estimate(base, donor, pairs, chosen, layers, by_position, count) for count in counts]
        tokens = labels(network, base.tokens)
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
        steps=counts,
        exact=exact.mean(1),
        estimates=np.stack([(sweep.per_pair - sweep.base).mean(1)[drawn] for sweep in estimates]),
        total=len(plans),
    )


def check_edges(
    model: ModelLike,
    clean: PromptInput,
    corrupted: PromptInput,
    *,
    right: Answers | None = None,
    wrong: Answers | None = None,
    metric: MetricInput = None,
    receivers: Any = "all",
    direction: Direction = "denoise",
    steps: Sequence[int] = (0, 5),
    progress: bool | OnProgress | None = None,
) -> AttributionCheck:
    """Compare the estimates of edge attribution patching with exact path patching of the same edges.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: see `path_patch` for this and for all arguments that `path_patch` has.
        receivers: only the edges into these.
        steps: see `check_attribution`.
        progress: True for a progress bar, False for none, or a callback.

    Raises:
        InputError: as `path_patch`, or no estimate.
    """
    counts, network = _distinct(steps), as_model(model)
    given = {"right": right, "wrong": wrong, "metric": metric, "direction": direction}
    chosen = find_receivers(network.config, receivers)
    exact = path_patch(model, clean, corrupted, receivers=chosen, progress=progress, **given)
    estimates = [edge_attribution(model, clean, corrupted, steps=count, **given) for count in counts]
    rows = [estimates[0].receivers.index(receiver) for receiver in chosen]
    path = np.array(
        [[reaches(network.config, sender, receiver) for sender in exact.senders] for receiver in chosen]
    )
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
        steps=counts,
        exact=exact.effect[to, of],
        estimates=np.stack([estimate.score[rows][to, of] for estimate in estimates]),
        total=len(to),
    )


def _distinct(steps: Sequence[int]) -> tuple[int, ...]:
    counts = tuple(dict.fromkeys(int(count) for count in steps))
    if not counts:
        raise InputError("steps is empty; steps=[0] is the plain gradient.")
    return counts


def _sample(total: int, count: int | None, seed: int) -> np.ndarray:
    if count is None or count >= total:
        return np.arange(total)
    if count < 1:
        raise InputError(f"cells must be at least 1; found {count}.")
    random = np.random.default_rng(seed)
    return np.sort(random.choice(total, count, replace=False))


def _name(layer: int, pos: int, unit: int, tokens: Sequence[str], kind: str | None) -> str:
    place = "" if pos < 0 else f" at {pos} {tokens[pos]!r}"
    return f"L{layer}" + ("" if kind is None else f"{'N' if kind == 'neuron' else 'H'}{unit}") + place

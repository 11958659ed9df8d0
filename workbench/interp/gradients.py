"""Estimates beside exact effects: how far attribution patching is to be trusted here.

Syed et al. 2023 (arXiv:2310.10348) and Hanna et al. 2024 (arXiv:2403.17806) judge estimates so: an estimate
is a slope, and saturated softmaxes and norms bend.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.console import OnProgress, progress_bar
from workbench.errors import InputError, shown
from workbench.evals.scoring import ready
from workbench.interp.components import Component, Site, find_site_layers, layers_with
from workbench.interp.engine import CachedRun, Cells, Sweep, frozen_hooks, tokens_per_batch
from workbench.interp.metrics import Direction, Metric, PromptPairs
from workbench.interp.patching import PatchResult, moves, plan, sweep_result
from workbench.interp.paths import (
    find_receivers,
    find_senders,
    list_receivers,
    path_patch,
    reaches,
    step_of,
)
from workbench.interp.prompts import labels
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from workbench.model.transformer import HookedTransformer


# Attribution patching: every patch of a sweep at once, to first order.
#
# The effect of putting a donor's activation a' in place of a is about grad(metric) . (a' - a), so one
# forward and one backward pass stand for the whole sweep (Nanda 2023; Syed et al. 2023, arXiv:2310.10348).
# With `steps` the gradient is averaged while the embeddings go from this run's to the donor's, which mends
# saturated gradients (integrated gradients as in EAP-IG: Hanna et al. 2024, arXiv:2403.17806).


MOST_STEPS = 1000


def attribution_patch(
    model: ModelLike,
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
    steps: int = 0,
) -> PatchResult:
    """Estimate the sweep of `patch` from gradients.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: as in `patch`, as are all others that it has.
        steps: 0 takes the gradient in the run that is patched; n takes the mean of n gradients on the way
            from it to the donor's embeddings.

    Returns:
        A `PatchResult` whose effects are the estimates.

    Raises:
        InputError: as `patch`, or a negative number of steps.
    """
    chosen, layers = find_site_layers(site, layers)
    with ready(as_model(model)) as network:
        pairs = PromptPairs.of(
            network, clean, corrupted, right=right, wrong=wrong, metric=metric, direction=direction
        )
        return _estimate(network, pairs, chosen, layers, by_position, steps)


def _estimate(
    network: "HookedTransformer",
    pairs: PromptPairs,
    site: Site,
    layers: Sequence[int] | None,
    by_position: bool,
    steps: int,
) -> PatchResult:
    """Estimate the sweep of encoded pairs, whose padding is known by their mask alone."""
    metric, mask, into, other = pairs.metric, pairs.mask, pairs.edited, pairs.donor
    names = {layer: site.hook_name(layer) for layer in layers_with(network.config, site)}
    run = GradientRun(network, metric, mask, list(names.values()))
    (value, mine), (value_there, theirs) = run.keep(into), run.keep(other)
    gradients = run.gradients(into, mine[run.entry], theirs[run.entry], steps)
    cells = plan(network.config, site, into.shape[1], by_position, None, layers, None)
    estimates = {
        layer: _collapse(gradients[name] * (theirs[name] - mine[name]), site, by_position)
        for layer, name in names.items()
    }
    ends = [one.double().cpu().numpy() for one in (value, value_there)]
    per_pair = _table(estimates, cells) + ends[0]
    return sweep_result(
        site, cells, metric, per_pair, ends[0], ends[1], labels(network, into), pairs.direction
    )


class GradientRun:
    """Runs of which activations and the metric's gradients there are wanted.

    Args:
        model: a `HookedTransformer` in eval mode.
        metric: what is differentiated.
        mask: 1 at tokens, where some row is padded.
        names: hook points.
    """

    def __init__(self, model: Any, metric: Metric, mask: Tensor | None, names: Sequence[str]) -> None:
        self.model, self.metric, self.mask, self.names = model, metric, mask, tuple(names)
        self.entry = "hook_full_embed" if "hook_full_embed" in model.hook_dict else "hook_embed"

    def _forward(self, tokens: Tensor, embedded: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The metric, and activations by hook name, the embedding's among them."""
        kept: dict[str, Tensor] = {}

        def keep(x: Tensor, hook: Any) -> Tensor:
            x = x.clone()  # what else reads x has no part in it
            kept[hook.name] = x if embedded is None or hook.name != self.entry else embedded
            return kept[hook.name]

        names = dict.fromkeys((self.entry, *self.names))
        with self.model.hooks(fwd_hooks=[(name, keep) for name in names]):
            stream = self.model.stream(tokens, attention_mask=self.mask)
        return self.metric.of_stream(self.model, stream), kept

    @torch.no_grad()
    def keep(self, tokens: Int[Tensor, "pair pos"]) -> tuple[Float[Tensor, " pair"], dict[str, Tensor]]:
        """The metric and the activations of a plain run."""
        return self._forward(tokens)

    def gradients(
        self, tokens: Int[Tensor, "pair pos"], mine: Tensor, theirs: Tensor, steps: int
    ) -> dict[str, Tensor]:
        """The metric's gradient at each hook point: in the run itself, or the mean over steps of the way.

        Args:
            tokens: of the run.
            mine: its embeddings, as `keep` gave them under the name of `entry`.
            theirs: the embeddings at the end of the way.
            steps: 0 for the run itself.

        Raises:
            InputError: a negative number of steps, or more than 1,000.
        """
        if not 0 <= steps <= MOST_STEPS:
            raise InputError(
                f"steps must be 0 for the plain gradient, or up to {MOST_STEPS:,}; found {shown(steps)}."
            )
        shares = [0.0] if steps == 0 else [(step + 0.5) / steps for step in range(steps)]
        total: dict[str, Tensor] = {}
        for share in shares:
            embedded = torch.lerp(mine, theirs, share).requires_grad_()
            with torch.enable_grad():
                value, kept = self._forward(tokens, embedded)
                points = [kept[name] for name in self.names]
                found = torch.autograd.grad(value.sum(), points, allow_unused=True)
            for name, gradient in zip(self.names, found, strict=True):
                gradient = torch.zeros_like(kept[name]) if gradient is None else gradient / len(shares)
                total[name] = gradient if name not in total else total[name].add_(gradient)
        return total


def _collapse(product: Tensor, site: Site, by_position: bool) -> Float[Tensor, "pair pos unit"]:
    """Summed over all axes but pair, position (1 if all together) and unit (1 if there is none)."""
    if site.is_pattern:
        summed = product.sum(-1).transpose(1, 2)
    elif site.unit in ("head", "kv_head"):
        summed = product.sum(-1)
    elif site.unit == "neuron":
        summed = product
    else:
        summed = product.sum(-1, keepdim=True)
    return summed if by_position else summed.sum(1, keepdim=True)


def _table(estimates: dict[int, Tensor], cells: Cells) -> Float[np.ndarray, "cell pair"]:
    pairs = len(next(iter(estimates.values())))
    found = np.empty((len(cells), pairs))
    for layer in set(cells.layer.tolist()):
        estimate, here = estimates[layer], np.flatnonzero(cells.layer == layer)
        pos, unit = np.maximum(cells.pos[here], 0), np.maximum(cells.unit[here], 0)
        found[here] = estimate.detach().double().cpu().numpy()[:, pos, unit].T
    return found


# Edge attribution patching: every path between two components at once, to first order.
#
# Syed et al. 2023 (EAP, arXiv:2310.10348): the metric's gradient at what a reader is given, times the
# change of what it is given when one writer alone writes what it wrote in the other run. With `steps` the
# gradient is averaged on the way from one run's embeddings to the other's (EAP-IG: Hanna et al. 2024,
# arXiv:2403.17806). In a pre-norm model that change is the writer's own; where a norm lies between writer
# and reader, it is what the norm makes of it. `workbench.interp.patching.paths` gives the exact effects of
# the same edges.


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class EdgeAttribution(Result):
    """The estimated effect of every edge and pair; NaN where there is no edge."""

    senders: tuple[Component, ...]
    receivers: tuple[Component, ...]
    direction: str
    metric: str
    steps: int
    per_pair: Float[np.ndarray, "receiver sender pair"]
    """In the metric's unit."""
    base: Float[np.ndarray, " pair"]
    """The metric of the run that would be patched."""
    other: Float[np.ndarray, " pair"]
    """The metric of the other run."""

    axes = ("receiver", "sender")
    """Names of the axes of `score`."""

    @property
    def score(self) -> Float[np.ndarray, "receiver sender"]:
        """Mean over pairs."""
        return self.per_pair.mean(-1)

    def to_frame(self) -> "pd.DataFrame":
        """One row an edge: sender, receiver, score, standard error over pairs."""
        import pandas as pd

        there = np.nonzero(~np.isnan(self.score))
        scores = self.per_pair[there]
        count = scores.shape[1]
        return pd.DataFrame(
            {
                "sender": np.array([one.label for one in self.senders], dtype=object)[there[1]],
                "receiver": np.array([one.label for one in self.receivers], dtype=object)[there[0]],
                "score": scores.mean(1),
                "error": scores.std(1, ddof=1) / count**0.5 if count > 1 else np.nan,
            }
        )

    def top(self, count: int = 20) -> "pd.DataFrame":
        """The edges that move the metric most, either way, the strongest first."""
        frame = self.to_frame()
        order = np.argsort(-frame["score"].abs().to_numpy(), kind="stable")[:count]
        return frame.iloc[order].reset_index(drop=True)

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
    clean: Any,
    corrupted: Any,
    *,
    right: Any = None,
    wrong: Any = None,
    metric: Metric | Callable[[Tensor], Tensor] | str | None = None,
    direction: Direction = "denoise",
    steps: int = 0,
) -> EdgeAttribution:
    """Score the edges from the embedding, each head and each MLP to each later head's q, k and v, each MLP
    and the logits, all positions together.

    The gradients of all readers' inputs are held at once, 3 n_heads + 1 residual streams a block.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: as in `patch`, as are corrupted, right, wrong, metric and
            direction.
        steps: 0 takes the gradient in the run that is patched; n takes the mean of n gradients on the way
            from it to the other run's embeddings.

    Raises:
        InputError: as `patch`, or a negative number of steps.
    """
    with ready(as_model(model)) as network:
        config = network.config
        pairs = PromptPairs.of(
            network, clean, corrupted, right=right, wrong=wrong, metric=metric, direction=direction
        )
        metric, mask, into, other = pairs.metric, pairs.mask, pairs.edited, pairs.donor
        run = GradientRun(network, metric, mask, _inputs(network))
        embedded = [run.keep(tokens)[1][run.entry] for tokens in (into, other)]
        gradients = run.gradients(into, embedded[0], embedded[1], steps)
        base, donor = (CachedRun(network, tokens, mask, frozen_hooks(network)) for tokens in (into, other))
        ends = [metric.of_stream(network, one.streams[-1]).double().cpu().numpy() for one in (base, donor)]
        senders, receivers = find_senders(config), list_receivers(config)
        scores = _scores(base, donor, senders, receivers, gradients)
    return EdgeAttribution(senders, receivers, direction, metric.name, steps, scores, ends[0], ends[1])


def _input(model: Any, receiver: Component) -> str:
    """The hook point of what a receiver reads."""
    if receiver.kind == "logits":
        post = model.config.norm_place == "post"
        return f"blocks.{model.config.n_layers - 1}.hook_{'normalized_' if post else ''}resid_post"
    name = f"blocks.{receiver.layer}."
    return name + ("hook_mlp_in" if receiver.kind == "mlp" else f"attn.hook_{receiver.kind}_input")


def _inputs(model: Any) -> list[str]:
    return list(dict.fromkeys(_input(model, one) for one in list_receivers(model.config)))


def _scores(
    base: CachedRun,
    donor: CachedRun,
    senders: tuple[Component, ...],
    receivers: tuple[Component, ...],
    gradients: dict[str, Tensor],
) -> Float[np.ndarray, "receiver sender pair"]:
    model, (pairs, length) = base.model, base.tokens.shape
    found = np.full((len(receivers), len(senders), pairs), np.nan)
    size = max(1, tokens_per_batch(base.tokens.device) // (pairs * length))
    for start in range(0, len(senders), size):
        chunk = senders[start : start + size]
        for step, x in base.frozen(donor, [None, *chunk], length):
            streams = x.unflatten(0, (-1, pairs))
            change = streams[1:] - streams[:1]  # what nobody's change reaches is 0 to the bit
            for index, receiver in enumerate(receivers):
                if step_of(model.config, receiver) != step:
                    continue
                gradient = gradients[_input(model, receiver)]
                gradient = gradient if receiver.unit is None else gradient[:, :, receiver.unit]
                here = torch.einsum("npld,pld->np", change, gradient).double().cpu().numpy()
                there = [i for i, sender in enumerate(chunk) if reaches(model.config, sender, receiver)]
                found[index, [start + i for i in there]] = here[there]
    return found


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class AttributionCheck(Result):
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

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw estimates over exact effects, with the line where they are equal, and return the figure."""
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
    progress: bool | OnProgress | None = None,
) -> AttributionCheck:
    """Patch exactly and estimate the same patches.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: as in `patch`, as are all others that it has.
        steps: an estimate for each: 0 the plain gradient, n the mean of n on the way (EAP-IG).
        cells: patch only so many, drawn by `seed`; all if not set.
        seed: of the draw.
        progress: True for a progress bar, False for none, or a callback.

    Raises:
        InputError: as `patch`, no estimate, or fewer than one cell.
    """
    many = _distinct(steps)
    chosen, layers = find_site_layers(site, layers)
    with (
        progress_bar(progress, "Patching") as on_progress,
        ready(as_model(model)) as network,
        torch.no_grad(),
    ):
        pairs = PromptPairs.of(
            network, clean, corrupted, right=right, wrong=wrong, metric=metric, direction=direction
        )
        metric, mask, into, other = pairs.metric, pairs.mask, pairs.edited, pairs.donor
        plans = plan(network.config, chosen, into.shape[1], by_position, None, layers, None)
        drawn = _sample(len(plans), cells, seed)
        names = [chosen.hook_name(layer) for layer in layers_with(network.config, chosen)]
        base, donor = CachedRun(network, into, mask, names), CachedRun(network, other, mask, names)
        unpatched = metric.of_stream(network, base.streams[-1]).double()
        picked = plans.pick(drawn)
        exact = np.zeros((len(drawn), len(unpatched)))
        moving = moves(chosen, picked, donor.kept, base.kept)
        sweep = Sweep(chosen, picked.pick(moving), donor.kept)
        exact[moving] = (base.measure(sweep, metric, on_progress, unpatched) - unpatched).cpu().numpy()
        on_progress(1.0, "")
        sweeps = [_estimate(network, pairs, chosen, layers, by_position, count) for count in many]
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
    model: ModelLike,
    clean: Any,
    corrupted: Any,
    *,
    right: Any = None,
    wrong: Any = None,
    metric: Metric | Callable[[Tensor], Tensor] | str | None = None,
    receivers: Any = "all",
    direction: Direction = "denoise",
    steps: Sequence[int] = (0, 5),
    progress: bool | OnProgress | None = None,
) -> AttributionCheck:
    """Patch the direct path of edges exactly and estimate the same edges.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: as in `path_patch`, as are all others that it has.
        receivers: only the edges into these.
        steps: see `check_attribution`.
        progress: True for a progress bar, False for none, or a callback.

    Raises:
        InputError: as `path_patch`, or no estimate.
    """
    many, network = _distinct(steps), as_model(model)
    given = {"right": right, "wrong": wrong, "metric": metric, "direction": direction}
    chosen = find_receivers(network.config, receivers)
    exact = path_patch(model, clean, corrupted, receivers=chosen, progress=progress, **given)
    found = [edge_attribution(model, clean, corrupted, steps=count, **given) for count in many]
    rows = [found[0].receivers.index(one) for one in chosen]
    path = np.array([[reaches(network.config, sender, one) for sender in exact.senders] for one in chosen])
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

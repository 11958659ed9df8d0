"""Ablation: a model without some of its heads, MLPs or neurons, and what that costs in loss and accuracy.

What a component writes is replaced by zeros; by its mean over a reference text, so that the model loses what
the component says about this input and keeps what it always writes; or by what it wrote in another sequence
(resampling: Chan et al. 2022, causal scrubbing; compared by Heimersheim & Nanda 2024, arXiv:2404.15255).
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.console import OnProgress, make_table, progress_bar, stack
from workbench.errors import InputError, nearest
from workbench.evals.blimp import blimp
from workbench.evals.scoring import ready
from workbench.interp.components import Component, find_components, list_components, split_names
from workbench.interp.texts import (
    Reference,
    TextBatch,
    mean_activations,
    reference_batches,
    refuse_unscored,
    row_nats,
    text_batches,
)
from workbench.result import Result
from workbench.runs.run import ModelLike, open_model
from workbench.stats import Estimate, bootstrap_mean, bootstrap_ratio, mcnemar

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from workbench.model.config import ModelConfig
    from workbench.model.transformer import HookedTransformer

HOWS = ("zero", "mean", "resample")
DRAWS = 4
"""Donors that resampled effects are averaged over."""


class Replacement(NamedTuple):
    """The values that replace the output of each component."""

    how: str
    values: Mapping[Component, Float[Tensor, "..."]]
    """Mean: of one token, [d_value] of a head, [d_model] of an MLP, a number of a neuron.
    Resample: the same for each position, [pos ...]. Zero: nothing."""
    reference: Reference | None = None
    """The text that the values come from; None for zero."""

    @property
    def places(self) -> int | None:
        """Number of positions that have values; None for all."""
        return min(map(len, self.values.values()), default=0) if self.how == "resample" else None


@contextmanager
def ablated(
    model: ModelLike, components: Any, how: str = "zero", reference: Any = None, seed: int = 0
) -> Iterator["HookedTransformer"]:
    """Ablate components of a model inside a `with` block; it affects everything that runs the model there
    (loss, scoring, BLiMP, generation, patching). The hooks are removed when the block ends, also by an error.

    A head is ablated at `attn.hook_z`, so the attention's output bias, which belongs to no head, stays; an
    MLP at `hook_mlp_out`, its bias included; a neuron at `mlp.hook_post`. Values depend on a token's own
    position at most, so they are right in padded batches, packed rows, caches and prefix trees alike.

    Resampling inserts one donor sequence's activations, position by position: a row of the reference drawn by
    `seed`, continued by the next longer one where it ends. All rows get the same donor (rows of a prefix tree
    share tokens, so they could not each have one); average over several seeds.

    Args:
        model: a `HookedTransformer`, or a run, whose model is meant.
        components: see `find_components`: `"L2H1"`, `"L0H1, L2 MLP, L2N17"`, components, or a list of them.
        how: `zero`, `mean` over the reference's tokens, or `resample`.
        reference: see `replacements`; or a `Replacement`.
        seed: of the donor, and of the tokens hidden from a masked model.

    Yields:
        The model.

    Raises:
        InputError: an unknown component or way, a reference that cannot be read or resampled from; later,
            inside the block, a position beyond every donor.
    """
    network = open_model(model).model
    chosen = find_components(network.config, components)
    if isinstance(reference, Replacement):
        given = reference
        for component in chosen:
            if given.how != "zero" and component not in given.values:
                raise InputError(
                    f"the replacement has no values for {component.label}; make it with that component."
                )
    else:
        given = replacement(model, chosen, how, reference, seed)
    positions = threading.local()
    points = network.hook_dict
    added, before = [], []
    try:
        for name, edit in _edits(chosen, given, positions).items():
            added.append((points[name], points[name].add_hook(edit, is_permanent=True)))
        if given.how == "resample":
            before += [block.register_forward_pre_hook(_note(positions)) for block in network.blocks]
        yield network
    finally:
        for point, handle in added:
            handle.hook.remove()
            point.fwd_hooks = [other for other in point.fwd_hooks if other is not handle]
        for hook in before:
            hook.remove()


@contextmanager
def on_threads(model: "HookedTransformer") -> Iterator[None]:
    """Let scoring run on threads although an ablation's hooks are attached, which keep nothing. Does nothing
    where other hooks are attached.

    Enter it before the ablation, so that the whole model and the ablated one are computed alike, and a
    component without effect changes no bit.
    """
    if model.has_listeners():
        yield
        return
    model.has_listeners = lambda: False
    try:
        yield
    finally:
        del model.has_listeners


def replacement(
    model: ModelLike, components: Any, how: str = "zero", reference: Any = None, seed: int = 0
) -> Replacement:
    """Return the values that `ablated` inserts, to be used for several ablations; see `replacements`."""
    return replacements(model, components, how, reference, seed, draws=1)[0]


@torch.no_grad()
def replacements(
    model: ModelLike,
    components: Any,
    how: str = "zero",
    reference: Any = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> list[Replacement]:
    """Return one replacement, or one for each donor that is drawn for resampling.

    Args:
        model: a run or a `HookedTransformer`.
        components: every component that will be ablated.
        how: `zero`, `mean` or `resample`.
        reference: text as `text_batches` takes it, or a `Reference`; by default `default_reference`. Not
            used for zero.
        seed: of the first donor, and of the tokens hidden from a masked model.
        draws: number of donors.

    Raises:
        InputError: an unknown component or way, a reference that cannot be read, or one of a single sequence
            to resample from.
    """
    if how not in HOWS:
        raise InputError(f"Unknown ablation {how!r}. {nearest(how, HOWS)}")
    network = open_model(model).model
    chosen = find_components(network.config, components)
    if how == "zero":
        return [Replacement(how, {})]
    source, batches = reference_batches(model, reference, seed)
    with ready(network) as network:
        if how == "mean":
            return [Replacement(how, _means(network, chosen, batches), source)]
        return [
            Replacement(how, _donor(network, chosen, batches, seed + draw), source) for draw in range(draws)
        ]


def _means(
    model: "HookedTransformer", components: Sequence[Component], batches: Sequence[TextBatch]
) -> dict[Component, Tensor]:
    means = mean_activations(model, {component.hook_name for component in components}, batches)
    return {
        component: _of(component, means[component.hook_name], 0).to(model.dtype).clone()
        for component in components
    }


def _donor(
    model: "HookedTransformer", components: Sequence[Component], batches: Sequence[TextBatch], seed: int
) -> dict[Component, Tensor]:
    """Return one sequence's activations by position, continued by those of the next longer one drawn."""
    if any(batch.segments is not None for batch in batches):
        raise InputError(
            "packed rows of several stories cannot be donors; give stories, or token ids without segments."
        )
    if sum(len(batch.tokens) for batch in batches) < 2:
        raise InputError(
            "there is only one sequence to resample from; give a reference of two sequences or more."
        )
    lengths = torch.cat(
        [(batch.tokens >= 0).sum(1) if batch.real is None else batch.real.sum(1) for batch in batches]
    )
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
    rows = [(batch, row) for batch in batches for row in range(len(batch.tokens))]
    pieces: dict[Component, list[Tensor]] = {component: [] for component in components}
    filled = 0
    for index in order.tolist():
        length = int(lengths[index])
        if length <= filled:
            continue
        batch, row = rows[index]
        donor = TextBatch(batch.tokens[row : row + 1, :length], batch.targets[row : row + 1, :length])
        activations = _activations(model, components, donor)
        for component in components:
            own = _of(component, activations[component.hook_name][0], 1)
            pieces[component].append(own[filled:].clone())
        filled = length
    return {component: torch.cat(parts) for component, parts in pieces.items()}


def _activations(
    model: "HookedTransformer", components: Sequence[Component], batch: TextBatch
) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    names = {component.hook_name for component in components}
    with model.hooks(fwd_hooks=[(n, lambda x, hook: kept.update({hook.name: x})) for n in names]):
        batch.read(model)
    return kept


def _of(component: Component, x: Tensor, axis: int) -> Tensor:
    """Return the component's own values at its hook point, whose units lie along `axis`."""
    return x if component.unit is None else x.select(axis, component.unit)


def _note(positions: threading.local) -> Callable[..., None]:
    """Return a hook before a block that keeps its tokens' positions."""

    def note(block: Any, args: tuple[Any, ...]) -> None:
        positions.now = args[1].positions

    return note


def _edits(
    components: Sequence[Component], given: Replacement, positions: threading.local
) -> dict[str, Callable[..., Tensor]]:
    """Return one hook for each hook point."""
    by_point: dict[str, list[Component]] = {}
    for component in components:
        by_point.setdefault(component.hook_name, []).append(component)
    return {name: _edit(same, given, positions) for name, same in by_point.items()}


def _edit(
    components: Sequence[Component], given: Replacement, positions: threading.local
) -> Callable[..., Tensor]:
    """Return a hook that replaces the components of one hook point."""
    units = None if components[0].kind == "mlp" else [component.unit for component in components]
    values = None
    if given.how != "zero":
        each = [given.values[component] for component in components]
        values = each[0] if units is None else torch.stack(each, 1 if given.how == "resample" else 0)

    def replace(x: Tensor, hook: Any) -> Tensor:
        if values is None:
            new = x.new_zeros(())
        elif given.how == "mean":
            new = values.to(x)
        else:
            new = values.to(x)[_within(positions.now, given)]
        if units is None:
            return new.expand(x.shape).clone()
        x = x.clone()
        x[:, :, units] = new
        return x

    return replace


def _within(positions: Int[Tensor, "#batch pos"], given: Replacement) -> Tensor:
    last, available = int(positions.max()), given.places or 0
    if last >= available:
        raise InputError(
            f"position {last} is to be resampled, but the longest sequence of the reference has {available} "
            "tokens; give a reference with longer ones."
        )
    return positions


@dataclass(frozen=True)
class LossTable:
    """Loss on text, row by row."""

    tokens: Int[np.ndarray, " row"]
    """Scored tokens."""
    base: Float[np.ndarray, " row"]
    """Summed nats of the whole model."""
    without: Float[np.ndarray, "cell row"]
    """Summed nats of the ablated ones."""

    def mean(self, nats: Float[np.ndarray, "*cell row"]) -> Float[np.ndarray, "*cell"]:
        """Return nats per token."""
        return nats.sum(-1) / self.tokens.sum()


@dataclass(frozen=True)
class PairTable:
    """Decisions on minimal pairs."""

    pairs: "pd.DataFrame"
    """`BlimpResult.per_pair` of the whole model."""
    correct: Float[np.ndarray, "cell pair"]
    """Decisions of the ablated models; means over draws, if several donors were drawn."""
    margin: Float[np.ndarray, "cell pair"]
    """Score of the good sentence minus that of the bad one, nats."""
    name: str
    """The set of pairs."""
    protocol: str

    @cached_property
    def paradigm(self) -> np.ndarray:
        """The paradigm of each pair."""
        return self.pairs.paradigm.to_numpy()

    @property
    def change(self) -> Float[np.ndarray, "cell pair"]:
        """Decision after minus before."""
        return self.correct - self.pairs.correct.to_numpy()

    def mean(self, correct: Float[np.ndarray, "cell pair"]) -> Float[np.ndarray, " cell"]:
        """Return the accuracy, as the mean over paradigms."""
        groups = [self.paradigm == name for name in np.unique(self.paradigm)]
        return np.mean([correct[:, mask].mean(-1) for mask in groups], 0)


def _interval(low: float, high: float, digits: int) -> str:
    return "–" if low != low else f"[{low:+.{digits}f}, {high:+.{digits}f}]"


@dataclass(frozen=True, eq=False, repr=False)
class AblationResult(Result):
    """Effects of ablating sets of components, each set a cell."""

    names: tuple[str, ...]
    """Of the sets: a component's label, labels joined by `+`, or the caller's names."""
    parts: tuple[tuple[Component, ...], ...]
    how: str
    loss: LossTable | None
    pairs: PairTable | None
    run: str | None = None
    step: int | None = None
    draws: int = 1
    """Donors that a resampled effect is the mean over."""
    seed: int = 0
    reference: Reference | None = None
    """The text behind a mean or resampling ablation."""

    axes = ("component",)

    @cached_property
    def loss_change(self) -> Float[np.ndarray, " cell"]:
        """Increase of the loss, nats per token."""
        table = self._need("loss")
        return table.mean(table.without - table.base)

    @cached_property
    def accuracy_change(self) -> Float[np.ndarray, " cell"]:
        """Change of the accuracy, mean over paradigms."""
        table = self._need("pairs")
        return table.mean(table.change)

    @cached_property
    def loss_intervals(self) -> tuple[Estimate, ...]:
        """Change of each cell's loss with a 95 % interval over rows of text."""
        table = self._need("loss")
        return tuple(bootstrap_ratio(row - table.base, table.tokens, self.seed) for row in table.without)

    @cached_property
    def accuracy_intervals(self) -> tuple[Estimate, ...]:
        """Change of each cell's accuracy with a 95 % interval over pairs."""
        table = self._need("pairs")
        return tuple(bootstrap_mean(row, table.paradigm, self.seed) for row in table.change)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per cell: component, parts (their number), loss, loss_change with low and high (nats
        per token), accuracy, accuracy_change with low and high (mean over paradigms), lost, gained, p
        (McNemar, all pairs), how, run, step."""
        import pandas as pd

        frame = pd.DataFrame({"component": self.names, "parts": [len(each) for each in self.parts]})
        if self.loss is not None:
            frame["loss"] = self.loss.mean(self.loss.without)
            frame[["loss_change", "loss_low", "loss_high"]] = np.array(self.loss_intervals).reshape(-1, 3)
        if self.pairs is not None:
            frame["accuracy"] = self.pairs.mean(self.pairs.correct)
            columns = ["accuracy_change", "accuracy_low", "accuracy_high"]
            frame[columns] = np.array(self.accuracy_intervals).reshape(-1, 3)
            frame = frame.join(pd.DataFrame([mcnemar(row)._asdict() for row in self.pairs.change]))
        return frame.assign(how=self.how, run=self.run, step=self.step)

    def paradigms(self, component: str | None = None) -> "pd.DataFrame":
        """Return one row per cell and paradigm: phenomenon, n, accuracy before and after, change, low, high,
        lost, gained, p, change of the mean margin (nats).

        Args:
            component: only this cell.

        Raises:
            InputError: no such cell, or no pairs were scored.
        """
        import pandas as pd

        table = self._need("pairs")
        if component is not None and component not in self.names:
            raise InputError(f"{component!r} was not ablated here. {nearest(component, self.names)}")
        before, margin = table.pairs.correct.to_numpy(), table.pairs.margin.to_numpy()
        rows = []
        for cell, name in enumerate(self.names):
            if component is not None and name != component:
                continue
            for paradigm in np.unique(table.paradigm):
                mask = table.paradigm == paradigm
                change = table.change[cell, mask]
                estimate = bootstrap_mean(change, seed=self.seed)
                rows.append(
                    {
                        "component": name,
                        "paradigm": paradigm,
                        "phenomenon": table.pairs.phenomenon.to_numpy()[mask][0],
                        "n": int(mask.sum()),
                        "before": before[mask].mean(),
                        "after": table.correct[cell, mask].mean(),
                        "change": estimate.mean,
                        "low": estimate.low,
                        "high": estimate.high,
                        **mcnemar(change)._asdict(),
                        "margin_change": (table.margin[cell, mask] - margin[mask]).mean(),
                    }
                )
        return pd.DataFrame(rows)

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return a row for each ablation, the most harmful first.

        Args:
            rows: rows to show; all if not set.
        """
        order = "accuracy_change" if self.loss is None else "loss_change"
        frame = self.to_frame().sort_values(order, ascending=self.loss is None, kind="stable")
        header, cells, whole = ["ablated"], [], []
        if self.loss is not None:
            header += ["loss", "change", "95 % interval"]
            whole.append(f"loss {self.loss.base.sum() / self.loss.tokens.sum():.3f} nats per token")
        if self.pairs is not None:
            header += ["accuracy", "change", "95 % interval", "lost", "gained", "p"]
            accuracy = self.pairs.pairs.groupby("paradigm").correct.mean().mean()
            whole.append(f"{accuracy:.1%} of the {self.pairs.name} pairs right (mean over paradigms)")
        for row in frame.head(len(frame) if rows is None else rows).to_dict("records"):
            line = [row["component"] if row["parts"] <= 8 else f"{row['parts']} components"]
            if self.loss is not None:
                line += [f"{row['loss']:.3f}", f"{row['loss_change']:+.4f}"]
                line.append(_interval(row["loss_low"], row["loss_high"], 4))
            if self.pairs is not None:
                line += [f"{row['accuracy']:.1%}", f"{100 * row['accuracy_change']:+.1f}"]
                line.append(_interval(100 * row["accuracy_low"], 100 * row["accuracy_high"], 1))
                line += [str(row["lost"]), str(row["gained"]), f"{row['p']:.3f}"]
            cells.append(line)
        return stack(
            f"{self.how} ablation\n", make_table(header, cells), f"\nwhole model: {', '.join(whole)}"
        )

    def paradigm_summary(self, rows: int | None = None) -> "RenderableType":
        """Return a row for each ablation and paradigm whose accuracy changes, the greatest loss first."""
        frame = self.paradigms().query("change != 0").sort_values(by="change", kind="stable")
        if frame.empty:
            return stack("The accuracy of no paradigm changes.")
        cells = [
            [
                row["component"], row["paradigm"], row["n"], f"{row['before']:.1%}",
                f"{100 * row['change']:+.1f}", _interval(100 * row["low"], 100 * row["high"], 1),
                row["lost"], row["gained"], f"{row['p']:.3f}",
            ]
            for row in frame.head(len(frame) if rows is None else rows).to_dict("records")
        ]  # fmt: skip
        header = [
            "ablated",
            "paradigm",
            "pairs",
            "accuracy",
            "change",
            "95 % interval",
            "lost",
            "gained",
            "p",
        ]
        return make_table(header, cells, 2)

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the change of the loss (of the accuracy, if only pairs were scored) with intervals and return
        the figure.
        """
        from workbench.plots.components import plot_effects

        measure = "accuracy" if self.loss is None else "loss"
        columns = {f"{measure}_{name}": name for name in ("change", "low", "high")}
        unit = (
            "change of accuracy, mean over paradigms" if self.loss is None else "rise in loss, nats per token"
        )
        return plot_effects(self.to_frame().rename(columns=columns), how=self.how, xlabel=unit, ax=ax)

    def _need(self, measure: str) -> Any:
        table = getattr(self, measure)
        if table is None:
            name = "the loss was" if measure == "loss" else "minimal pairs were"
            raise InputError(f"{name} not measured; pass measure={measure!r}.")
        return table


MEASURES = ("loss", "pairs")


def ablation_effect(
    model: ModelLike,
    components: Any,
    *,
    each: bool = False,
    how: str = "zero",
    reference: Any = None,
    text: Any = None,
    pairs: Any = None,
    measure: str | Sequence[str] = MEASURES,
    paradigms: str | Sequence[str] | None = None,
    limit: int | None = None,
    protocol: str = "native",
    pll: str = "original",
    draws: int = DRAWS,
    seed: int = 0,
    progress: bool | OnProgress | None = None,
) -> AblationResult:
    """Measure a model whole and without some of its components.

    Args:
        model: a run, a `HookedTransformer` or a run's name; half-precision weights are computed in float32.
        components: components to ablate together (see `find_components`), or a mapping from names to such
            sets.
        each: ablate the components one at a time instead.
        how: `zero`, `mean` or `resample`; see `ablated`.
        reference: text that means and donors come from; see `replacements`.
        text: what the loss is measured on; see `text_batches`.
        pairs: minimal pairs, as `blimp` takes them.
        measure: `loss`, `pairs` or both.
        paradigms: only these.
        limit: largest number of pairs of each paradigm.
        protocol: how sentences are scored.
        pll: for masked models.
        draws: donors that resampling averages over.
        seed: of donors, hidden tokens and intervals.
        progress: True shows a bar, None after two seconds; or a callback.

    Raises:
        InputError: unknown components, measures or ways; text or pairs that do not fit the model.
    """
    measure = split_names(measure)
    for name in measure:
        if name not in MEASURES:
            raise InputError(f"Unknown measure {name!r}. {nearest(name, MEASURES)}")
    run, network, tokenizer = open_model(model)
    sets = _sets(network.config, components, each)
    everything = tuple(dict.fromkeys(part for parts in sets.values() for part in parts))
    batches = text_batches(model, text, seed) if "loss" in measure else []
    if "loss" in measure:
        refuse_unscored(batches)
    given = replacements(model, everything, how, reference, seed, draws)
    with (
        ready(network) as network,
        on_threads(network),
        progress_bar(progress, "Ablating") as on_progress,
    ):

        def score() -> Any:
            return blimp(
                network, pairs, protocol, pll=pll, paradigms=paradigms, limit=limit, tokenizer=tokenizer,
                progress=False,
            )  # fmt: skip

        base = losses(network, batches) if "loss" in measure else None
        whole = score() if "pairs" in measure else None
        nats, correct, margin = [], [], []
        for index, parts in enumerate(sets.values()):
            draws_nats, draws_correct, draws_margin = [], [], []
            for values in given:
                with ablated(network, parts, reference=values):
                    if base is not None:
                        draws_nats.append(losses(network, batches))
                    if whole is not None:
                        table = score().per_pair
                        draws_correct.append(table.correct.to_numpy())
                        draws_margin.append(table.margin.to_numpy())
            for means, drawn in zip(
                (nats, correct, margin), (draws_nats, draws_correct, draws_margin), strict=True
            ):
                if drawn:
                    means.append(np.mean(drawn, 0))
            on_progress((index + 1) / len(sets), f"{index + 1:,} of {len(sets):,} ablations")
    loss = pair_table = None
    if base is not None:
        loss = LossTable(np.concatenate([batch.counts for batch in batches]), base, np.stack(nats))
    if whole is not None:
        pair_table = PairTable(
            whole.per_pair, np.stack(correct), np.stack(margin), whole.pairs, whole.protocol.name
        )
    return AblationResult(
        names=tuple(sets),
        parts=tuple(sets.values()),
        how=how,
        loss=loss,
        pairs=pair_table,
        run=None if run is None else run.name,
        step=None if run is None else run.step,
        draws=len(given),
        seed=seed,
        reference=given[0].reference,
    )


def leave_one_out(model: ModelLike, components: Any = None, **options: Any) -> AblationResult:
    """Ablate every head and every MLP (or each of `components`) alone; see `ablation_effect`."""
    if components is None:
        components = list_components(open_model(model).model.config)
    return ablation_effect(model, components, each=True, **options)


@torch.no_grad()
def losses(model: "HookedTransformer", batches: Sequence[TextBatch]) -> Float[np.ndarray, " row"]:
    """Return the summed nats of every row of text."""
    return np.concatenate([row_nats(model, batch).cpu().numpy() for batch in batches])


def _sets(config: "ModelConfig", components: Any, each: bool) -> dict[str, tuple[Component, ...]]:
    if isinstance(components, Mapping):
        sets = {str(name): find_components(config, parts) for name, parts in components.items()}
    else:
        parts = find_components(config, components)
        groups = [(part,) for part in parts] if each else [parts]
        sets = {"+".join(part.label for part in group): group for group in groups if group}
    if not sets or not all(sets.values()):
        raise InputError("no component was named; name at least one, such as L0H1 or heads.")
    return sets

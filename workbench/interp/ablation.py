"""How much loss and accuracy parts are worth: measured without them, on the same text and pairs."""

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError, nearest
from workbench.evals.blimp import blimp
from workbench.evals.scoring import opened, ready
from workbench.interp.components import Component, find_components, list_components
from workbench.interp.texts import TextBatch, mean_activations, refuse_unscored, row_nats, text_batches
from workbench.stats import Estimate, bootstrap_mean, bootstrap_ratio, mcnemar

if TYPE_CHECKING:
    import pandas as pd


# What ablations did to loss and to minimal pairs.


@dataclasses.dataclass(frozen=True)
class LossTable:
    """Loss on text, row by row."""

    tokens: Int[np.ndarray, " row"]
    """Scored tokens."""
    base: Float[np.ndarray, " row"]
    """Summed nats of the whole model."""
    without: Float[np.ndarray, "cell row"]
    """Summed nats of the ablated ones."""

    def mean(self, nats: Float[np.ndarray, "*cell row"]) -> Float[np.ndarray, "*cell"]:
        """Nats a token."""
        return nats.sum(-1) / self.tokens.sum()


@dataclasses.dataclass(frozen=True)
class PairTable:
    """Decisions on minimal pairs."""

    pairs: "pd.DataFrame"
    """`BlimpResult.per_pair` of the whole model."""
    correct: Float[np.ndarray, "cell pair"]
    """Decisions of the ablated models; means over draws, if donors were drawn several times."""
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
        """Accuracy, the mean over paradigms."""
        groups = [self.paradigm == name for name in np.unique(self.paradigm)]
        return np.mean([correct[:, mine].mean(-1) for mine in groups], 0)


@dataclasses.dataclass(frozen=True)
class AblationResult:
    """Effects of ablating sets of parts, each set a cell."""

    names: tuple[str, ...]
    """Of the sets: a part's name, or names joined by `+`, or as they were called."""
    parts: tuple[tuple[Component, ...], ...]
    how: str
    loss: LossTable | None
    pairs: PairTable | None
    run: str | None = None
    step: int | None = None
    draws: int = 1
    """Donors that a resampled effect is the mean over."""
    seed: int = 0

    axes = ("component",)

    @cached_property
    def loss_change(self) -> Float[np.ndarray, " cell"]:
        """Nats a token that the loss rises by."""
        table = self._need("loss")
        return table.mean(table.without - table.base)

    @cached_property
    def accuracy_change(self) -> Float[np.ndarray, " cell"]:
        """Estimate of the accuracy, mean over paradigms."""
        table = self._need("pairs")
        return table.mean(table.change)

    @cached_property
    def loss_intervals(self) -> tuple[Estimate, ...]:
        """Estimate of the loss of each cell, with 95 % intervals over drawing other rows of text."""
        table = self._need("loss")
        return tuple(bootstrap_ratio(row - table.base, table.tokens, self.seed) for row in table.without)

    @cached_property
    def accuracy_intervals(self) -> tuple[Estimate, ...]:
        """Estimate of the accuracy of each cell, with 95 % intervals over drawing other pairs."""
        table = self._need("pairs")
        return tuple(bootstrap_mean(row, table.paradigm, self.seed) for row in table.change)

    def to_frame(self) -> "pd.DataFrame":
        """One row a cell: component, loss, loss_change with low and high (nats a token), accuracy,
        accuracy_change with low and high (mean over paradigms), lost, gained, p (McNemar, all pairs)."""
        import pandas as pd

        frame = pd.DataFrame({"component": self.names, "parts": [len(each) for each in self.parts]})
        if self.loss is not None:
            frame["loss"] = self.loss.mean(self.loss.without)
            frame[["loss_change", "loss_low", "loss_high"]] = np.array(self.loss_intervals).reshape(-1, 3)
        if self.pairs is not None:
            frame["accuracy"] = self.pairs.mean(self.pairs.correct)
            columns = ["accuracy_change", "accuracy_low", "accuracy_high"]
            frame[columns] = np.array(self.accuracy_intervals).reshape(-1, 3)
            turned = pd.DataFrame([mcnemar(row)._asdict() for row in self.pairs.change])
            frame = frame.join(turned)
        return frame.assign(how=self.how, run=self.run, step=self.step)

    def paradigms(self, component: str | None = None) -> "pd.DataFrame":
        """One row for each cell and paradigm: phenomenon, n, accuracy before and after, change, low, high,
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
                mine = table.paradigm == paradigm
                turned = table.change[cell, mine]
                change = bootstrap_mean(turned, seed=self.seed)
                rows.append(
                    {
                        "component": name,
                        "paradigm": paradigm,
                        "phenomenon": table.pairs.phenomenon.to_numpy()[mine][0],
                        "n": int(mine.sum()),
                        "before": before[mine].mean(),
                        "after": table.correct[cell, mine].mean(),
                        "change": change.mean,
                        "low": change.low,
                        "high": change.high,
                        **mcnemar(turned)._asdict(),
                        "margin_change": (table.margin[cell, mine] - margin[mine]).mean(),
                    }
                )
        return pd.DataFrame(rows)

    def plot(self, ax: Any = None) -> Any:
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

    def _need(self, what: str) -> Any:
        table = getattr(self, what)
        if table is None:
            other = "the loss" if what == "loss" else "minimal pairs"
            raise InputError(f"{other} was not measured here; ask for measure=({what!r},).")
        return table


# Ablation: a model without some of its heads, MLPs or neurons.
#
# What a part writes is replaced by zeros; by its mean over text, so that the model loses what the part says
# of this input and keeps what it always says; or by what it said in another sequence (resampling: Chan et al.
# 2022, causal scrubbing; compared by Heimersheim & Nanda 2024, arXiv:2404.15255).


HOWS = ("zero", "mean", "resample")


class Replacement(NamedTuple):
    """What goes in for each part."""

    how: str
    values: Mapping[Component, Float[Tensor, "..."]]
    """Mean: what one token has, [d_value] of a head, [d_model] of an MLP, a number of a neuron.
    Resample: the same for each position, [pos ...]. Zero: nothing."""

    @property
    def places(self) -> int | None:
        """Positions that there are values for; None for all."""
        return min(map(len, self.values.values()), default=0) if self.how == "resample" else None


@contextmanager
def ablated(
    model: Any, components: Any, how: str = "zero", reference: Any = None, seed: int = 0
) -> Iterator[Any]:
    """The model without some parts: everything that runs it inside the `with` block (loss, scoring, BLiMP,
    generation, patching) sees it so. Hooks go when the block ends, also by an exception.

    A head is ablated at `attn.hook_z`, so the attention's output bias stays, which belongs to no head; an
    MLP at `hook_mlp_out`, its bias included; a neuron at `mlp.hook_post`. Values depend on a token's own
    position at most, so they are right in padded batches, packed rows, caches and prefix trees alike.

    Resampling puts in one donor sequence's activations, position by position: the donor is a row of the
    reference drawn by `seed`, and where it ends a next one goes on. All rows get the same donor (rows of a
    prefix tree share tokens, so they could not each have one); average over several seeds.

    Args:
        model: a `HookedTransformer`, or a run, whose model is meant.
        components: see `find_components`: `"L2H1"`, `"L0H1, L2 MLP, L2N17"`, parts, or a list of them.
        how: `zero`, `mean` over the reference's tokens, or `resample`.
        reference: text as `text_batches` takes it, by default the first 100 training stories; or a
            `Replacement`. Needless for zero.
        seed: of the donor, and of the tokens hidden from a masked model.

    Yields:
        The network.

    Raises:
        InputError: an unknown part or way, a reference that cannot be read or resampled from; later, inside
            the block, a position beyond every donor.
    """
    network = opened(model)[1]
    parts = find_components(network.config, components)
    if isinstance(reference, Replacement):
        given = reference
        for part in parts:
            if given.how != "zero" and part not in given.values:
                raise InputError(f"the replacement has no values for {part.label}; make it with that part.")
    else:
        given = replacement(model, parts, how, reference, seed)
    positions = threading.local()
    points = network.hook_dict
    added, before = [], []
    try:
        for name, edit in _edits(parts, given, positions).items():
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
def on_threads(network: Any) -> Iterator[None]:
    """Let scoring run on threads although the model has listeners: those of an ablation keep nothing. Does
    nothing where somebody else listens already.

    Enter it before the ablation, so that the whole model and the ablated one are computed alike, and a part
    that does nothing changes nothing to the bit.
    """
    if network.has_listeners():
        yield
        return
    network.has_listeners = lambda: False
    try:
        yield
    finally:
        del network.has_listeners


@torch.no_grad()
def replacement(
    model: Any, components: Any, how: str = "zero", reference: Any = None, seed: int = 0
) -> Replacement:
    """The values that `ablated` puts in, to be used for several ablations.

    Args:
        model: a run or a `HookedTransformer`.
        components: every part that will be ablated.
        how: `zero`, `mean` or `resample`.
        reference: text; see `ablated`.
        seed: see `ablated`.

    Raises:
        InputError: an unknown part or way, a reference that cannot be read, or one of a single sequence to
            resample from.
    """
    if how not in HOWS:
        raise InputError(f"{how!r} is no way to ablate. {nearest(how, HOWS)}")
    parts = find_components(opened(model)[1].config, components)
    if how == "zero":
        return Replacement(how, {})
    batches = text_batches(model, reference, seed, "train")
    with ready(opened(model)[1]) as network:
        found = _means(network, parts, batches) if how == "mean" else _donor(network, parts, batches, seed)
    return Replacement(how, found)


def _means(network: Any, parts: Sequence[Component], batches: Sequence[TextBatch]) -> dict[Component, Tensor]:
    means = mean_activations(network, {part.hook_name for part in parts}, batches)
    return {part: _of(part, means[part.hook_name], 0).to(network.dtype).clone() for part in parts}


def _donor(
    network: Any, parts: Sequence[Component], batches: Sequence[TextBatch], seed: int
) -> dict[Component, Tensor]:
    """One sequence's activations by position; where it ends the next drawn one that is longer goes on."""
    if any(batch.segments is not None for batch in batches):
        raise InputError(
            "rows of several stories are no donors; give stories, or token ids without segments."
        )
    if sum(len(batch.tokens) for batch in batches) < 2:
        raise InputError("one sequence is no choice of donors; give a reference of two or more.")
    lengths = torch.cat(
        [(batch.tokens >= 0).sum(1) if batch.real is None else batch.real.sum(1) for batch in batches]
    )
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
    places = [batch for batch in batches for _ in batch.tokens]
    rows = [row for batch in batches for row in range(len(batch.tokens))]
    kept: dict[Component, list[Tensor]] = {part: [] for part in parts}
    filled = 0
    for index in order.tolist():
        length = int(lengths[index])
        if length <= filled:
            continue
        batch, row = places[index], slice(rows[index], rows[index] + 1)
        one = TextBatch(batch.tokens[row, :length], batch.targets[row, :length])
        seen = _watched(network, parts, one)
        for part in parts:
            kept[part].append(_of(part, seen[part.hook_name][0], 1)[filled:].clone())
        filled = length
    return {part: torch.cat(pieces) for part, pieces in kept.items()}


def _watched(network: Any, parts: Sequence[Component], batch: TextBatch) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    names = {part.hook_name for part in parts}
    with network.hooks(fwd_hooks=[(n, lambda x, hook: kept.update({hook.name: x})) for n in names]):
        batch.read(network)
    return kept


def _of(part: Component, x: Tensor, axis: int) -> Tensor:
    """The part's own values at its hook point, whose units lie along `axis`."""
    return x if part.unit is None else x.select(axis, part.unit)


def _note(positions: threading.local) -> Callable[..., None]:
    """A hook before a block that keeps its tokens' positions."""

    def note(block: Any, args: tuple[Any, ...]) -> None:
        positions.now = args[1].positions

    return note


def _edits(
    parts: Sequence[Component], given: Replacement, positions: threading.local
) -> dict[str, Callable[..., Tensor]]:
    """One hook for each hook point."""
    together: dict[str, list[Component]] = {}
    for part in parts:
        together.setdefault(part.hook_name, []).append(part)
    return {name: _edit(same, given, positions) for name, same in together.items()}


def _edit(
    parts: Sequence[Component], given: Replacement, positions: threading.local
) -> Callable[..., Tensor]:
    """A hook that fills the parts of one hook point."""
    units = None if parts[0].kind == "mlp" else [part.unit for part in parts]
    values = None
    if given.how != "zero":
        axis = 1 if given.how == "resample" else 0
        each = [given.values[part] for part in parts]
        values = each[0] if units is None else torch.stack(each, axis)

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
    furthest, there = int(positions.max()), given.places or 0
    if furthest >= there:
        raise InputError(
            f"position {furthest} is to be resampled, but the longest sequence of the reference has {there} "
            "tokens; give a reference with longer ones."
        )
    return positions


MEASURES = ("loss", "pairs")
DRAWS = 4
"""Donors that resampled effects are averaged over."""


def ablation_effect(
    model: Any,
    components: Any,
    *,
    each: bool = False,
    how: str = "zero",
    reference: Any = None,
    text: Any = None,
    pairs: Any = None,
    measure: Sequence[str] = MEASURES,
    paradigms: Sequence[str] | None = None,
    limit: int | None = None,
    protocol: str = "native",
    pll: str = "original",
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> AblationResult:
    """Measure a model whole and without some of its parts.

    Args:
        model: a run or a `HookedTransformer`; half-precision weights are computed in float32.
        components: parts to take out together (see `find_components`), or a mapping from names to such sets.
        each: take out the parts one at a time instead.
        how: `zero`, `mean` or `resample`; see `ablated`.
        reference: text that means and donors come from; by default 100 training stories.
        text: what the loss is measured on; see `text_batches`.
        pairs: minimal pairs, as `blimp` takes them.
        measure: `loss`, `pairs` or both.
        paradigms: only these.
        limit: only the first so many pairs of each paradigm.
        protocol: how sentences are scored.
        pll: for masked models.
        draws: donors that resampling averages over.
        seed: of donors, hidden tokens and intervals.
        progress: called with the number of ablations done and of all.

    Raises:
        InputError: unknown parts, measures or ways; text or pairs that do not fit the model.
    """
    for name in measure:
        if name not in MEASURES:
            raise InputError(f"{name!r} is not measured here. {nearest(name, MEASURES)}")
    run, network, tokenizer = opened(model)
    sets = _sets(network.config, components, each)
    everything = tuple(dict.fromkeys(part for parts in sets.values() for part in parts))
    batches = text_batches(model, text, seed) if "loss" in measure else []
    if "loss" in measure:
        refuse_unscored(batches)
    seeds = range(seed, seed + draws) if how == "resample" else [seed]
    source = [] if how == "zero" else text_batches(model, reference, seed, "train")
    nats: list[np.ndarray] = []
    found: list[tuple[np.ndarray, np.ndarray]] = []
    with ready(network) as network, on_threads(network):
        given = [replacement(network, everything, how, source, one) for one in seeds]

        def scored() -> Any:
            return blimp(
                network, pairs, protocol, pll=pll, paradigms=paradigms, limit=limit, tokenizer=tokenizer,
                progress=False,
            )  # fmt: skip

        base = losses(network, batches) if "loss" in measure else None
        whole = scored() if "pairs" in measure else None
        for done, parts in enumerate(sets.values()):
            inside = [_measured(network, parts, one, batches, base, whole, scored) for one in given]
            if base is not None:
                nats.append(np.mean([one[0] for one in inside], 0))
            if whole is not None:
                found.append((np.mean([o[1] for o in inside], 0), np.mean([o[2] for o in inside], 0)))
            if progress is not None:
                progress(done + 1, len(sets))
    return AblationResult(
        names=tuple(sets),
        parts=tuple(sets.values()),
        how=how,
        loss=None if base is None else LossTable(_counts(batches), base, np.stack(nats)),
        pairs=None
        if whole is None
        else PairTable(
            whole.per_pair,
            np.stack([correct for correct, _ in found]),
            np.stack([margin for _, margin in found]),
            whole.pairs,
            whole.protocol.name,
        ),
        run=None if run is None else run.name,
        step=None if run is None else run.step,
        draws=len(given),
        seed=seed,
    )


def leave_one_out(model: Any, components: Any = None, **options: Any) -> AblationResult:
    """Every head and every MLP (or each of `components`) taken out alone; see `ablation_effect`."""
    if components is None:
        components = list_components(opened(model)[1].config)
    return ablation_effect(model, components, each=True, **options)


@torch.no_grad()
def losses(network: Any, batches: Sequence[TextBatch]) -> Float[np.ndarray, " row"]:
    """Summed nats of every row of text."""
    return np.concatenate([row_nats(network, batch).cpu().numpy() for batch in batches])


def _counts(batches: Sequence[TextBatch]) -> np.ndarray:
    return np.concatenate([batch.counts for batch in batches])


def _measured(
    network: Any,
    parts: Sequence[Component],
    given: Replacement,
    batches: Sequence[TextBatch],
    base: Any,
    whole: Any,
    scored: Callable[[], Any],
) -> tuple[Any, Any, Any]:
    """Nats of each row, decision and margin of each pair, as far as they are asked for."""
    with ablated(network, parts, given.how, given):
        nats = None if base is None else losses(network, batches)
        table = None if whole is None else scored().per_pair
    if table is None:
        return nats, None, None
    return nats, table.correct.to_numpy(), table.margin.to_numpy()


def _sets(config: Any, components: Any, each: bool) -> dict[str, tuple[Component, ...]]:
    if isinstance(components, Mapping):
        sets = {str(name): find_components(config, parts) for name, parts in components.items()}
    else:
        parts = find_components(config, components)
        groups = [(part,) for part in parts] if each else [parts]
        sets = {"+".join(part.label for part in group): group for group in groups if group}
    if not sets or not all(sets.values()):
        raise InputError("no component was named; name at least one, such as L0H1 or heads.")
    return sets

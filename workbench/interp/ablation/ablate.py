"""Ablation: a model without some of its heads, MLPs or neurons.

What a part writes is replaced by zeros; by its mean over text, so that the model loses what the part says
of this input and keeps what it always says; or by what it said in another sequence (resampling: Chan et al.
2022, causal scrubbing; compared by Heimersheim & Nanda 2024, arXiv:2404.15255).
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError, nearest
from workbench.evals.scoring import opened, ready
from workbench.interp.parts import Part, find_parts
from workbench.interp.texts import TextBatch, mean_activations, text_batches

HOWS = ("zero", "mean", "resample")


class Replacement(NamedTuple):
    """What goes in for each part."""

    how: str
    values: Mapping[Part, Float[Tensor, "..."]]
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
        components: see `find_parts`: `"L2H1"`, `"L0H1, L2 MLP, L2N17"`, parts, or a list of them.
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
    parts = find_parts(network.config, components)
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
    parts = find_parts(opened(model)[1].config, components)
    if how == "zero":
        return Replacement(how, {})
    batches = text_batches(model, reference, seed, "train")
    with ready(opened(model)[1]) as network:
        found = _means(network, parts, batches) if how == "mean" else _donor(network, parts, batches, seed)
    return Replacement(how, found)


def _means(network: Any, parts: Sequence[Part], batches: Sequence[TextBatch]) -> dict[Part, Tensor]:
    means = mean_activations(network, {part.hook_name for part in parts}, batches)
    return {part: _of(part, means[part.hook_name], 0).to(network.dtype).clone() for part in parts}


def _donor(
    network: Any, parts: Sequence[Part], batches: Sequence[TextBatch], seed: int
) -> dict[Part, Tensor]:
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
    kept: dict[Part, list[Tensor]] = {part: [] for part in parts}
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


def _watched(network: Any, parts: Sequence[Part], batch: TextBatch) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    names = {part.hook_name for part in parts}
    with network.hooks(fwd_hooks=[(n, lambda x, hook: kept.update({hook.name: x})) for n in names]):
        batch.read(network)
    return kept


def _of(part: Part, x: Tensor, axis: int) -> Tensor:
    """The part's own values at its hook point, whose units lie along `axis`."""
    return x if part.kind == "mlp" else x.select(axis, part.unit)


def _note(positions: threading.local) -> Callable[..., None]:
    """A hook before a block that keeps its tokens' positions."""

    def note(block: Any, args: tuple[Any, ...]) -> None:
        positions.now = args[1].positions

    return note


def _edits(
    parts: Sequence[Part], given: Replacement, positions: threading.local
) -> dict[str, Callable[..., Tensor]]:
    """One hook for each hook point."""
    together: dict[str, list[Part]] = {}
    for part in parts:
        together.setdefault(part.hook_name, []).append(part)
    return {name: _edit(same, given, positions) for name, same in together.items()}


def _edit(parts: Sequence[Part], given: Replacement, positions: threading.local) -> Callable[..., Tensor]:
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

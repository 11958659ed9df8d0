"""How much loss and accuracy parts are worth: measured without them, on the same text and pairs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from workbench.errors import InputError, nearest
from workbench.evals.blimp import blimp
from workbench.evals.scoring import opened, ready
from workbench.interp.ablation.ablate import Replacement, ablated, on_threads, replacement
from workbench.interp.ablation.result import AblationResult, LossTable, PairTable
from workbench.interp.parts import Part, all_parts, find_parts
from workbench.interp.texts import TextBatch, refuse_unscored, row_nats, text_batches

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
        components: parts to take out together (see `find_parts`), or a mapping from names to such sets.
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
                network, pairs, protocol, pll=pll, paradigms=paradigms, limit=limit, tokenizer=tokenizer
            )

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
        components = all_parts(opened(model)[1].config)
    return ablation_effect(model, components, each=True, **options)


@torch.no_grad()
def losses(network: Any, batches: Sequence[TextBatch]) -> Float[np.ndarray, " row"]:
    """Summed nats of every row of text."""
    return np.concatenate([row_nats(network, batch).cpu().numpy() for batch in batches])


def _counts(batches: Sequence[TextBatch]) -> np.ndarray:
    return np.concatenate([batch.counts for batch in batches])


def _measured(
    network: Any,
    parts: Sequence[Part],
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


def _sets(config: Any, components: Any, each: bool) -> dict[str, tuple[Part, ...]]:
    if isinstance(components, Mapping):
        sets = {str(name): find_parts(config, parts) for name, parts in components.items()}
    else:
        parts = find_parts(config, components)
        groups = [(part,) for part in parts] if each else [parts]
        sets = {"+".join(part.label for part in group): group for group in groups if group}
    if not sets or not all(sets.values()):
        raise InputError("no component was named; name at least one, such as L0H1 or heads.")
    return sets

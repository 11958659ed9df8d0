"""The smallest set of heads and MLPs that keeps a paradigm's accuracy, the rest ablated (greedy).

Starting from the whole model, the part whose removal costs least is taken out, again and again (as in
ACDC's pruning: Conmy et al. 2023, arXiv:2304.14997); starting from nothing, the part that helps most is put
in. The smaller of the two sets that reach the target is kept, less what it can still spare. The set is
chosen on one half of the pairs; the other half checks it as Wang et al. 2022 (arXiv:2211.00593) do:
faithfulness (the set beside the whole model), completeness (the model without the set beside nothing at
all) and minimality (the set without each of its parts), with random sets of the same size as a control.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from workbench.data.pairs import Pair, PairSet, open_pairs
from workbench.errors import InputError, nearest
from workbench.evals.intervals import wilson
from workbench.evals.result import CHANCE
from workbench.evals.scoring import opened, ready
from workbench.interp.ablation.ablate import on_threads, replacement
from workbench.interp.components.encoded_pairs import EncodedPairs
from workbench.interp.components.part_sets import Measured, Parts, drawn_sets
from workbench.interp.components.smallest_result import Half, SmallestCircuit, Step
from workbench.interp.parts import Part, all_parts

ORDERS = ("gradient", "ablate")
SCREENED = 4
"""Parts that are measured in a step: those whose gradients promise most."""
RANDOM_SETS = 20


def smallest_circuit(
    model: Any,
    pairs: PairSet | str | None = None,
    paradigm: str | Sequence[str] | None = None,
    *,
    keep: float = 0.9,
    chance: float = CHANCE,
    how: str = "mean",
    reference: Any = None,
    order: str | None = None,
    limit: int | None = 200,
    held_out: float = 0.5,
    protocol: str = "native",
    pll: str = "original",
    random_sets: int = RANDOM_SETS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> SmallestCircuit:
    """The fewest heads and MLPs that decide minimal pairs nearly as well as the whole model.

    A set reaches the target if its accuracy is at least `chance + keep * (accuracy of the model - chance)`
    on the pairs that it is chosen on; a tie counts half under every protocol. Of sets of one size, the one
    with the greater mean of `sigmoid(margin)`, the probability of the good sentence of the two, wins.

    Args:
        model: a run or a `HookedTransformer` with its tokenizer, causal or masked.
        pairs: a `PairSet`, or what `open_pairs` takes: a hub name, a folder, None for the embedded pairs.
        paradigm: which, or several, taken as one; None for all.
        keep: share of the accuracy above chance.
        chance: accuracy that counts as nothing; 0 keeps a share of the accuracy itself.
        how: what the other parts are replaced by, `mean`, `zero` or `resample`; see `ablated`.
        reference: text that means and donors come from; by default 100 training stories.
        order: `ablate` measures every part in every step; `gradient` only those that the gradients of gates
            promise most from. By default `gradient`, and `ablate` with `resample`.
        limit: only the first so many pairs of each paradigm; None for all.
        held_out: share of each paradigm's pairs that checks the choice.
        protocol: how sentences are scored.
        pll: for masked models.
        random_sets: how many of the same size the circuit is compared with.
        seed: of the split, random sets, donors and intervals.
        progress: called with the number of measurements done and of all that may be needed.

    Raises:
        InputError: settings outside their range, too few pairs, a model that is not above chance on them or
            that has no heads and MLPs.
        DataError: a paradigm that the pairs lack, or pairs that cannot be read.
    """
    order = order or ("ablate" if how == "resample" else "gradient")
    _refuse_settings(keep, chance, held_out, random_sets, order, how)
    run, network, tokenizer = opened(model)
    parts = all_parts(network.config)
    whole = open_pairs(pairs) if pairs is None or isinstance(pairs, str) else pairs
    chosen = whole.select([paradigm] if isinstance(paradigm, str) else paradigm, limit)
    halves = _halves(chosen, held_out, seed)
    with ready(network) as network, on_threads(network):
        given = replacement(model, parts, how, reference, seed)
        screen = SCREENED if order == "gradient" else len(parts)
        count = _Counter(progress, len(parts), screen, random_sets)
        select, held = (
            Measured(network, parts, given, EncodedPairs(network, tokenizer, half, protocol, pll), count)
            for half in halves
        )
        target = _target(select, keep, chance, tuple(chosen.paradigms))
        steps, kept = _search(select, target, screen)
        kept = _cleaned(select, kept, target)
        result = SmallestCircuit(
            kept=kept,
            target=target,
            steps=tuple(_step(direction, one, select, held) for direction, one in steps),
            chosen_on=_half(select, kept, 0, seed),
            held_out=_half(held, kept, random_sets, seed),
            parts=parts,
            paradigms=tuple(chosen.paradigms),
            pairs=whole.name,
            keep=keep,
            chance=chance,
            how=how,
            order=order,
            protocol=protocol,
            run=None if run is None else run.name,
            step=None if run is None else run.step,
            seed=seed,
        )
        count.finish()
    return result


def _search(on: Measured, target: float, screen: int) -> tuple[list[tuple[str, Parts]], Parts]:
    """Every set on the way, and the smallest that reaches the target."""
    path = [on.parts]
    while path[-1]:
        path.append(_best(on, path[-1], screen, removed=True))
    kept = min((one for one in path if _reaches(on, one, target)), key=len)
    steps = [("backward", one) for one in path]
    grown: Parts = ()
    while kept and len(grown) < len(kept) and not _reaches(on, grown, target):
        grown = _best(on, grown, screen, removed=False)
        steps.append(("forward", grown))
    if _reaches(on, grown, target) and _rank(on, grown) > _rank(on, kept):
        kept = grown
    return steps, kept


def _rank(on: Measured, kept: Parts) -> tuple[int, float]:
    """The greater the better: few parts, then a great preference."""
    return -len(kept), on.preference(kept)


def _best(on: Measured, kept: Parts, screen: int, *, removed: bool) -> Parts:
    """The set with one part less, or more, that prefers the good sentences most."""
    open_ = [part for part in on.parts if (part in kept) == removed]
    if len(open_) > screen:
        slopes = on.slopes(kept)
        open_ = sorted(open_, key=lambda part: slopes[part] if removed else -slopes[part])[:screen]
    sets = [_without(kept, part) if removed else (*kept, part) for part in open_]
    return max(sets, key=on.preference)


def _cleaned(on: Measured, kept: Parts, target: float) -> Parts:
    """The set less whatever it can spare, the most needed part first."""
    while spared := [one for part in kept if _reaches(on, one := _without(kept, part), target)]:
        kept = max(spared, key=on.preference)
    return tuple(sorted(kept, key=lambda part: on.preference(_without(kept, part))))


def _without(kept: Parts, gone: Part) -> Parts:
    return tuple(part for part in kept if part != gone)


def _reaches(on: Measured, kept: Parts, target: float) -> bool:
    return on.accuracy(kept) >= target - 1e-12  # the target is rounded


def _step(direction: str, kept: Parts, *halves: Measured) -> Step:
    one, other = halves
    margins = float(one.margins(kept).mean()), float(other.margins(kept).mean())
    return Step(direction, kept, (one.accuracy(kept), other.accuracy(kept)), margins)


def _half(on: Measured, kept: Parts, draws: int, seed: int) -> Half:
    others = tuple(part for part in on.parts if part not in kept)
    sets: dict[str, Parts] = {"whole": on.parts, "circuit": kept, "complement": others, "nothing": ()}
    pairs = len(on.pairs)
    return Half(
        sets={name: on.margins(parts) for name, parts in sets.items()},
        without=np.array([on.margins(_without(kept, part)) for part in kept]).reshape(-1, pairs),
        random=np.array([on.margins(one) for one in drawn_sets(on.parts, kept, draws, seed)]).reshape(
            -1, pairs
        ),
    )


def _target(on: Measured, keep: float, chance: float, paradigms: Sequence[str]) -> float:
    """The accuracy to be kept; refuses a model that is not above chance."""
    before, count = on.accuracy(on.parts), len(on.pairs)
    floor = max(chance, CHANCE)
    low, high = wilson(before, count)
    if low <= floor:
        name = paradigms[0] if len(paradigms) == 1 else f"{len(paradigms)} paradigms"
        raise InputError(
            f"there is nothing to keep: the model gets {before:.1%} of {count} pairs of {name} right, not "
            f"clearly above {floor:.0%} (interval {low:.1%} to {high:.1%}); take a paradigm that it knows."
        )
    return chance + keep * (before - chance)


def _halves(chosen: PairSet, held_out: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to choose on and pairs to check on, every paradigm divided."""
    random = np.random.default_rng(seed)
    select: list[Pair] = []
    held: list[Pair] = []
    for paradigm, pairs in chosen.paradigms.items():
        order = random.permutation(len(pairs))
        cut = round(held_out * len(pairs))
        if min(cut, len(pairs) - cut) < 2:
            raise InputError(
                f"{paradigm} has {len(pairs)} pairs, of which {cut} would be held out; at least 2 are needed "
                "to choose a circuit and 2 to check it."
            )
        held += [pairs[index] for index in order[:cut]]
        select += [pairs[index] for index in order[cut:]]
    return select, held


def _refuse_settings(keep: float, chance: float, held_out: float, draws: int, order: str, how: str) -> None:
    for name, value in (("keep", keep), ("held_out", held_out)):
        if not 0 < value <= 1:
            raise InputError(f"{name} is {value}; give a share, above 0 and up to 1.")
    if not 0 <= chance < 1:
        raise InputError(f"chance is {chance}; give an accuracy from 0 to below 1.")
    if draws < 0:
        raise InputError(f"random_sets is {draws}; give a number of sets, 0 for none.")
    if order not in ORDERS:
        raise InputError(f"{order!r} is no order. {nearest(order, ORDERS)}")
    if order == "gradient" and how == "resample":
        raise InputError("order='gradient' needs how='mean' or 'zero'; with 'resample' take order='ablate'.")


class _Counter:
    """Tells how many measurements are done, of about how many."""

    def __init__(
        self, progress: Callable[[int, int], None] | None, parts: int, screen: int, draws: int
    ) -> None:
        self._progress, self._done = progress, 0
        backward = sum(min(left, screen) + (left > screen) for left in range(1, parts + 1))
        forward = 3 * min(parts, screen + 1)
        self._total = backward + forward + parts + draws + 10

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(min(self._done, self._total - 1), self._total)

    def finish(self) -> None:
        """All is done."""
        if self._progress is not None:
            self._progress(self._total, self._total)

"""The smallest set of heads and MLPs that keeps a paradigm's accuracy, the rest ablated (greedy search).

Backward, the component whose ablation costs least is removed from the whole model, step by step (as in the
pruning of ACDC: Conmy et al. 2023, arXiv:2304.14997); forward, the component that helps most is added to the
empty set. The smaller of the two sets that reach the target is kept, without the components that it does not
need. The set is chosen on one half of the pairs and checked on the other as in Wang et al. 2022
(arXiv:2211.00593): faithfulness (the circuit against the whole model), completeness (the model without the
circuit against the empty set) and minimality (the circuit without each component), with random sets of the
same size as a control.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit
from torch import Tensor

from workbench.console import OnProgress, progress_bar, stack
from workbench.data.pairs import Pair, PairSet, open_pairs
from workbench.errors import InputError, nearest
from workbench.evals.blimp import CHANCE
from workbench.evals.scoring import ready
from workbench.interp.ablation import Replacement, ablated, on_threads, replacement
from workbench.interp.components import Component, list_components
from workbench.interp.pairs import EncodedPairs
from workbench.interp.texts import Reference
from workbench.result import Result
from workbench.runs.run import ModelLike, open_model
from workbench.stats import Estimate, bootstrap_mean, mcnemar, wilson

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from workbench.model.transformer import HookedTransformer


class Step(NamedTuple):
    """A set of the search; first value on the pairs it was chosen on, second on the held-out ones."""

    direction: str
    """`backward` from the whole model, `forward` from nothing."""
    kept: tuple[Component, ...]
    accuracy: tuple[float, float]
    margin: tuple[float, float]
    """Mean score of the good sentence minus that of the bad one, nats."""


@dataclass(frozen=True)
class Half:
    """Margins of one half of the pairs under each set, nats."""

    sets: Mapping[str, Float[np.ndarray, " pair"]]
    """`whole` model, `circuit`, `complement` (the model without the circuit), `nothing` (all ablated)."""
    without: Float[np.ndarray, "kept pair"]
    """The circuit without each of its components."""
    random: Float[np.ndarray, "draw pair"]
    """Random sets of the circuit's size."""

    @property
    def count(self) -> int:
        """Number of pairs."""
        return len(self.sets["whole"])

    def accuracy(self, name: str) -> float:
        """Return the fraction of pairs that a set decides correctly.

        Raises:
            InputError: no such set.
        """
        return float(decisions(self._margins(name)).mean())

    def change(self, name: str, baseline: str = "whole") -> Estimate:
        """Return the accuracy of a set minus that of another, with a 95 % interval over pairs.

        Raises:
            InputError: no such set.
        """
        return bootstrap_mean(decisions(self._margins(name)) - decisions(self._margins(baseline)))

    @property
    def random_accuracy(self) -> Float[np.ndarray, " draw"]:
        """Accuracy of each random set."""
        return decisions(self.random).mean(-1)

    def _margins(self, name: str) -> Float[np.ndarray, " pair"]:
        if name not in self.sets:
            raise InputError(f"Unknown set {name!r}. {nearest(name, self.sets)}")
        return self.sets[name]


def decisions(margins: Float[np.ndarray, "*set pair"]) -> Float[np.ndarray, "*set pair"]:
    """Return 1 where the good sentence scores higher, 0 where lower, 0.5 at ties, so that a model without any
    information, which ties, does not count as correct."""
    return (np.sign(margins) + 1) / 2


@dataclass(frozen=True, eq=False, repr=False)
class SmallestCircuit(Result):
    """The kept heads and MLPs, the search, and the checks."""

    kept: tuple[Component, ...]
    """The most needed first. Empty if the embedding decides the pairs with every component ablated."""
    target: float
    """Accuracy to keep, on the pairs that the circuit was chosen on."""
    steps: tuple[Step, ...]
    chosen_on: Half
    """Without random sets."""
    held_out: Half
    parts: tuple[Component, ...]
    """All components that could be kept."""
    paradigms: tuple[str, ...]
    pairs: str
    """Name of the set of pairs."""
    keep: float
    chance: float
    how: str
    order: str
    protocol: str
    run: str | None = None
    step: int | None = None
    seed: int = 0
    reference: Reference | None = None
    """The text behind a mean or resampling ablation."""

    axes = ("part",)

    @property
    def names(self) -> tuple[str, ...]:
        """Labels of the kept components."""
        return tuple(part.label for part in self.kept)

    @property
    def beyond_target(self) -> Estimate:
        """Held-out accuracy minus the accuracy to keep of the whole model there, with a 95 % interval."""
        circuit, whole = (decisions(self.held_out.sets[name]) for name in ("circuit", "whole"))
        return bootstrap_mean(circuit - self.keep * whole - (1 - self.keep) * self.chance, seed=self.seed)

    @property
    def holds(self) -> bool:
        """True unless the interval of `beyond_target` lies below 0."""
        return not self.beyond_target.high < 0

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per kept component: part, layer, kind, and for the circuit without it the accuracy
        on the pairs it was chosen on (`chosen_without`) and on held-out ones (`without`); there its change
        with low and high, decisions lost and gained, p (McNemar), and the change of the mean margin
        (nats)."""
        import pandas as pd

        half, rows = self.held_out, []
        circuit, chosen = decisions(half.sets["circuit"]), decisions(self.chosen_on.without).mean(-1)
        for index, part in enumerate(self.kept):
            changes = decisions(half.without[index]) - circuit
            change = bootstrap_mean(changes, seed=self.seed)
            rows.append(
                {
                    "part": part.label,
                    "layer": part.layer,
                    "kind": part.kind,
                    "chosen_without": chosen[index],
                    "without": decisions(half.without[index]).mean(),
                    "change": change.mean,
                    "low": change.low,
                    "high": change.high,
                    **mcnemar(changes)._asdict(),
                    "margin_change": (half.without[index] - half.sets["circuit"]).mean(),
                }
            )
        columns = ["part", "layer", "kind", "chosen_without", "without", "change", "low", "high"]
        columns += ["lost", "gained", "p", "margin_change"]
        frame = pd.DataFrame(rows, columns=pd.Index(columns))
        return frame.assign(paradigm=self._about, run=self.run, step=self.step)

    def checks(self) -> "pd.DataFrame":
        """Return one row per set (whole, circuit, complement, nothing, random: the mean of the draws) on the
        held-out pairs: parts, accuracy, its change from the whole model with low and high, mean margin."""
        import pandas as pd

        half, size, total = self.held_out, len(self.kept), len(self.parts)
        sizes = {"whole": total, "circuit": size, "complement": total - size, "nothing": 0}
        sets = {**half.sets, **({"random": half.random} if len(half.random) else {})}
        whole = decisions(half.sets["whole"])
        rows = []
        for name, margins in sets.items():
            correct = decisions(np.atleast_2d(margins)).mean(0)
            change = bootstrap_mean(correct - whole, seed=self.seed)
            rows.append(
                {
                    "set": name,
                    "parts": sizes.get(name, size),
                    "accuracy": correct.mean(),
                    "change": change.mean,
                    "low": change.low,
                    "high": change.high,
                    "margin": margins.mean(),
                }
            )
        return pd.DataFrame(rows).assign(paradigm=self._about, run=self.run, step=self.step)

    def curve(self) -> "pd.DataFrame":
        """Return one row per set of the search: direction, parts, accuracy and mean margin on the pairs it
        was chosen on and on held-out ones (`held_...`), kept (labels)."""
        import pandas as pd

        rows = [
            {
                "direction": step.direction,
                "parts": len(step.kept),
                "accuracy": step.accuracy[0],
                "held_accuracy": step.accuracy[1],
                "margin": step.margin[0],
                "held_margin": step.margin[1],
                "kept": ", ".join(part.label for part in step.kept),
            }
            for step in self.steps
        ]
        return pd.DataFrame(rows).assign(run=self.run, step=self.step)

    def to_text(self) -> str:
        """Summarize the result in a few lines for the terminal."""
        half, percent = self.held_out, lambda value: f"{100 * value:.1f} %"
        low, high = wilson(half.accuracy("circuit"), half.count)
        change, size = half.change("circuit"), len(self.kept)
        lines = [
            f"{self._about}: {size} of {len(self.parts)} heads and MLPs keep {self.keep:.0%} of the accuracy "
            f"above {self.chance:.0%} ({self.how} ablation of the others)",
            f"circuit: {', '.join(self.names) or 'nothing'}",
            f"held-out pairs ({half.count}): circuit {percent(half.accuracy('circuit'))} "
            f"[{percent(low)}, {percent(high)}], whole model {percent(half.accuracy('whole'))}, "
            f"difference {100 * change.mean:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]",
            f"model without the circuit: {percent(half.accuracy('complement'))}; "
            f"with every part ablated: {percent(half.accuracy('nothing'))}",
        ]
        if len(half.random):
            random = half.random_accuracy
            better = int((random >= half.accuracy("circuit")).sum())
            lines.append(
                f"{len(random)} random sets of {size}: mean {percent(random.mean())}, "
                f"best {percent(random.max())}; {better} as good as the circuit"
            )
        if not self.holds:
            lines.append(
                f"It does not keep {self.keep:.0%} on held-out pairs: it overfits those it was chosen on."
            )
        frame = self.to_frame()
        if len(unsure := frame[frame.low.isna() | (frame.high >= 0)]):
            lines.append(f"not shown to be needed on held-out pairs: {', '.join(unsure.part)}")
        if not self.kept:
            lines.append("No head and no MLP is needed: the embedding decides these pairs.")
        return "\n".join(lines)

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return the text of `to_text`; `rows` has no effect."""
        return stack(self.to_text())

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the accuracy against the number of components, on both halves of the pairs, and return the
        figure.
        """
        from workbench.plots.components import plot_circuit

        names = ", ".join(self.names[:6]) + (", ..." if len(self.names) > 6 else "")
        return plot_circuit(
            self.curve(),
            self.checks(),
            self.held_out.random_accuracy if len(self.held_out.random) else np.zeros(0),
            target=self.target,
            title=f"{names or 'no component is needed'} ({self.how} ablation of the others)",
            ax=ax,
        )

    @property
    def _about(self) -> str:
        return _describe(self.paradigms)


def _describe(paradigms: Sequence[str]) -> str:
    return paradigms[0] if len(paradigms) == 1 else f"{len(paradigms)} paradigms"


Parts = tuple[Component, ...]


class Measured:
    """Margins of the model in which only some components are kept, each set measured once on the same pairs.

    Args:
        network: in evaluation mode.
        parts: all components that can be kept.
        given: replaces the other components.
        pairs: the scored pairs.
        on_measured: called after each measurement.
    """

    def __init__(
        self,
        network: "HookedTransformer",
        parts: Parts,
        given: Replacement,
        pairs: EncodedPairs,
        on_measured: Callable[[], None] = lambda: None,
    ) -> None:
        self.network, self.parts, self.given, self.pairs = network, parts, given, pairs
        self._on_measured = on_measured
        self._cache: dict[frozenset[Component], np.ndarray] = {}

    def margins(self, kept: Iterable[Component]) -> Float[np.ndarray, " pair"]:
        """Return the margins of the model in which only these components are kept, in nats."""
        key = frozenset(kept)
        if key not in self._cache:
            others = [part for part in self.parts if part not in key]
            with ablated(self.network, others, reference=self.given):
                self._cache[key] = self.pairs.margins(self.network)
            self._on_measured()
        return self._cache[key]

    def accuracy(self, kept: Iterable[Component]) -> float:
        """Return the fraction of pairs decided correctly; a tie counts half."""
        return float(decisions(self.margins(kept)).mean())

    def preference(self, kept: Iterable[Component]) -> float:
        """Return the mean over pairs of `sigmoid(margin)`, the probability of the good sentence."""
        return float(expit(self.margins(kept)).mean())

    def slopes(self, kept: Parts) -> dict[Component, float]:
        """Return the derivative of the preference with respect to each component's gate between its
        replacement (0) and its own value (1), with gates at 1 for kept components and 0 for the others."""
        network = self.network
        points: dict[str, list[Component]] = {}
        for part in self.parts:
            points.setdefault(part.hook_name, []).append(part)
        like: Any = dict(dtype=network.dtype, device=network.device)
        gates = {
            name: torch.tensor([[1.0 if part in kept else 0.0] for part in parts], **like).requires_grad_()
            for name, parts in points.items()
        }

        def gate(x: Tensor, hook: Any) -> Tensor:
            parts, by = points[hook.name], gates[hook.name]
            new = torch.zeros((), **like)
            if self.given.how != "zero":
                new = torch.stack([self.given.values[part] for part in parts]).to(x)
            return new + by * (x - new)

        odds = expit(self.margins(kept))
        weights = odds * (1 - odds) / len(odds)
        with network.hooks(fwd_hooks=[(name, gate) for name in points]):
            gradients = self.pairs.margin_gradients(network, weights, list(gates.values()))
        self._on_measured()
        return {
            part: float(slope)
            for parts, slopes in zip(points.values(), gradients, strict=True)
            for part, slope in zip(parts, slopes.flatten().tolist(), strict=True)
        }


def drawn_sets(parts: Parts, kept: Parts, draws: int, seed: int) -> list[Parts]:
    """Draw different sets of the size of `kept`, other than `kept`; all such sets if there are no more.

    Args:
        parts: to draw from.
        kept: the set that gives the size and is not drawn.
        draws: number of sets.
        seed: of the draws.
    """
    size, count = len(kept), math.comb(len(parts), len(kept)) - 1
    if count <= draws:
        return [drawn for drawn in combinations(parts, size) if set(drawn) != set(kept)]
    random = np.random.default_rng(seed)
    sets: dict[Parts, None] = {}
    while len(sets) < draws:
        indices = np.sort(random.choice(len(parts), size, replace=False))
        drawn = tuple(parts[index] for index in indices)
        if set(drawn) != set(kept):
            sets[drawn] = None
    return list(sets)


ORDERS = ("gradient", "ablate")
SCREENED = 4
"""Components measured in a step: those with the most favourable gradients."""
RANDOM_SETS = 20


def smallest_circuit(
    model: ModelLike,
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
    progress: bool | OnProgress | None = None,
) -> SmallestCircuit:
    """Find the fewest heads and MLPs that decide minimal pairs nearly as well as the whole model.

    A set reaches the target if its accuracy is at least `chance + keep * (accuracy of the model - chance)`
    on the pairs that it is chosen on; a tie counts half under every protocol. Among sets of the same size,
    the search prefers the greatest mean of `sigmoid(margin)`, the probability of the good sentence.

    Args:
        model: a run, a `HookedTransformer` with its tokenizer, or a run's name; causal or masked.
        pairs: a `PairSet`, or what `open_pairs` takes: a hub name, a folder, None for the embedded pairs.
        paradigm: one paradigm, or several that are pooled; None for all.
        keep: fraction of the accuracy above chance.
        chance: accuracy of guessing; 0 keeps a fraction of the accuracy itself.
        how: ablation of the other components: `mean`, `zero` or `resample`; see `ablated`.
        reference: text from which means and donors are taken; see `workbench.interp.ablation.replacements`.
        order: `ablate` measures every component in every step; `gradient` only those with the most favourable
            gradients of gates. By default `gradient`, and `ablate` with `resample`.
        limit: maximum number of pairs per paradigm; None for all.
        held_out: fraction of each paradigm's pairs that the circuit is checked on.
        protocol: how sentences are scored.
        pll: for masked models.
        random_sets: number of sets of the same size to compare with.
        seed: of the split, random sets, donors and intervals.
        progress: True shows a bar, None after two seconds; or a callback.

    Raises:
        InputError: settings outside their range, too few pairs, a model that is not above chance on them or
            that has no heads and MLPs.
        DataError: a paradigm that the pairs lack, or pairs that cannot be read.
    """
    order = order or ("ablate" if how == "resample" else "gradient")
    _refuse_settings(keep, chance, held_out, random_sets, order, how)
    run, network, tokenizer = open_model(model)
    parts = list_components(network.config)
    whole = open_pairs(pairs) if pairs is None or isinstance(pairs, str) else pairs
    chosen = whole.select([paradigm] if isinstance(paradigm, str) else paradigm, limit)
    halves = _halves(chosen, held_out, seed)
    with (
        ready(network) as network,
        on_threads(network),
        progress_bar(progress, "Searching a circuit") as on_progress,
    ):
        given = replacement(model, parts, how, reference, seed)
        screen = SCREENED if order == "gradient" else len(parts)
        count = _Counter(on_progress, len(parts), screen, random_sets)
        select, held = (
            Measured(network, parts, given, EncodedPairs(network, half, protocol, pll, tokenizer), count)
            for half in halves
        )
        target = _target(select, keep, chance, tuple(chosen.paradigms))
        steps, kept = _search(select, target, screen)
        kept = _cleaned(select, kept, target)
        result = SmallestCircuit(
            kept=kept,
            target=target,
            steps=tuple(_step(direction, parts, select, held) for direction, parts in steps),
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
            reference=given.reference,
        )
        on_progress(1.0, "done")
    return result


def _search(on: Measured, target: float, screen: int) -> tuple[list[tuple[str, Parts]], Parts]:
    """Return every set of the search, and the smallest that reaches the target."""
    path = [on.parts]
    while path[-1]:
        path.append(_best(on, path[-1], screen, removed=True))
    kept = min((parts for parts in path if _reaches(on, parts, target)), key=len)
    steps = [("backward", parts) for parts in path]
    grown: Parts = ()
    while kept and len(grown) < len(kept) and not _reaches(on, grown, target):
        grown = _best(on, grown, screen, removed=False)
        steps.append(("forward", grown))
    if _reaches(on, grown, target) and _rank(on, grown) > _rank(on, kept):
        kept = grown
    return steps, kept


def _rank(on: Measured, kept: Parts) -> tuple[int, float]:
    """Return a sort key: few components first, then a high preference."""
    return -len(kept), on.preference(kept)


def _best(on: Measured, kept: Parts, screen: int, *, removed: bool) -> Parts:
    """Return the set with the highest preference after removing or adding one component."""
    candidates = [part for part in on.parts if (part in kept) == removed]
    if len(candidates) > screen:
        slopes = on.slopes(kept)
        candidates = sorted(candidates, key=lambda part: slopes[part] if removed else -slopes[part])[:screen]
    sets = [_without(kept, part) if removed else (*kept, part) for part in candidates]
    return max(sets, key=on.preference)


def _cleaned(on: Measured, kept: Parts, target: float) -> Parts:
    """Remove components while the target is reached; return the others, the most needed first."""
    while smaller := [rest for part in kept if _reaches(on, rest := _without(kept, part), target)]:
        kept = max(smaller, key=on.preference)
    return tuple(sorted(kept, key=lambda part: on.preference(_without(kept, part))))


def _without(kept: Parts, removed: Component) -> Parts:
    return tuple(part for part in kept if part != removed)


def _reaches(on: Measured, kept: Parts, target: float) -> bool:
    return on.accuracy(kept) >= target - 1e-12  # the target is a rounded number


def _step(direction: str, kept: Parts, chosen_on: Measured, held_out: Measured) -> Step:
    accuracy = chosen_on.accuracy(kept), held_out.accuracy(kept)
    margins = float(chosen_on.margins(kept).mean()), float(held_out.margins(kept).mean())
    return Step(direction, kept, accuracy, margins)


def _half(on: Measured, kept: Parts, draws: int, seed: int) -> Half:
    others = tuple(part for part in on.parts if part not in kept)
    sets: dict[str, Parts] = {"whole": on.parts, "circuit": kept, "complement": others, "nothing": ()}
    without = [on.margins(_without(kept, part)) for part in kept]
    random = [on.margins(drawn) for drawn in drawn_sets(on.parts, kept, draws, seed)]
    return Half(
        sets={name: on.margins(parts) for name, parts in sets.items()},
        without=np.array(without).reshape(-1, len(on.pairs)),
        random=np.array(random).reshape(-1, len(on.pairs)),
    )


def _target(on: Measured, keep: float, chance: float, paradigms: Sequence[str]) -> float:
    """Return the accuracy to keep; raise if the model is not above chance."""
    before, count = on.accuracy(on.parts), len(on.pairs)
    floor = max(chance, CHANCE)
    low, high = wilson(before, count)
    if low <= floor:
        raise InputError(
            f"There is no accuracy above chance to keep: the model decides {before:.1%} of {count} pairs of "
            f"{_describe(paradigms)} correctly, not clearly above {floor:.0%} (interval {low:.1%} to "
            f"{high:.1%}); choose another paradigm."
        )
    return chance + keep * (before - chance)


def _halves(chosen: PairSet, held_out: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split every paradigm into pairs to choose on and pairs to check on."""
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
            raise InputError(f"{name} is {value}; give a fraction above 0 and up to 1.")
    if not 0 <= chance < 1:
        raise InputError(f"chance is {chance}; give an accuracy from 0 to below 1.")
    if draws < 0:
        raise InputError(f"random_sets is {draws}; give a number of sets, 0 for none.")
    if order not in ORDERS:
        raise InputError(f"Unknown order {order!r}. {nearest(order, ORDERS)}")
    if order == "gradient" and how == "resample":
        raise InputError("order='gradient' needs how='mean' or 'zero'; with 'resample' use order='ablate'.")


class _Counter:
    """Report the number of measurements done, of the number expected."""

    def __init__(self, on_progress: OnProgress, parts: int, screen: int, draws: int) -> None:
        self._on_progress, self._done = on_progress, 0
        backward = sum(min(left, screen) + (left > screen) for left in range(1, parts + 1))
        forward = 3 * min(parts, screen + 1)
        self._expected = backward + forward + parts + draws + 10

    def __call__(self) -> None:
        self._done += 1
        self._on_progress(min(self._done / self._expected, 0.99), f"{self._done:,} sets measured")

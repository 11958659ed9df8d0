"""`SmallestCircuit`: the fewest heads and MLPs that decide minimal pairs, and how that was checked."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from workbench.errors import InputError, nearest
from workbench.evals.intervals import wilson
from workbench.interp.paired import Change, flips, mean_change
from workbench.interp.parts import Part

if TYPE_CHECKING:
    import pandas as pd


class Step(NamedTuple):
    """A set on the way; first value on the pairs it was chosen on, second on the held-out ones."""

    direction: str
    """`backward` from the whole model, `forward` from nothing."""
    kept: tuple[Part, ...]
    accuracy: tuple[float, float]
    margin: tuple[float, float]
    """Mean score of the good sentence minus that of the bad one, nats."""


@dataclasses.dataclass(frozen=True)
class Half:
    """Margins of one half of the pairs under each set, nats."""

    sets: Mapping[str, Float[np.ndarray, " pair"]]
    """`whole` model, `circuit`, `complement` (the model without the circuit), `nothing` (all ablated)."""
    without: Float[np.ndarray, "kept pair"]
    """The circuit without each of its parts."""
    random: Float[np.ndarray, "draw pair"]
    """Random sets of the circuit's size."""

    @property
    def count(self) -> int:
        """Number of pairs."""
        return len(self.sets["whole"])

    def accuracy(self, name: str) -> float:
        """Share of pairs that a set decides right.

        Raises:
            InputError: no such set.
        """
        return float(decisions(self._margins(name)).mean())

    def change(self, name: str, beside: str = "whole") -> Change:
        """Accuracy of a set minus that of another, with a 95 % interval over drawing other pairs.

        Raises:
            InputError: no such set.
        """
        return mean_change(decisions(self._margins(name)) - decisions(self._margins(beside)))

    @property
    def random_accuracy(self) -> Float[np.ndarray, " draw"]:
        """Accuracy of each random set."""
        return decisions(self.random).mean(-1)

    def _margins(self, name: str) -> Float[np.ndarray, " pair"]:
        if name not in self.sets:
            raise InputError(f"no set is called {name!r}. {nearest(name, self.sets)}")
        return self.sets[name]


def decisions(margins: Float[np.ndarray, "*set pair"]) -> Float[np.ndarray, "*set pair"]:
    """1 where the good sentence scores higher, 0 where lower, a half where equal: a set that knows nothing
    ties, and must not be right."""
    return (np.sign(margins) + 1) / 2


@dataclasses.dataclass(frozen=True)
class SmallestCircuit:
    """Heads and MLPs that were kept, the way there, and the checks."""

    kept: tuple[Part, ...]
    """The most needed first. Empty if the embedding decides the pairs with every part ablated."""
    target: float
    """Accuracy that was to be kept, on the pairs that the circuit was chosen on."""
    steps: tuple[Step, ...]
    chosen_on: Half
    """Without random sets."""
    held_out: Half
    parts: tuple[Part, ...]
    """All that could be kept."""
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

    axes = ("part",)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the kept parts."""
        return tuple(part.label for part in self.kept)

    @property
    def beyond_target(self) -> Change:
        """Held-out accuracy minus what was to be kept of the whole model's there, with a 95 % interval."""
        circuit, whole = (decisions(self.held_out.sets[name]) for name in ("circuit", "whole"))
        return mean_change(circuit - self.keep * whole - (1 - self.keep) * self.chance, seed=self.seed)

    @property
    def holds(self) -> bool:
        """Whether held-out pairs agree that the circuit keeps so much: the interval is not all below 0."""
        return not self.beyond_target.high < 0

    def to_frame(self) -> "pd.DataFrame":
        """One row for each kept part: part, layer, kind, and the circuit without it: accuracy on the pairs it
        was chosen on (`chosen_without`) and on held-out ones (`without`); there its change with low and high,
        decisions lost and gained, p (McNemar), and the change of the mean margin (nats)."""
        import pandas as pd

        half, rows = self.held_out, []
        circuit, chosen = decisions(half.sets["circuit"]), decisions(self.chosen_on.without).mean(-1)
        for index, part in enumerate(self.kept):
            turned = decisions(half.without[index]) - circuit
            change = mean_change(turned, seed=self.seed)
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
                    **flips(turned)._asdict(),
                    "margin_change": (half.without[index] - half.sets["circuit"]).mean(),
                }
            )
        columns = ["part", "layer", "kind", "chosen_without", "without", "change", "low", "high"]
        columns += ["lost", "gained", "p", "margin_change"]
        frame = pd.DataFrame(rows, columns=pd.Index(columns))
        return frame.assign(paradigm=self._about, run=self.run, step=self.step)

    def checks(self) -> "pd.DataFrame":
        """One row for each set (whole, circuit, complement, nothing, random: the mean of the draws) on the
        held-out pairs: parts, accuracy, its change from the whole model with low and high, mean margin."""
        import pandas as pd

        half, size = self.held_out, len(self.kept)
        sizes = {
            "whole": len(self.parts),
            "circuit": size,
            "complement": len(self.parts) - size,
            "nothing": 0,
        }
        rows = []
        whole = decisions(half.sets["whole"])
        for name, margins in [*half.sets.items(), *([("random", half.random)] if len(half.random) else [])]:
            right = decisions(np.atleast_2d(margins)).mean(0)
            change = mean_change(right - whole, seed=self.seed)
            row = {
                "set": name,
                "parts": sizes.get(name, size),
                "accuracy": right.mean(),
                "change": change.mean,
            }
            rows.append(row | {"low": change.low, "high": change.high, "margin": margins.mean()})
        return pd.DataFrame(rows).assign(paradigm=self._about, run=self.run, step=self.step)

    def curve(self) -> "pd.DataFrame":
        """One row for each set on the way: direction, parts, accuracy and mean margin on the pairs it was
        chosen on and on held-out ones (`held_...`), kept (the names)."""
        import pandas as pd

        rows = [
            {
                "direction": one.direction,
                "parts": len(one.kept),
                "accuracy": one.accuracy[0],
                "held_accuracy": one.accuracy[1],
                "margin": one.margin[0],
                "held_margin": one.margin[1],
                "kept": ", ".join(part.label for part in one.kept),
            }
            for one in self.steps
        ]
        return pd.DataFrame(rows).assign(run=self.run, step=self.step)

    def to_text(self) -> str:
        """A few lines for the terminal."""
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
            found = half.random_accuracy
            better = int((found >= half.accuracy("circuit")).sum())
            lines.append(
                f"{len(found)} random sets of {size}: mean {percent(found.mean())}, "
                f"best {percent(found.max())}; {better} as good as the circuit"
            )
        if not self.holds:
            lines.append(
                f"It does not keep {self.keep:.0%} on held-out pairs: it fits those it was chosen on."
            )
        frame = self.to_frame()
        if len(unsure := frame[frame.low.isna() | (frame.high >= 0)]):
            lines.append(f"not shown to be needed on held-out pairs: {', '.join(unsure.part)}")
        if not self.kept:
            lines.append("No head and no MLP is needed: these pairs do not show what any of them does.")
        return "\n".join(lines)

    def plot(self, ax: Any = None) -> Any:
        """Accuracy against the number of parts, on both halves; needs matplotlib. Returns the axes."""
        from workbench.plots.smallest_circuit import plot_smallest_circuit

        return plot_smallest_circuit(self, ax)

    @property
    def _about(self) -> str:
        return self.paradigms[0] if len(self.paradigms) == 1 else f"{len(self.paradigms)} paradigms"

"""What ablations did to loss and to minimal pairs."""

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from workbench.errors import InputError, nearest
from workbench.interp.paired import Change, flips, mean_change, ratio_change
from workbench.interp.parts import Part

if TYPE_CHECKING:
    import pandas as pd


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
    parts: tuple[tuple[Part, ...], ...]
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
        """Change of the accuracy, mean over paradigms."""
        table = self._need("pairs")
        return table.mean(table.change)

    @cached_property
    def loss_intervals(self) -> tuple[Change, ...]:
        """Change of the loss of each cell, with 95 % intervals over drawing other rows of text."""
        table = self._need("loss")
        return tuple(ratio_change(row - table.base, table.tokens, self.seed) for row in table.without)

    @cached_property
    def accuracy_intervals(self) -> tuple[Change, ...]:
        """Change of the accuracy of each cell, with 95 % intervals over drawing other pairs."""
        table = self._need("pairs")
        return tuple(mean_change(row, table.paradigm, self.seed) for row in table.change)

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
            turned = pd.DataFrame([flips(row)._asdict() for row in self.pairs.change])
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
                change = mean_change(turned, seed=self.seed)
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
                        **flips(turned)._asdict(),
                        "margin_change": (table.margin[cell, mine] - margin[mine]).mean(),
                    }
                )
        return pd.DataFrame(rows)

    def plot(self, ax: Any = None) -> Any:
        """Change of the loss (of the accuracy, if only pairs were scored) with intervals; needs matplotlib.

        Returns:
            The matplotlib axes.
        """
        from workbench.plots.ablation import plot_effects

        return plot_effects(self, ax)

    def _need(self, what: str) -> Any:
        table = getattr(self, what)
        if table is None:
            other = "the loss" if what == "loss" else "minimal pairs"
            raise InputError(f"{other} was not measured here; ask for measure=({what!r},).")
        return table

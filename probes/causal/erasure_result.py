"""What erasing a concept did, hook by hook, beside its controls."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

NOTHING, CONCEPT, CONTROL_CONCEPT = "nothing", "concept", "control concept"
RANDOM, FAR, ALL = "random subspace", "random, as far", "everything"
CONDITIONS = (NOTHING, CONCEPT, CONTROL_CONCEPT, RANDOM, FAR, ALL)
"""What was erased: `random subspace` has the concept's rank, `random, as far` as many dimensions as it
takes to move the activations as far as the concept's erasure does. `everything` is the intervention's
positive control: all activations become their mean."""


@dataclasses.dataclass(frozen=True)
class ErasureResult:
    """Probe, loss and minimal pairs after each erasure.

    Attributes:
        cells: a row for each hook, condition and draw: `rank`, `moved` (mean squared change over the
            variance), `probe` (its test score) and `beta` (largest coefficient), `loss` and `pairs` (change
            of nats a token and of the share of pairs decided rightly, with `_low` and `_high`), and for the
            concept and its control `loss_beyond` and `pairs_beyond` (beyond the mean of the random
            subspaces, paired).
        paradigms: hook, condition, paradigm, mean, low, high: change of the share decided rightly.
        run: run and checkpoint.
        task: its name.
        measure: what the probe's score is.
        chance: the score of the commonest class.
        rows: labels read.
    """

    cells: "pd.DataFrame"
    paradigms: "pd.DataFrame"
    run: str
    task: str
    measure: str
    chance: float
    rows: int

    @classmethod
    def of(
        cls,
        cells: Sequence[dict[str, Any]],
        paradigms: Sequence[dict[str, Any]],
        *,
        rows_read: int,
        **about: Any,
    ) -> "ErasureResult":
        """From plain rows."""
        import pandas as pd

        return cls(pd.DataFrame(list(cells)), pd.DataFrame(list(paradigms)), rows=rows_read, **about)

    @property
    def hooks(self) -> tuple[str, ...]:
        """In the order of the layers."""
        return tuple(dict.fromkeys(self.cells.hook))

    def to_frame(self) -> "pd.DataFrame":
        """A row for each hook and condition, the random subspaces averaged."""
        cells: Any = self.cells
        numbers = cells.select_dtypes("number").columns.difference(["layer"])
        order = {name: index for index, name in enumerate(CONDITIONS)}
        mean: Any = cells.groupby(["hook", "layer", "condition"], as_index=False, sort=False)[
            list(numbers)
        ].mean()
        mean = mean.assign(order=mean.condition.map(order)).sort_values(["layer", "hook", "order"])
        columns = [name for name in cells.columns if name in mean.columns]
        return mean[columns].reset_index(drop=True)

    def __str__(self) -> str:
        lines = [
            f"{self.task} erased from {self.run} ({self.rows:,} labels; chance {self.chance:.3f})",
            f"{'hook':<26} {'erased':<16} {'rank':>4} {'moved':>6} {self.measure:>9} {'max |β|':>8} "
            f"{'loss, nats':>28} {'pairs':>24}",
        ]
        frame: Any = self.to_frame()
        for row in frame.itertuples():
            loss = (
                ""
                if row.condition == NOTHING
                else f"{row.loss:+.4f} [{row.loss_low:+.4f}, {row.loss_high:+.4f}]"
            )
            pairs = ""
            if row.condition != NOTHING and row.pairs == row.pairs:
                pairs = f"{row.pairs:+.3f} [{row.pairs_low:+.3f}, {row.pairs_high:+.3f}]"
            lines.append(
                f"{row.hook:<26} {row.condition:<16} {row.rank:>4.0f} {row.moved:>6.3f} {row.probe:>9.3f} "
                f"{row.beta:>8.1e} {loss:>28} {pairs:>24}"
            )
        for row in frame[frame.condition == CONCEPT].itertuples():
            used = "used" if row.loss_beyond_low > 0 else "not shown to be used"
            lines.append(
                f"{row.hook}: {used}. Beyond random subspaces of equal rank {row.loss_beyond:+.4f} nats "
                f"[{row.loss_beyond_low:+.4f}, {row.loss_beyond_high:+.4f}], beyond those that move "
                f"activations as far {row.loss_beyond_far:+.4f} "
                f"[{row.loss_beyond_far_low:+.4f}, {row.loss_beyond_far_high:+.4f}]."
            )
        return "\n".join(lines)

    def plot(self) -> Any:
        """Probe, loss and pairs after each erasure, layer by layer; a matplotlib figure.

        Raises:
            InputError: matplotlib is not installed.
        """
        from probes.causal.pictures import plot_erasure

        return plot_erasure(self)

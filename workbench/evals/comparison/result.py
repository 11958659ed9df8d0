"""`Comparison`: the runs of a folder with their figures, one row an experiment, seeds as intervals."""

import dataclasses
import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.evals.comparison.seeds import student, student_share

if TYPE_CHECKING:
    import pandas as pd

FIGURES = {
    "loss": "validation loss, nats a token",
    "bits_per_byte": "bits a byte",
    "accuracy": "share of next tokens that are its first choice",
    "blimp": "minimal pairs decided rightly, mean over paradigms",
    "parameters": "trainable parameters",
    "tokens": "tokens read in training",
    "flops": "floating-point operations of the training",
    "minutes": "minutes of training",
    "bytes": "bytes of the weights in float32",
    "bytes_int8": "bytes with int8 matrices",
    "ms": "milliseconds a token at batch 1 on one thread, float32",
    "ms_int8": "the same with int8 matrices",
}
"""Column to what it says."""

VARYING = ("loss", "bits_per_byte", "accuracy", "blimp", "minutes", "tokens")
"""Figures that a seed may move; they get intervals."""

SHARES = ("accuracy", "blimp")

_LEADING = {
    field: rank
    for rank, field in enumerate(
        ("model.d_model", "model.n_layers", "model.n_heads", "model.mlp_depth", "model.d_head", "model.d_mlp",
         "model.dropout", "train.batch_size", "train.lr")
    )
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came out of the runs of a folder."""

    root: str
    runs: "pd.DataFrame"
    """One line a run: run, row (its experiment), seed, status, step and the columns of `FIGURES`."""
    pairs: "pd.DataFrame"
    """BLiMP of each run by phenomenon: run, row, phenomenon, accuracy, n."""
    curves: "pd.DataFrame"
    """Validation loss on the way: run, row, tokens, loss."""
    differs: dict[str, dict[str, Any]]
    """Row to the settings in which rows differ, dotted."""
    pairs_name: str | None = None
    """Which minimal pairs, in words; None if no run was scored."""
    how: dict[str, str] = dataclasses.field(default_factory=dict)
    """Row to what its milliseconds are, in words."""
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    """Run to the reason why it is not here."""
    notes: tuple[str, ...] = ()
    """What to keep in mind."""

    def __repr__(self) -> str:
        return f"Comparison({self.root}: {len(self.runs)} runs, {len(self.rows)} rows)"

    @cached_property
    def rows(self) -> "pd.DataFrame":
        """One line an experiment: n (seeds) and each of `FIGURES` as a mean; those of `VARYING` also with
        `_low` and `_high`, Student's 95 % interval over seeds, NaN where there is one seed."""
        import pandas as pd

        made = []
        for row, part in self.runs.groupby("row", sort=False):
            line: dict[str, Any] = {"row": row, "n": len(part)}
            for name in FIGURES:
                values = part[name].dropna().tolist()
                if name in VARYING:
                    interval = student_share if name in SHARES else student
                    mean, low, high = interval(values) if values else (math.nan,) * 3
                    line |= {name: mean, f"{name}_low": low, f"{name}_high": high}
                else:
                    line[name] = sum(values) / len(values) if values else math.nan
            made.append(line)
        return pd.DataFrame(made).set_index("row")

    @cached_property
    def phenomena(self) -> "pd.DataFrame":
        """BLiMP by experiment and phenomenon: row, phenomenon, n (seeds), accuracy, low, high."""
        import pandas as pd

        made = [
            {"row": row, "phenomenon": phenomenon, "n": len(part)}
            | dict(zip(("accuracy", "low", "high"), student_share(part.accuracy.tolist()), strict=True))
            for row, mine in self.pairs.groupby("row", sort=False)
            for phenomenon, part in mine.groupby("phenomenon", sort=False)
        ]
        return pd.DataFrame(made, columns=["row", "phenomenon", "n", "accuracy", "low", "high"])

    @property
    def axis(self) -> str:
        """What rows are ordered by: the setting that has another number in each row, else `parameters`.

        Of several such settings, because one follows from the other, the one that is set more often.
        """
        each = list(self.differs.values())

        def distinct(field: str) -> bool:
            values = [settings[field] for settings in each]
            numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
            return numbers and len(set(values)) == len(values)

        found = [field for field in (each[0] if len(each) > 1 else ()) if distinct(field)]
        return min(found, key=lambda field: (_LEADING.get(field, 99), field), default="parameters")

    def place(self, row: str) -> float:
        """Where a row lies on `axis`."""
        if self.axis == "parameters":
            return float(self.rows.loc[row, "parameters"])  # type: ignore[arg-type]
        return float(self.differs[row][self.axis])

    def to_frame(self) -> "pd.DataFrame":
        """`rows` with the settings in which they differ."""
        import pandas as pd

        settings = pd.DataFrame.from_dict(self.differs, orient="index")
        return self.rows.join(settings).reset_index()

    def plot(self, ax: Any = None) -> Any:
        """Loss, minimal pairs and milliseconds of every row; needs matplotlib. Returns the axes."""
        from workbench.plots.comparison import plot_figures

        return plot_figures(self, ax)

    def plot_phenomena(self, ax: Any = None) -> Any:
        """BLiMP by phenomenon; needs matplotlib. Returns the axes."""
        from workbench.plots.comparison import plot_phenomena

        return plot_phenomena(self, ax)

    def plot_curves(self, ax: Any = None) -> Any:
        """Validation loss over tokens read; needs matplotlib. Returns the axes."""
        from workbench.plots.comparison import plot_curves

        return plot_curves(self, ax)

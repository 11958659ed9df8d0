"""The points of a scaling study: size, tokens, compute and loss, each model or evaluation a row."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from workbench.errors import InputError, shown

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Count = Literal["all", "non-embedding"]
Measure = Literal["loss", "bits_per_byte"]
COLUMNS = ("run", "group", "parameters", "non_embedding", "tokens", "flops", "loss", "bits_per_byte")
UNITS = {"loss": "nats a token", "bits_per_byte": "bits a byte"}
LEAK = 0.1
"""A masked model's loss in nats under which the answer is probably in the input."""


@dataclasses.dataclass(frozen=True)
class ScalingPoints:
    """Points to fit. Make them with `points_of_runs` or `points_of_table`.

    `count` says which parameters N is. The default is all of them, as Hoffmann et al. 2022 count: 6ND then
    contains the read-out, which in a small model is much of the work. Kaplan et al. 2020 leave the embedding
    out, which at small sizes bends the law and moves the exponents (Pearce & Song 2024, arXiv:2406.12907).
    """

    frame: "pd.DataFrame"
    """One row a point: run, group, parameters, non_embedding, tokens, flops (exact count of the whole
    training; NaN if unknown), loss (nats a token), bits_per_byte (NaN if unknown)."""
    source: str
    """The folder or table they came from."""
    count: Count = "all"
    measure: Measure = "loss"
    curves: bool = False
    """Whether a run gives many points, which then are not independent: bootstraps draw whole runs."""
    notes: tuple[str, ...] = ()
    """What was left out, and what to beware of."""

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def n(self) -> Array:
        """Parameters, as `count` says: [points]."""
        column = "parameters" if self.count == "all" else "non_embedding"
        return self.frame[column].to_numpy(float)

    @property
    def d(self) -> Array:
        """Tokens seen: [points]."""
        return self.frame["tokens"].to_numpy(float)

    @property
    def y(self) -> Array:
        """The loss, in the units of `measure`: [points]."""
        return self.frame[self.measure].to_numpy(float)

    @property
    def c(self) -> Array:
        """Training FLOPs by 6ND: [points]."""
        return 6 * self.n * self.d

    @property
    def exact(self) -> Array:
        """Training FLOPs by exact count, NaN where it is unknown: [points]."""
        return self.frame["flops"].to_numpy(float)

    @property
    def groups(self) -> NDArray[np.int64]:
        """Number of the independent unit that a point belongs to: its run in `curves`, else itself."""
        if not self.curves:
            return np.arange(len(self))
        return self.frame["group"].factorize()[0]

    @property
    def sizes(self) -> Array:
        """The different N, in order."""
        return np.unique(self.n)

    @property
    def unit(self) -> str:
        """What the loss is counted in."""
        return UNITS[self.measure]

    def to_frame(self) -> "pd.DataFrame":
        """The table, with N, 6ND and the ratio of the exact count to 6ND."""
        return self.frame.assign(n=self.n, six_nd=self.c, exact_share=self.exact / self.c)

    def choose(self, keep: Any) -> "ScalingPoints":
        """The points where `keep` [points] is true."""
        return dataclasses.replace(self, frame=self.frame[np.asarray(keep)].reset_index(drop=True))

    def checked(self, least: int, sizes: int, what: str) -> "ScalingPoints":
        """Themselves, if a method can work with them.

        Args:
            least: points that it needs.
            sizes: different N that it needs.
            what: its name, for the message.

        Raises:
            InputError: too few points or sizes.
        """
        if len(self) < least:
            raise InputError(
                f"{what} needs at least {least} points; {shown(self.source)} gives {len(self)}: "
                "train more models, or take the evaluations along training (--along)."
            )
        found = len(self.sizes)
        if found == 1 and sizes > 1:
            raise InputError(
                f"{what} needs models of at least {sizes} sizes; all {len(self)} points have "
                f"N = {self.sizes[0]:,.0f}."
            )
        if found < sizes:
            raise InputError(f"{what} needs models of at least {sizes} sizes; these have {found}.")
        return self


def make_points(
    frame: "pd.DataFrame",
    source: str,
    *,
    count: Count = "all",
    measure: Measure = "loss",
    curves: bool = False,
    notes: Sequence[str] = (),
) -> ScalingPoints:
    """Points of a table with COLUMNS, after the checks that every method relies on.

    Raises:
        InputError: no points, a size, token count or loss that is not a positive finite number, or a count of
            parameters or a measure that the table lacks.
    """
    if frame.empty:
        raise InputError(f"{shown(source)} gives no points.")
    made = ScalingPoints(
        frame.loc[:, list(COLUMNS)].reset_index(drop=True), source, count, measure, curves, tuple(notes)
    )
    if not np.isfinite(made.n).any() and count == "non-embedding":
        raise InputError(f"{shown(source)} does not say how many parameters are no embeddings; count all.")
    for values, name in (
        (made.n, "number of parameters"),
        (made.d, "number of tokens"),
        (made.y, f"loss ({made.unit})"),
    ):
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            first = int(np.argmax(wrong))
            who = shown(str(made.frame["run"][first]))
            many = f" and {wrong.sum() - 1} more" if wrong.sum() > 1 else ""
            raise InputError(
                f"the {name} of {who}{many} is {values[first]:g}; a fit needs positive finite numbers: "
                "leave such runs out."
            )
    return made

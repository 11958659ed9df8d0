"""`Summary`: what is known of a run at a first look, as three tables."""

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.interp.summary.opening import Opening

if TYPE_CHECKING:
    import pandas as pd

    from workbench.interp.components.matrix_result import ComponentMatrix
    from workbench.interp.heads.result import HeadScores


@dataclasses.dataclass(frozen=True)
class SetOpening:
    """The pair to open on, of one set of pairs."""

    pairs: str
    """The set's name."""
    source: str
    fingerprint: str
    protocol: str
    pll: str | None
    opening: Opening


@dataclasses.dataclass(frozen=True)
class Summary:
    """Head scores, component x paradigm matrix and the pairs to open on, of one checkpoint."""

    run: str
    step: int
    weights: str
    """SHA-256 of the checkpoint's weights on the disk."""
    wish: dict[str, Any]
    """What was asked for, see `workbench.interp.summary.make.Wish`, and the fingerprint of the pairs."""
    heads: "HeadScores | None"
    """None for a model without attention."""
    components: "ComponentMatrix"
    openings: tuple[SetOpening, ...]

    @cached_property
    def tables(self) -> "dict[str, pd.DataFrame]":
        """By name: `head_scores` (`HeadScores.to_frame`), `components` (`ComponentMatrix.to_frame` and the
        set of pairs), `opening` (one row for each set of pairs); one that cannot be made is left out."""
        import pandas as pd

        found: dict[str, pd.DataFrame] = {}
        if self.heads is not None:
            found["head_scores"] = self.heads.to_frame()
        about = {"pairs": self.components.name, "protocol": self.components.protocol}
        found["components"] = self.components.to_frame().drop(columns=["run", "step"]).assign(**about)
        if self.openings:
            rows = [{**dataclasses.asdict(one), **dataclasses.asdict(one.opening)} for one in self.openings]
            found["opening"] = pd.DataFrame(rows).drop(columns="opening")
        return found

    def to_frame(self) -> "pd.DataFrame":
        """The component x paradigm table, one row for each method, paradigm and component."""
        return self.tables["components"]

    def plot(self) -> Any:
        """The component x paradigm matrix; needs matplotlib."""
        return self.components.plot()

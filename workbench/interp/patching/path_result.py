"""What path patching found."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from workbench.interp.direct.component import Component

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class PathPatchResult:
    """The metric of every path and pair; NaN where no path leads from the sender to the receiver."""

    senders: tuple[Component, ...]
    receivers: tuple[str, ...]
    """`L1H2.q`, `L1 MLP`, `logits`; joined by + if they were given their inputs together."""
    direction: str
    metric: str
    through_mlps: bool
    per_pair: Float[np.ndarray, "receiver sender *pos pair"]
    """The metric with the path patched."""
    base: Float[np.ndarray, " pair"]
    """The metric of the run that was patched, without a patch."""
    other: Float[np.ndarray, " pair"]
    """The metric of the run that the senders' outputs came from."""
    tokens: tuple[str, ...] | None
    """Of the first pair's patched run; None if all positions were patched together."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of `effect`."""
        return ("receiver", "sender", *(() if self.tokens is None else ("pos",)))

    @property
    def effect(self) -> Float[np.ndarray, "receiver sender *pos"]:
        """Mean change of the metric over pairs."""
        return (self.per_pair - self.base).mean(-1)

    @property
    def value(self) -> Float[np.ndarray, "receiver sender *pos"]:
        """Mean metric over pairs."""
        return self.per_pair.mean(-1)

    @property
    def recovered(self) -> Float[np.ndarray, "receiver sender *pos"]:
        """The effect as a share of the difference between the two runs; NaN where they do not differ."""
        difference = self.other.mean() - self.base.mean()
        return self.effect / (difference if difference else np.nan)

    def to_frame(self) -> "pd.DataFrame":
        """One row a path: receiver, sender, pos if there are positions, value, effect, recovered, standard
        error over pairs."""
        import pandas as pd

        there = np.nonzero(~np.isnan(self.effect))
        change = (self.per_pair - self.base)[there]
        count = change.shape[-1]
        columns: dict[str, Any] = {
            "receiver": np.array(self.receivers, dtype=object)[there[0]],
            "sender": np.array([one.label for one in self.senders], dtype=object)[there[1]],
        }
        if self.tokens is not None:
            columns["pos"] = there[2]
        return pd.DataFrame(columns).assign(
            value=self.per_pair[there].mean(-1),
            effect=change.mean(-1),
            recovered=self.recovered[there],
            error=change.std(-1, ddof=1) / count**0.5 if count > 1 else np.nan,
        )

    def plot(self, ax: Any = None, recovered: bool = False) -> Any:
        """The effects as a map with symmetric limits; needs matplotlib.

        Args:
            ax: matplotlib axes; new ones if not set.
            recovered: as a share of the two runs' difference.

        Returns:
            The axes.
        """
        from workbench.plots.paths import plot_paths

        return plot_paths(self, ax, recovered)

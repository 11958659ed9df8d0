"""What a sweep of patches found."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class PatchResult:
    """The metric of every patch and pair; cells run over layers, positions and units, the last fastest."""

    site: str
    direction: str
    values: str
    metric: str
    layers: Int[np.ndarray, " cell"]
    positions: Int[np.ndarray, " cell"] | None
    """None if all positions were patched together."""
    units: Int[np.ndarray, " cell"] | None
    """Head or neuron of each cell."""
    unit: str | None
    per_pair: Float[np.ndarray, "cell pair"]
    """The metric with the patch."""
    base: Float[np.ndarray, " pair"]
    """The metric of the run that was patched, without a patch."""
    other: Float[np.ndarray, " pair"]
    """The metric of the run that the values came from."""
    tokens: tuple[str, ...]
    """Of the first pair's patched run."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of `effect`."""
        position = () if self.positions is None else ("pos",)
        return ("layer", *position, *(() if self.unit is None else (self.unit,)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of those axes."""
        columns = [self.layers, self.positions, self.units]
        return tuple(len(np.unique(column)) for column in columns if column is not None)

    @property
    def effect(self) -> Float[np.ndarray, "..."]:
        """Mean change of the metric over pairs, one axis for each name in `axes`."""
        return (self.per_pair - self.base).mean(1).reshape(self.shape)

    @property
    def value(self) -> Float[np.ndarray, "..."]:
        """Mean metric over pairs, with the same axes: what transformer-lens' sweeps give."""
        return self.per_pair.mean(1).reshape(self.shape)

    @property
    def recovered(self) -> Float[np.ndarray, "..."]:
        """The effect as a share of the difference between the two runs: 0 no change, 1 all of it; NaN where
        the two do not differ."""
        difference = self.other.mean() - self.base.mean()
        return self.effect / (difference if difference else np.nan)

    def to_frame(self) -> "pd.DataFrame":
        """One row a cell: layer, pos, head or neuron, value, effect, recovered, standard error."""
        import pandas as pd

        change = self.per_pair - self.base[None]
        count = change.shape[1]
        columns: dict[str, Any] = {"layer": self.layers}
        if self.positions is not None:
            columns["pos"] = self.positions
        if self.unit is not None:
            columns[self.unit] = self.units
        return pd.DataFrame(columns).assign(
            value=self.per_pair.mean(1),
            effect=change.mean(1),
            recovered=self.recovered.ravel(),
            error=change.std(1, ddof=1) / count**0.5 if count > 1 else np.nan,
        )

    def plot(self, ax: Any = None, recovered: bool = False) -> Any:
        """The effects as a map with symmetric limits; needs matplotlib.

        Args:
            ax: matplotlib axes; new ones if not set.
            recovered: as a share of the two runs' difference.

        Returns:
            The axes.
        """
        from workbench.plots.patching import plot_patches

        return plot_patches(self, ax, recovered)

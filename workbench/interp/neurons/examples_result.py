"""What is known of each neuron over a text: statistics, and the places to look at."""

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from workbench.errors import InputError, shown
from workbench.interp.neurons.tally import EDGES

if TYPE_CHECKING:
    import pandas as pd

_NAME = re.compile(r"L(\d+)N(\d+)", re.IGNORECASE)


class Example(NamedTuple):
    """A place in the text."""

    kind: str
    """`top`, `random`, or the quantiles that it lies between, such as `75-90 %`."""
    value: float
    """Activation there."""
    row: int
    pos: int


class Row(NamedTuple):
    """A row of the text that some example lies in."""

    tokens: Int[np.ndarray, " pos"]
    segments: Int[np.ndarray, " pos"] | None


@dataclasses.dataclass(frozen=True)
class NeuronExamples:
    """Statistics of neurons over a text, and where in it to look."""

    layers: tuple[int, ...]
    """The blocks whose neurons were read."""
    mean: Float[np.ndarray, "layer neuron"]
    std: Float[np.ndarray, "layer neuron"]
    active: Float[np.ndarray, "layer neuron"]
    """Share of the tokens at which it is above 0."""
    histogram: Int[np.ndarray, "layer neuron bin"]
    """Tokens in each bin of `edges`, two bins an octave."""
    top_value: Float[np.ndarray, "layer neuron rank"]
    """Largest activation in each of the rows that have the largest, descending; -inf where rows ran out."""
    top_row: Int[np.ndarray, "layer neuron rank"]
    """That row's number in the text, -1 where rows ran out; of equals the earlier row."""
    top_pos: Int[np.ndarray, "layer neuron rank"]
    """Its first position with that value."""
    sample_value: Float[np.ndarray, "token layer neuron"]
    """Activations at positions drawn uniformly, without replacement, the same for all neurons."""
    sample_row: Int[np.ndarray, " token"]
    sample_pos: Int[np.ndarray, " token"]
    rows: Mapping[int, Row]
    """The rows that these lie in, by number."""
    tokens: int
    """Positions read; special tokens are not."""
    n_rows: int
    random: int
    quantiles: tuple[float, ...]
    seed: int
    run: str | None = None
    step: int | None = None

    axes = ("layer", "neuron")
    edges = EDGES

    @property
    def max(self) -> Float[np.ndarray, "layer neuron"]:
        """Largest activation."""
        return self.top_value[..., 0]

    def part(self, neuron: Any) -> tuple[int, int]:
        """Where a neuron, `"L2N17"` or a `Part`, stands on the two axes.

        Raises:
            InputError: it was not read.
        """
        label = getattr(neuron, "label", neuron)
        match = (
            re.fullmatch(r"L(\d+)N(\d+)", label.strip(), re.IGNORECASE) if isinstance(label, str) else None
        )
        layer, unit = map(int, match.groups()) if match else (-1, -1)
        width = self.mean.shape[1]
        if layer not in self.layers or not 0 <= unit < width:
            have = ", ".join(f"L{one}N0 to L{one}N{width - 1}" for one in self.layers)
            raise InputError(f"{shown(label)!r} was not read; the neurons read are {have}.")
        return self.layers.index(layer), unit

    def examples(self, neuron: Any, per_bin: int = 2) -> tuple[Example, ...]:
        """The best passages, `random` uniform ones, and `per_bin` between neighbouring quantiles of its
        activation (as the sample has them), the strongest first.

        Args:
            neuron: `"L2N17"` or a `Part`.
            per_bin: examples of each bin.
        """
        where = self.part(neuron)
        best = self.top_value[where], self.top_row[where], self.top_pos[where]
        found = [
            Example("top", float(value), int(row), int(pos))
            for value, row, pos in zip(*best, strict=True)
            if row >= 0
        ]
        values = self.sample_value[:, *where]
        bounds = np.quantile(values, self.quantiles)
        for high in range(len(bounds) - 1, 0, -1):
            last = high == len(bounds) - 1
            below = (values <= bounds[high]) if last else (values < bounds[high])
            inside = (values >= bounds[high - 1]) & below
            name = "-".join(f"{100 * share:g}" for share in self.quantiles[high - 1 : high + 1]) + " %"
            drawn = np.flatnonzero(inside[self.random :]) + self.random  # others than the random ones
            found += [self._sampled(name, int(at), where) for at in drawn[:per_bin]]
        found += [self._sampled("random", at, where) for at in range(min(self.random, len(values)))]
        return tuple(found)

    def to_frame(self) -> "pd.DataFrame":
        """One row a neuron: component, layer, neuron, mean, std, active, max, and quantiles of the sample."""
        import pandas as pd

        width = self.mean.shape[1]
        layers = np.repeat(self.layers, width)
        units = np.tile(np.arange(width), len(self.layers))
        frame = pd.DataFrame(
            {
                "component": [f"L{layer}N{unit}" for layer, unit in zip(layers, units, strict=True)],
                "layer": layers,
                "neuron": units,
                **{name: getattr(self, name).ravel() for name in ("mean", "std", "active", "max")},
            }
        )
        inner = [one for one in self.quantiles if 0 < one < 1]
        for share, values in zip(inner, np.quantile(self.sample_value, inner, axis=0), strict=True):
            frame[f"q{100 * share:g}"] = values.ravel()
        return frame

    def passages(self) -> "pd.DataFrame":
        """One row a neuron and rank: component, rank, activation, row, pos; see `rows` for their tokens."""
        import pandas as pd

        at = np.argwhere(self.top_row >= 0)
        layer, neuron, rank = at.T
        return pd.DataFrame(
            {
                "component": [f"L{self.layers[one]}N{unit}" for one, unit in zip(layer, neuron, strict=True)],
                "rank": rank,
                "activation": self.top_value[*at.T],
                "row": self.top_row[*at.T],
                "pos": self.top_pos[*at.T],
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """Largest activation against the share of tokens at which a neuron is active; needs matplotlib.

        Returns:
            The matplotlib axes.
        """
        from workbench.plots.neurons import plot_neurons

        return plot_neurons(self, ax)

    def _sampled(self, kind: str, at: int, where: tuple[int, int]) -> Example:
        return Example(
            kind, float(self.sample_value[at, *where]), int(self.sample_row[at]), int(self.sample_pos[at])
        )

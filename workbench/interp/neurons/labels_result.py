"""The best label of each neuron, and whether it holds."""

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from workbench.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class NeuronLabels:
    """The best label of each neuron, and how it did on stories that it was not chosen on."""

    layers: tuple[int, ...]
    features: tuple[str, ...]
    usual: Float[np.ndarray, " feature"]
    """AUC that 95 % of the neurons of an untrained copy stay under; 0.5 without one."""
    feature: Int[np.ndarray, "layer neuron"]
    """Index of the best feature on the first half."""
    chosen_auc: Float[np.ndarray, "layer neuron"]
    """Its AUC there: too good, because it was chosen by it."""
    auc: Float[np.ndarray, "layer neuron"]
    """Its AUC on the other half."""
    low: Float[np.ndarray, "layer neuron"]
    high: Float[np.ndarray, "layer neuron"]
    p: Float[np.ndarray, "layer neuron"]
    """Of so high an AUC by chance, corrected for all neurons and features; one-sided."""
    precision: Float[np.ndarray, "layer neuron"]
    """Share that have the feature of the strongest tokens, as many as have it: the AUC sees few of those."""
    untrained: Float[np.ndarray, " neuron"] | None
    """Excess of another copy's neurons, chosen and tested the same way; None if there was none."""
    positives: Int[np.ndarray, " feature"]
    """Tokens of the second half that have the feature."""
    tokens: int
    """Tokens of the second half."""
    stories: int
    least_auc: float
    alpha: float
    seed: int
    run: str | None = None
    step: int | None = None

    axes = ("layer", "neuron")

    @cached_property
    def excess(self) -> Float[np.ndarray, "layer neuron"]:
        """How far the held-out AUC is above the feature's usual one, as a share of what that leaves over."""
        return excess_over(self.auc, self.usual[self.feature])

    @property
    def level(self) -> float:
        """The excess that all but a share `alpha` of the untrained neurons stay under."""
        return 0.0 if self.untrained is None else float(np.quantile(self.untrained, 1 - self.alpha))

    @cached_property
    def passed(self) -> Bool[np.ndarray, "layer neuron"]:
        """Whether the label holds on the other half: AUC at least `least_auc`, its interval above 0.5, p at
        most `alpha`, and the excess above the untrained level."""
        held = (self.auc >= self.least_auc) & (self.low > 0.5) & (self.p <= self.alpha)
        return held & (self.excess > self.level)

    def label(self, layer: int, neuron: int) -> str | None:
        """The label that holds; None if none does.

        Raises:
            InputError: the layer was not read.
        """
        if layer not in self.layers:
            raise InputError(
                f"block {layer} was not labelled; these were: {', '.join(map(str, self.layers))}."
            )
        at = self.layers.index(layer), neuron
        return self.features[self.feature[at]] if self.passed[at] else None

    def to_frame(self) -> "pd.DataFrame":
        """One row a neuron: component, layer, neuron, label (None if it does not hold), best (feature),
        chosen_auc, auc, low, high, precision, p, excess."""
        import pandas as pd

        width = self.auc.shape[1]
        layers, units = np.repeat(self.layers, width), np.tile(np.arange(width), len(self.layers))
        best = [self.features[index] for index in self.feature.ravel()]
        names = ("chosen_auc", "auc", "low", "high", "precision", "p", "excess")
        return pd.DataFrame(
            {
                "component": [f"L{layer}N{unit}" for layer, unit in zip(layers, units, strict=True)],
                "layer": layers,
                "neuron": units,
                "label": [
                    name if held else None for name, held in zip(best, self.passed.ravel(), strict=True)
                ],
                "best": best,
                **{name: getattr(self, name).ravel() for name in names},
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """Held-out AUC of the model's neurons by excess beside the untrained copy's; needs matplotlib.

        Returns:
            The matplotlib axes.
        """
        from workbench.plots.neurons import plot_labels

        return plot_labels(self, ax)


def excess_over(auc: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """How far an AUC is above the usual one, as a share of what that leaves over."""
    return (auc - usual) / (1 - usual)

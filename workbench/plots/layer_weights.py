"""A figure of the learned weights of a residual stream over earlier layers."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.direct.layer_weights import LayerWeights

MOST_NUMBERS = 16
"""Beyond so many sources the cells have no room for numbers."""


def plot_layer_weights(found: "LayerWeights", ax: Any = None) -> Any:
    """Reader x source, the embedding first, with the weights in the cells as far as there is room.

    Args:
        found: what `layer_weights` gave.
        ax: matplotlib axes to draw on; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    rows, columns = found.weights.shape
    numbers = columns <= MOST_NUMBERS
    if ax is None:
        cell = 0.5 if numbers else 0.24
        _, ax = pyplot.subplots(figsize=(2.2 + cell * columns, 1.9 + cell * rows), layout="constrained")
    top = float(np.nanmax(found.weights))
    image = ax.imshow(found.weights, cmap="Blues", vmin=0, vmax=top)
    if numbers:
        for (row, column), value in np.ndenumerate(found.weights):
            if not np.isnan(value):
                shade = "white" if value > 0.6 * top else "#1b222c"
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=shade)
    ax.set_xticks(range(columns), found.sources, rotation=90)
    ax.set_yticks(range(rows), found.readers)
    ax.set(xlabel="from", ylabel="reads")
    ax.set_title("learned weights of earlier layers\n(a row sums to 1)", fontsize=10)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    # White lines between the cells.
    ax.set_xticks(np.arange(0.5, columns - 1), minor=True)
    ax.set_yticks(np.arange(0.5, rows - 1), minor=True)
    ax.grid(which="minor", color="white", linewidth=1.5)
    ax.tick_params(which="minor", length=0)
    if not numbers:
        ax.figure.colorbar(image, ax=ax, label="weight", shrink=0.8).outline.set_visible(False)
    return ax

"""A sweep of patches as a map: where a patch moves the metric, and which way."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.contributions import COLOURS
from workbench.plots.pyplot import need_pyplot, plain

if TYPE_CHECKING:
    from workbench.interp.patching.result import PatchResult

MOST_ROWS = 40
"""Of a map of heads or neurons by position, the rows that move the metric most are drawn."""


def plot_patches(result: "PatchResult", ax: Any = None, recovered: bool = False) -> Any:
    """Layer x position, layer x head, or layer and head x position, by what was swept. Returns the axes.

    Args:
        result: the sweep.
        ax: matplotlib axes; new ones if not set.
        recovered: as a share of the two runs' difference instead of the metric's own unit.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    values = result.recovered if recovered else result.effect
    layers = np.unique(result.layers)
    rows = [f"L{layer}" for layer in layers]
    if result.positions is not None and result.units is not None:
        grid = values.transpose(0, 2, 1).reshape(-1, values.shape[1])
        names = np.unique(result.units)
        short = "N" if result.unit == "neuron" else "H"
        rows = [f"L{layer}{short}{name}" for layer in layers for name in names]
        if len(rows) > MOST_ROWS:
            chosen = np.sort(np.argsort(-np.abs(grid).max(1), kind="stable")[:MOST_ROWS])
            grid, rows = grid[chosen], [rows[row] for row in chosen]
    else:
        grid = values.reshape(len(layers), -1)
    if result.positions is not None:
        places = np.unique(result.positions)
        columns = [f"{plain(result.tokens[place])}\n{place}" for place in places]
        axis = "position of the patched run (tokens of the first pair)"
    elif result.units is not None:
        columns, axis = [str(name) for name in np.unique(result.units)], (result.unit or "").replace("_", "/")
    else:
        columns, axis = ["all positions"], ""
    limit = float(np.nanmax(np.abs(grid))) or 1.0
    if ax is None:
        size = (2.2 + 0.55 * len(columns), 1.4 + max(0.28 * len(rows), 1.0))
        _, ax = pyplot.subplots(figsize=(min(size[0], 24), min(size[1], 24)), layout="constrained")
    image = ax.imshow(grid, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    step = max(1, len(columns) // 40)
    ax.set_xticks(range(0, len(columns), step), columns[::step], fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set_xlabel(axis)
    ax.set_title(f"{result.site}, {result.direction} with {result.values} values", fontsize=10)
    unit = "share of the difference recovered" if recovered else f"change of the {result.metric}"
    ax.figure.colorbar(image, ax=ax, label=unit)
    return ax

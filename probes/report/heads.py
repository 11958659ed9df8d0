"""Scores of single heads, as a map of layers and heads."""

from typing import TYPE_CHECKING, Any

import numpy as np

from probes.result import MODEL, NOTHING, TASK
from workbench.plots.primitives import need_pyplot, plain

if TYPE_CHECKING:
    from probes.result import ProbeResult


def plot_heads(result: "ProbeResult", ax: Any = None, title: str | None = None) -> Any:
    """The score of a probe on each head's vectors alone, the deepest layer on top.

    Args:
        result: what `probe` gave for a hook point with heads, such as `z`.
        ax: matplotlib axes; new ones if not set.
        title: run and checkpoint; the first if not set.

    Returns:
        The axes.
    """
    pyplot = need_pyplot()
    if ax is None:
        _, ax = pyplot.subplots(figsize=(5.6, 4.2), layout="constrained")
    part, table = result.part(title), result.table
    mine: Any = table[(table.run == part.run) & (table.step == part.step) & (table.labels == TASK)]
    heads: Any = mine[(mine.source == MODEL) & mine["head"].notna()]
    layers = np.unique(heads.layer.to_numpy(int))
    grid = np.full((len(layers), int(heads["head"].max()) + 1), np.nan)
    grid[np.searchsorted(layers, heads.layer.to_numpy(int)), heads["head"].to_numpy(int)] = heads.score
    image = ax.imshow(grid, origin="lower", cmap="viridis", aspect="auto")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    if grid.size <= 200:
        for (row, column), value in np.ndenumerate(grid):
            if np.isfinite(value):
                text = f"{100 * value:.0f}" if result.classes else f"{value:.2f}"
                colour = "white" if value < middle else "black"
                ax.text(column, row, text, ha="center", va="center", fontsize=7.5, color=colour)
    ax.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    ax.set_xticks(range(grid.shape[1]))
    base: Any = mine[(mine.source == NOTHING) & (mine.probe == "majority")].score
    about = f"; majority {100 * base.iloc[0]:.0f} %" if result.classes and len(base) else ""
    kind = str(heads.hook.iloc[0]).split(".", 2)[-1]
    ax.set(xlabel=f"head ({kind}{about})", ylabel="layer")
    ax.set_title(plain(f"{result.task}, {part.title}"), fontsize=10, loc="left")
    ax.tick_params(labelsize=8, length=2)
    shown = (lambda value, _: f"{100 * value:.0f} %") if result.classes else None
    bar = ax.figure.colorbar(image, ax=ax, format=shown)
    bar.set_label(result.measure, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return ax

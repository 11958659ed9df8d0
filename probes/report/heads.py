"""Scores of single heads, as a map of layers and heads."""

from typing import TYPE_CHECKING, Any

import numpy as np

from probes.result import MODEL, NOTHING, TASK
from workbench.plots import primitives as draw

if TYPE_CHECKING:
    from probes.result import ProbeResult


def plot_heads(result: "ProbeResult", ax: Any = None, title: str | None = None) -> Any:
    """The score of a probe on each head's vectors alone, the deepest layer on top.

    Args:
        result: what `probe` gave for a hook point with heads, such as `z`.
        ax: axes to draw into; a new figure if not set.
        title: run and checkpoint; the first if not set.

    Returns:
        The matplotlib figure.
    """
    part, table = result.part(title), result.table
    mine: Any = table[(table.run == part.run) & (table.step == part.step) & (table.labels == TASK)]
    heads: Any = mine[(mine.source == MODEL) & mine["head"].notna()]
    layers = np.unique(heads.layer.to_numpy(int))
    grid = np.full((len(layers), int(heads["head"].max()) + 1), np.nan)
    grid[np.searchsorted(layers, heads.layer.to_numpy(int)), heads["head"].to_numpy(int)] = heads.score
    scale = 100 if result.classes else 1
    label = f"{result.measure}, %" if result.classes else result.measure
    figure, ax = draw.open_axes(ax, (5.6, 4.2))
    draw.heatmap(
        ax, scale * grid, [str(layer) for layer in layers], [str(head) for head in range(grid.shape[1])],
        cells=None if grid.size > 200 else "{:.0f}" if result.classes else "{:.2f}", cmap="viridis",
        label=label, limits=(None, None),
    )  # fmt: skip
    ax.invert_yaxis()
    base: Any = mine[(mine.source == NOTHING) & (mine.probe == "majority")].score
    about = f"; majority {100 * base.iloc[0]:.0f} %" if result.classes and len(base) else ""
    kind = str(heads.hook.iloc[0]).split(".", 2)[-1]
    ax.set(xlabel=f"head ({kind}{about})", ylabel="layer")
    ax.set_title(draw.plain(f"{result.task}, {part.title}"), fontsize=10, loc="left")
    return figure

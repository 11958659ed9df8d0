"""Paths between components as a map: who tells whom what moves the metric."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.contributions import COLOURS, layer_map
from workbench.plots.pyplot import need_pyplot, plain

if TYPE_CHECKING:
    from workbench.interp.patching.path_result import PathPatchResult

MOST = 40
"""Of more rows or columns, those that move the metric most are drawn."""


def plot_paths(result: "PathPatchResult", ax: Any = None, recovered: bool = False) -> Any:
    """Layer x head and MLP for one receiver, receiver x sender for several, path x position if the senders'
    positions were patched one by one. Grey: no path. Returns the axes.

    Args:
        result: what `path_patch` gave.
        ax: matplotlib axes; new ones if not set.
        recovered: as a share of the two runs' difference instead of the metric's own unit.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    values = result.recovered if recovered else result.effect
    senders = [one.label for one in result.senders]
    title = f"{result.direction}, {'through MLPs' if result.through_mlps else 'all else frozen'}"
    below, left = "", ""
    if result.tokens is not None:
        grid = values.reshape(-1, values.shape[-1])
        rows = [f"{sender} → {receiver}" for receiver in result.receivers for sender in senders]
        grid, rows = _strongest(grid, rows)
        columns = [f"{plain(token)}\n{place}" for place, token in enumerate(result.tokens)]
        below = "position of the sender (tokens of the first pair)"
    elif len(result.receivers) == 1 and any(
        one.layer is not None and one.layer >= 0 for one in result.senders
    ):
        inside = [index for index, one in enumerate(result.senders) if (one.layer or 0) >= 0]
        grid, columns = layer_map([result.senders[index] for index in inside], values[0, inside])
        rows = [f"L{layer}" for layer in range(len(grid))]
        outside = [i for i in range(len(senders)) if i not in inside and not np.isnan(values[0, i])]
        title = f"to {result.receivers[0]}: {title}"
        title += "".join(f"\n{senders[index]} {values[0, index]:+.3g}" for index in outside)
    else:
        grid, rows = _strongest(values, list(result.receivers))
        turned, columns = _strongest(grid.T, senders)
        grid, below, left = turned.T, "sender", "receiver"
    limit = float(np.nanmax(np.abs(grid), initial=0)) or 1.0
    if ax is None:
        size = (2.6 + 0.42 * len(columns), 1.6 + max(0.24 * len(rows), 1.0))
        _, ax = pyplot.subplots(figsize=(min(size[0], 24), min(size[1], 24)), layout="constrained")
    ax.set_facecolor("0.87")
    image = ax.imshow(grid, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    turn = {"rotation": 90} if below == "sender" else {}
    ax.set_xticks(range(len(columns)), columns, fontsize=8, **turn)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set(xlabel=below, ylabel=left)
    ax.set_title(title, fontsize=10)
    unit = "share of the difference recovered" if recovered else f"change of the {result.metric}"
    ax.figure.colorbar(image, ax=ax, label=unit)
    return ax


def _strongest(grid: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """The rows that move the metric most, in their own order; those without any path are left out."""
    there = np.flatnonzero(~np.isnan(grid).all(1))
    most = np.nanmax(np.abs(grid[there]), axis=1)
    chosen = np.sort(there[np.argsort(-most, kind="stable")[:MOST]])
    return grid[chosen], [names[row] for row in chosen]

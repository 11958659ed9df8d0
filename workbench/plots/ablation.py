"""Figures of ablations: effects with intervals, importance by layer and head, pruning curves."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.contributions import layer_map
from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.ablation.importance import Importance
    from workbench.interp.ablation.pruning import PruningCurve
    from workbench.interp.ablation.result import AblationResult

DARK, LIGHT = "#33526e", "#7ba0c4"
MOST_BARS = 40


def plot_effects(result: "AblationResult", ax: Any = None) -> Any:
    """A bar for each ablation with its interval, the strongest first (40 of them at most).

    The loss, or the accuracy if no loss was measured.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    of_loss = result.loss is not None
    changes = np.array(result.loss_intervals if of_loss else result.accuracy_intervals)
    order = np.argsort(-np.abs(changes[:, 0]), kind="stable")[:MOST_BARS]
    if ax is None:
        _, ax = pyplot.subplots(figsize=(6, 1 + 0.28 * len(order)), layout="constrained")
    for row, cell in enumerate(order):
        mean, low, high = changes[cell]
        ax.barh(row, mean, color=LIGHT, height=0.7)
        ax.plot([low, high], [row, row], color="black", linewidth=1.2)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(order)), [_short(result.names[cell]) for cell in order])
    ax.invert_yaxis()
    left_out = "" if len(order) == len(changes) else f"; {len(order)} strongest of {len(changes)}"
    ax.set_xlabel("rise in loss, nats a token" if of_loss else "change of accuracy, mean over paradigms")
    ax.set_title(f"{result.how} ablation{left_out}", fontsize=10)
    return ax


def plot_importance(found: "Importance", ax: Any = None) -> Any:
    """Layer x head (and MLP) with the importance in the cells.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    grid, columns = layer_map(found.parts, found.raw)
    top = float(np.nanmax(grid)) or 1.0
    if ax is None:
        size = (1.8 + 0.55 * len(columns), 1.2 + 0.45 * len(grid))
        _, ax = pyplot.subplots(figsize=size, layout="constrained")
    ax.set_facecolor("0.87")  # shows where a block has no such part
    image = ax.imshow(grid, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    for (layer, column), value in np.ndenumerate(grid):
        if not np.isnan(value):
            shade = "white" if value > 0.6 * top else "black"
            ax.text(column, layer, f"{value:.2g}", ha="center", va="center", fontsize=8, color=shade)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(grid)), [f"L{layer}" for layer in range(len(grid))])
    ax.set_title("importance (Michel et al. 2019), nats", fontsize=10)
    ax.figure.colorbar(image, ax=ax, label="mean |dL / d gate|")
    return ax


def plot_pruning(curve: "PruningCurve", ax: Any = None) -> Any:
    """Loss against the share of heads pruned, by importance and in random orders.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    if ax is None:
        _, ax = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for index, line in enumerate(curve.random_loss):
        label = "random order" if index == 0 else None
        ax.plot(curve.share, line, color=LIGHT, linewidth=1, linestyle="--", label=label)
    ax.plot(curve.share, curve.loss, color=DARK, marker="o", markersize=4, label="least important first")
    ax.set(xlabel="share of heads pruned", ylabel="loss, nats a token", xlim=(0, 1))
    ax.legend(frameon=False)
    return ax


def _short(name: str) -> str:
    return name if len(name) <= 32 else f"{name[:20]}... ({name.count('+') + 1} parts)"

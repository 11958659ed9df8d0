"""Figures of direct attributions: blue helps the grammatical sentence, red the other."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.direct.contributions import PairAttribution, TextAttribution

COLOURS = "RdBu"
"""Diverging, told apart by colour-blind readers (Brewer)."""


def layer_map(components: Any, values: Any) -> tuple[Any, list[str]]:
    """Contributions of heads and MLPs as block x column, NaN where a block has no such part, and the
    columns' names: H0, H1, ..., MLP, as far as the model has them."""
    layered = [(c, v) for c, v in zip(components, values, strict=True) if c.kind in ("head", "mlp")]
    names = ["MLP" if c.head is None else f"H{c.head}" for c, _ in layered]
    columns = sorted(set(names), key=lambda name: (name == "MLP", len(name), name))
    grid = np.full((1 + max(c.layer for c, _ in layered), len(columns)), np.nan)
    for (c, value), name in zip(layered, names, strict=True):
        grid[c.layer, columns.index(name)] = value
    return grid, columns


def plot_pair(attribution: "PairAttribution", ax: Any = None, whole: bool = False) -> Any:
    """Layer x (heads, MLP) with the numbers in the cells; what embeddings and biases add is in the title.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    attribution = attribution.folded()
    components, values = attribution.components, attribution.whole if whole else attribution.at_place
    grid, columns = layer_map(components, values)
    limit = float(np.nanmax(np.abs(grid))) or 1.0
    if ax is None:
        _, ax = pyplot.subplots(
            figsize=(1.5 + 0.6 * len(columns), 1.4 + 0.5 * len(grid)), layout="constrained"
        )
    ax.set_facecolor("0.87")  # shows where a block has no such part
    image = ax.imshow(grid, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="auto")
    for (layer, column), value in np.ndenumerate(grid):
        if np.isnan(value):
            continue
        shade = "white" if abs(value) > 0.6 * limit else "black"
        ax.text(column, layer, f"{value:+.2f}", ha="center", va="center", fontsize=8, color=shade)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(grid)), [f"L{layer}" for layer in range(len(grid))])
    total = attribution.difference if whole else attribution.difference_at_place
    others = ", ".join(
        f"{component.label} {value:+.2f}"
        for component, value in zip(components, values, strict=True)
        if component.layer is None
    )
    what = "whole sentences" if whole else "shown position"
    ax.set_title(f"{what}: {total:+.2f} nats, norms' scales frozen\n{others}", fontsize=9)
    ax.figure.colorbar(image, ax=ax, label="nats for the good one")
    return ax


def plot_text(attribution: "TextAttribution", ax: Any = None) -> Any:
    """Component x token, neurons in one sum for each MLP.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    attribution = attribution.folded()
    components, values = attribution.components, attribution.contributions.T
    limit = float(np.abs(values).max()) or 1.0
    if ax is None:
        size = (2 + 0.5 * values.shape[1], 1 + 0.22 * values.shape[0])
        _, ax = pyplot.subplots(figsize=size, layout="constrained")
    image = ax.imshow(values, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="auto")
    ax.set_xticks(
        range(values.shape[1]),
        [repr(token)[1:-1] for token in attribution.tokens],
        rotation=60,
        ha="right",
        parse_math=False,
    )
    ax.set_yticks(range(values.shape[0]), [component.label for component in components])
    ax.figure.colorbar(image, ax=ax, label="nats above the uniform guess")
    return ax

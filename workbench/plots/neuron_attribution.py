"""Figures of neurons: the strongest of an attribution, and what a fact's neurons do to its answer."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.contributions import COLOURS
from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.neurons.knowledge_result import KnowledgeNeurons
    from workbench.interp.neurons.result import NeuronAttribution

BLUE, RED, GREY = "#33526e", "#b2433f", "0.75"


def plot_neurons(found: "NeuronAttribution", ax: Any = None, count: int = 20) -> Any:
    """The strongest neurons: over positions as a map, else as bars with their standard error over pairs.

    Args:
        found: the scores.
        ax: matplotlib axes; new ones if not set.
        count: neurons drawn.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    pairs = found.per_pair
    mean = pairs.mean(0).transpose(0, 2, 1)  # [layer neuron pos]
    width, grid = mean.shape[1], mean.reshape(-1, mean.shape[2])
    order = np.argsort(-np.abs(grid).max(1), kind="stable")[:count]
    rows = [f"L{found.layers[index // width]}N{index % width}" for index in order]
    if ax is None:
        columns = 4 if found.positions is None else 0.55 * grid.shape[1]
        size = (min(2.6 + columns, 24), 1.3 + 0.25 * len(rows))
        _, ax = pyplot.subplots(figsize=size, layout="constrained")
    if found.positions is not None:
        limit = float(np.abs(grid).max()) or 1.0
        span = dict(vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        image = ax.imshow(grid[order], cmap=COLOURS, **span)
        names = [f"{found.tokens[place].strip() or '␣'}\n{place}" for place in found.positions]
        step = max(1, len(names) // 40)
        ax.set_xticks(range(0, len(names), step), names[::step], fontsize=8)
        ax.set_xlabel("position (tokens of the first prompt)")
        ax.figure.colorbar(image, ax=ax, label=found.metric)
    else:
        values, unit, error = grid[order, 0], found.metric, None
        if len(pairs) > 1:
            flat = pairs.transpose(0, 1, 3, 2).reshape(len(pairs), -1)[:, order]
            error = flat.std(0, ddof=1) / len(pairs) ** 0.5
            unit += f", mean of {len(pairs)} ± standard error"
        ax.barh(range(len(rows)), values, xerr=error, color=np.where(values > 0, BLUE, RED), height=0.7)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlabel(unit)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set_title(f"{found.method} against {found.baseline}: {len(rows)} of {len(grid)} neurons", fontsize=10)
    return ax


def plot_knowledge(found: "KnowledgeNeurons", ax: Any = None) -> Any:
    """Change of the answers' probability with the neurons suppressed and doubled, beside that of random ones
    with 95 % of their draws.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    table = found.effects()
    if ax is None:
        _, ax = pyplot.subplots(figsize=(2.6 + 1.05 * len(table), 3.6), layout="constrained")
    places = np.arange(len(table))
    ax.bar(places - 0.2, 100 * table.change, 0.38, color=BLUE, label="the fact's neurons")
    spread = 100 * np.stack([table.random - table.random_low, table.random_high - table.random])
    ax.bar(
        places + 0.2, 100 * table.random, 0.38, color=GREY, yerr=np.maximum(spread, 0), capsize=4,
        label="random neurons (95 %)",
    )  # fmt: skip
    ax.axhline(0, color="black", linewidth=0.8)
    signs = {"suppressed": "× 0", "enhanced": "× 2"}
    ax.set_xticks(places, [f"{on}\n{signs[what]}" for on, what in zip(table.on, table.neurons, strict=True)])
    ax.set_ylabel("change of the answer's probability, %")
    ax.set_title(f"{len(found.neurons)} knowledge neurons by {len(found.scores)} prompts", fontsize=10)
    ax.legend(frameon=False, fontsize=9)
    return ax

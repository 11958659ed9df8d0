"""Figures of neurons: the strongest of an attribution, and what a fact's neurons do to its answer."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.components import COLOURS
from workbench.plots.primitives import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.neurons.attribution import NeuronAttribution
    from workbench.interp.neurons.card import NeuronCard
    from workbench.interp.neurons.examples import NeuronExamples
    from workbench.interp.neurons.knowledge import KnowledgeNeurons
    from workbench.interp.neurons.labels import NeuronLabels


# Figures of neurons over text: how strong and how rare, one histogram, labels beside an untrained copy.


DARK, LIGHT, ACCENT = "#33526e", "#7ba0c4", "#d9822b"


def plot_neurons(found: "NeuronExamples", ax: Any = None) -> Any:
    """A point a neuron: share of tokens at which it is active, largest activation; a colour for each layer.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    if ax is None:
        _, ax = pyplot.subplots(figsize=(6, 4), layout="constrained")
    shades = pyplot.get_cmap("viridis")(np.linspace(0, 0.9, len(found.layers)))
    for layer, active, top, shade in zip(found.layers, found.active, found.max, shades, strict=True):
        ax.scatter(active, top, s=6, color=shade, alpha=0.6, linewidths=0, label=f"L{layer}")
    ax.set(xlabel="share of tokens above 0", ylabel="largest activation", xlim=(-0.02, 1.02))
    ax.set_title(f"{found.mean.size:,} neurons over {found.tokens:,} tokens", fontsize=10)
    ax.legend(frameon=False, markerscale=3, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def plot_histogram(card: "NeuronCard", ax: Any = None) -> Any:
    """How many tokens lie at each activation, on logarithmic axes, and where the strongest passages are.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    if ax is None:
        _, ax = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    there = np.flatnonzero(card.histogram)
    low, high = int(there[0]), int(there[-1]) + 1
    ax.bar(np.arange(low, high), card.histogram[low:high], width=0.92, align="edge", color=LIGHT)
    tops = [one.value for one in card.passages if one.kind == "top"]
    for value in tops:
        ax.plot(_place(value, card.edges), 0.62, marker="|", color=ACCENT, markersize=12, markeredgewidth=1.5)
    step = max(1, (high - low) // 8)
    inner = [at for at in range(max(1, low), min(high, len(card.edges) - 2) + 1) if (at - low) % step == 0]
    ax.set_xticks(inner, [f"{card.edges[at]:.2g}" for at in inner], fontsize=8)
    ax.set_yscale("log")
    ax.set_ylim(0.5, None)
    ax.set(xlabel="activation (two bins an octave)", ylabel="tokens")
    ax.set_title(f"{card.name}: {card.tokens:,} tokens, strongest passages marked", fontsize=10)
    return ax


def plot_labels(found: "NeuronLabels", ax: Any = None) -> Any:
    """How far the best labels are above what is usual in an untrained copy, on held-out stories.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    if ax is None:
        _, ax = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    bins = np.linspace(-1, 1, 61)
    ax.hist(
        np.clip(found.excess.ravel(), -1, 1), bins, density=True, color=LIGHT, label="this model's neurons"
    )
    if found.untrained is not None:
        ax.hist(
            np.clip(found.untrained, -1, 1), bins, density=True, histtype="step", color=ACCENT,
            linewidth=1.5, label="an untrained copy's",
        )  # fmt: skip
        told = f"{100 * (1 - found.alpha):g} % of those are below"
        ax.axvline(found.level, color="black", linewidth=1, linestyle="--", label=told)
    ax.set(xlabel="held-out AUC above the feature's usual one, as a share of the rest", ylabel="density")
    share = 100 * float(found.passed.mean())
    ax.set_title(f"{share:.0f} % of {found.passed.size:,} neurons have a label that holds", fontsize=10)
    ax.legend(frameon=False, loc="upper left")
    return ax


def _place(value: float, edges: np.ndarray) -> float:
    """Where a value stands on an axis of bins."""
    at = int(np.clip(np.searchsorted(edges, value, side="right") - 1, 0, len(edges) - 2))
    low, high = edges[at], edges[at + 1]
    inside = (value - low) / (high - low) if np.isfinite(low) and np.isfinite(high) else 0.5
    return at + float(inside)


BLUE, RED, GREY = "#33526e", "#b2433f", "0.75"


def plot_neuron_attribution(found: "NeuronAttribution", ax: Any = None, count: int = 20) -> Any:
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

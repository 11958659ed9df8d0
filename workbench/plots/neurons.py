"""Figures of neurons over text: how strong and how rare, one histogram, labels beside an untrained copy."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.neurons.card import NeuronCard
    from workbench.interp.neurons.examples_result import NeuronExamples
    from workbench.interp.neurons.labels_result import NeuronLabels

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

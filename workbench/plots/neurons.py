"""Plots of neurons: attributions, activations over text, automatic labels, and knowledge neurons."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots import primitives as draw

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_attribution(
    frame: "pd.DataFrame",
    tokens: Sequence[str],
    *,
    metric: str,
    title: str,
    pairs: int = 1,
    count: int = 20,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw the strongest neurons: over positions as a heat map, else as bars with their standard errors.

    `frame` has layer, neuron, value, error, and pos if positions were attributed one by one; a value is the
    mean over `pairs` prompts.
    """
    neurons = frame[["layer", "neuron"]].drop_duplicates().shape[0]
    strength: Any = frame.assign(size=frame["value"].abs()).groupby(["layer", "neuron"])["size"].max()
    chosen = strength.sort_values(ascending=False, kind="stable").index[:count]
    labels = [f"L{layer}N{neuron}" for layer, neuron in chosen]
    title = f"{title}: {len(labels)} of {neurons:,} neurons"
    if "pos" not in frame:
        figure, ax = draw.open_axes(ax, (6.6, 1.3 + 0.25 * len(labels)))
        rows = frame.set_index(["layer", "neuron"]).loc[chosen]
        value, error = rows["value"], rows["error"]
        note = f", mean of {pairs} ± standard error" if pairs > 1 else ""
        draw.intervals(ax, labels, value, value - error, value + error, bars=True)
        draw.dress(ax, title, xlabel=metric + note)
        return figure
    rows = frame.set_index(["layer", "neuron"])
    grid = rows.loc[rows.index.isin(chosen)].pivot(columns="pos", values="value").loc[chosen]
    figure, ax = draw.open_axes(ax, (3.0 + 0.55 * grid.shape[1], 1.5 + 0.25 * len(labels)))
    columns = [f"{draw.plain(tokens[place], 12)}\n{place}" for place in grid.columns]
    draw.heatmap(ax, grid, labels, columns, label=metric)
    ax.set_xlabel("position (tokens of the first prompt)")
    ax.set_title(title, fontsize=10)
    return figure


def plot_activity(frame: "pd.DataFrame", tokens: int, ax: "Axes | None" = None) -> "Figure":
    """Draw each neuron's largest activation over the fraction of tokens at which it is active.

    `frame` has layer, active and max, a row for each neuron.
    """
    figure, ax = draw.open_axes(ax, (6, 4))
    layers = list(dict.fromkeys(frame["layer"]))
    for layer, color in zip(layers, draw.shades(len(layers)), strict=True):
        part = frame[frame["layer"] == layer]
        ax.scatter(part["active"], part["max"], s=6, color=color, alpha=0.6, linewidths=0, label=f"L{layer}")
    title = f"{len(frame):,} neurons over {tokens:,} tokens"
    draw.dress(
        ax, title, xlabel="fraction of tokens above 0", ylabel="largest activation", xlim=(-0.02, 1.02)
    )
    draw.legend(ax, outside=True, markerscale=3)
    return figure


def plot_histogram(
    counts: np.ndarray, edges: np.ndarray, marks: Sequence[float], *, title: str, ax: "Axes | None" = None
) -> "Figure":
    """Draw how many tokens lie at each activation, on logarithmic axes, with marks at single values.

    `counts` [bin], `edges` [bin + 1]; the outermost edges may be infinite.
    """
    figure, ax = draw.open_axes(ax, (6, 3.2))
    used = np.flatnonzero(counts)
    low, high = int(used[0]), int(used[-1]) + 1
    ax.bar(np.arange(low, high), counts[low:high], width=0.92, align="edge", color=draw.LIGHT)
    bins = np.clip(np.searchsorted(edges, marks, side="right") - 1, 0, len(edges) - 2)
    with np.errstate(invalid="ignore"):
        inside = np.nan_to_num((marks - edges[bins]) / (edges[bins + 1] - edges[bins]), nan=0.5)
    ax.plot(
        bins + inside, np.full(len(bins), 0.62), "|", color=draw.ACCENT, markersize=12, markeredgewidth=1.5
    )
    step = max(1, (high - low) // 8)
    ticks = [at for at in range(max(1, low), min(high, len(edges) - 2) + 1) if (at - low) % step == 0]
    ax.set_yscale("log")
    draw.dress(ax, title, xlabel="activation (two bins per octave)", ylabel="tokens", ylim=(0.5, None))
    ax.set_xticks(ticks, [f"{edges[at]:.2g}" for at in ticks])
    return figure


def plot_labels(
    excess: np.ndarray,
    untrained: np.ndarray | None,
    *,
    level: float,
    alpha: float,
    title: str,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw how far the best labels are above the usual in this model and in an untrained copy.

    `excess` [neuron] is the held-out AUC above the feature's usual one, as a fraction of what that leaves
    over; `untrained` the same in the copy, with `level` as its quantile 1 - `alpha`.
    """
    figure, ax = draw.open_axes(ax, (6, 3.6))
    bins = np.linspace(-1, 1, 61).tolist()
    ax.hist(np.clip(excess, -1, 1), bins, density=True, color=draw.LIGHT, label="this model's neurons")
    if untrained is not None:
        style = {"histtype": "step", "color": draw.ACCENT, "linewidth": 1.5, "label": "an untrained copy's"}
        ax.hist(np.clip(untrained, -1, 1), bins, density=True, **style)
        label = f"{100 * (1 - alpha):g} % of those are below"
        ax.axvline(level, color="black", linewidth=1, linestyle="--", label=label)
    draw.dress(
        ax,
        title,
        xlabel="held-out AUC above the feature's usual one (fraction of the rest)",
        ylabel="density",
    )
    draw.legend(ax, loc="upper left")
    return figure


def plot_knowledge(frame: "pd.DataFrame", *, title: str, ax: "Axes | None" = None) -> "Figure":
    """Draw how the answers' probability changes with a fact's neurons suppressed and doubled.

    `frame` has on (set of prompts), neurons (`suppressed` or `enhanced`), change, and of random neurons
    random, random_low and random_high.
    """
    figure, ax = draw.open_axes(ax, (3.0 + 1.05 * len(frame), 3.8))
    places, mean = np.arange(len(frame)), 100 * frame["random"]
    ax.bar(places - 0.2, 100 * frame["change"], 0.38, color=draw.DARK, label="the fact's neurons")
    error = np.maximum([mean - 100 * frame["random_low"], 100 * frame["random_high"] - mean], 0)
    ax.bar(places + 0.2, mean, 0.38, color="0.75", yerr=error, capsize=4, label="random neurons (95 %)")
    ax.axhline(0, color="black", linewidth=0.8)
    signs = {"suppressed": "× 0", "enhanced": "× 2"}
    names = zip(frame["on"], frame["neurons"], strict=True)
    ax.set_xticks(places, [f"{draw.plain(on)}\n{signs[change]}" for on, change in names])
    draw.dress(ax, title, ylabel="change of the answer's probability, %")
    draw.legend(ax, outside=True)
    return figure

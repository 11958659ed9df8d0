"""Plots of activation patching, path patching and edge attribution."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.plots import primitives as draw
from workbench.plots.components import layer_map, name_layer

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 40
"""Of more rows or columns, those that change the metric most are drawn."""
NAMED = 3
"""Cells that are named in a plot of estimates: those that are furthest off."""


def plot_patches(
    frame: "pd.DataFrame",
    tokens: Sequence[str],
    *,
    metric: str,
    title: str,
    recovered: bool = False,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw a sweep of patches: layer x position, layer x unit, or layer and unit x position.

    `frame` has layer, then `pos`, `head`, `kv_head` or `neuron` as far as they were swept, effect and
    recovered (the fraction of the two runs' difference).
    """
    unit = next((name for name in ("head", "kv_head", "neuron") if name in frame), None)
    by_position = "pos" in frame
    rows = ["layer", unit] if by_position and unit else ["layer"]
    column = "pos" if by_position else unit or "all"
    grid = frame.assign(all=0).pivot(
        index=rows, columns=column, values="recovered" if recovered else "effect"
    )
    letter = "N" if unit == "neuron" else "H"
    names = [
        f"L{place[0]}" + "".join(f"{letter}{index}" for index in place[1:])
        for place in map(np.atleast_1d, grid.index)
    ]
    if by_position:
        labels, xlabel = (
            [_position(tokens, place) for place in grid.columns],
            "position in the patched run (tokens of the first pair)",
        )
    elif unit:
        labels, xlabel = [str(index) for index in grid.columns], unit.replace("_", "/")
    else:
        labels, xlabel = ["all positions"], ""
    values, names = _strongest(grid.to_numpy(), names)
    size = (2.4 + 0.55 * len(labels), 1.6 + max(0.28 * len(names), 1.4))
    figure, ax = draw.open_axes(ax, size)
    draw.heatmap(ax, values, names, labels, label=_unit(metric, recovered))
    ax.set_xlabel(xlabel)
    ax.set_title(title, fontsize=10)
    return figure


def plot_paths(
    effects: np.ndarray,
    receivers: Sequence[str],
    senders: Sequence[str],
    tokens: Sequence[str] | None,
    *,
    metric: str,
    title: str,
    recovered: bool = False,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw path effects [receiver sender *pos]; grey: no path.

    They are drawn as layer x head for one receiver, receiver x sender for several, path x position where the
    senders' positions were patched one by one.
    """
    xlabel, ylabel, rotation = "", "", 0
    inside = [index for index, name in enumerate(senders) if name_layer(name) is not None]
    if tokens is not None:
        rows = [f"{sender} → {receiver}" for receiver in receivers for sender in senders]
        values, rows = _strongest(effects.reshape(-1, effects.shape[-1]), rows)
        columns = [_position(tokens, place) for place in range(len(tokens))]
        xlabel = "position of the sender (tokens of the first pair)"
    elif len(receivers) == 1 and inside:
        values, rows, columns = layer_map([senders[index] for index in inside], effects[0, inside])
        others = [
            f"{name} {value:+.3g}"
            for index, (name, value) in enumerate(zip(senders, effects[0], strict=True))
            if index not in inside and not np.isnan(value)
        ]
        title = "\n".join([f"to {receivers[0]}: {title}", *others])
    else:
        values, rows = _strongest(effects, list(receivers))
        turned, columns = _strongest(values.T, list(senders))
        values, xlabel, ylabel, rotation = turned.T, "sender", "receiver", 90
    figure, ax = draw.open_axes(ax, (2.8 + 0.46 * len(columns), 1.8 + max(0.26 * len(rows), 1.4)))
    draw.heatmap(ax, values, rows, columns, label=_unit(metric, recovered), rotation=rotation)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title, fontsize=10)
    return figure


def plot_edges(
    edges: "pd.DataFrame", senders: Sequence[str], *, title: str, ax: "Axes | None" = None
) -> "Figure":
    """Draw edges as a graph: layers upwards, heads side by side, MLPs to the right.

    Blue edges raise the metric, red ones lower it, the strongest are widest. A letter below a head is the
    input that an edge enters. `edges` has sender, receiver (`L1H2.q`, `L1 MLP`, `logits`) and score, the
    strongest first; `senders` are the labels of all components, with or without edges.
    """
    edges = edges.query("score != 0")
    layers = 1 + max([layer for name in senders if (layer := name_layer(name)) is not None], default=0)
    heads = {name: int(match[1]) for name in senders if (match := re.search(r"H(\d+)$", name))}
    width = 1 + max(heads.values(), default=0)
    nodes = {"embed": (width / 2 - 0.5, -1.0), "logits": (width / 2 - 0.5, float(layers))}
    for name in senders:
        if (layer := name_layer(name)) is not None:
            nodes[name] = (heads[name], layer) if name in heads else (width + 0.3, layer + 0.35)
    inputs: dict[str, set[str]] = {}
    drawn = []
    for sender, receiver, score in edges[["sender", "receiver", "score"]].itertuples(index=False):
        name, _, part = receiver.partition(".")
        if part:
            inputs.setdefault(name, set()).add(part)
        # Edges into one head's q, k and v are bent differently, so that they lie next to each other.
        bend = {"q": 0.18, "k": 0.0, "v": -0.18}.get(part, 0.08)
        drawn.append((sender, name, score, bend if nodes[name][0] >= nodes[sender][0] else -bend))
    figure, ax = draw.open_axes(ax, (2.0 + 0.85 * (width + 1), 1.6 + 1.15 * (layers + 1)))
    draw.graph(ax, nodes, drawn[::-1], {name: " ".join(sorted(parts)) for name, parts in inputs.items()})
    ax.set(xlim=(-0.8, width + 1), ylim=(-1.4, layers + 0.4))
    strongest = np.abs(edges["score"].to_numpy()).max(initial=0.0)
    ax.set_title(f"{title}\nblue raises it, red lowers it; the widest by {strongest:.3g}", fontsize=9)
    return figure


def plot_estimates(
    exact: np.ndarray,
    estimates: Mapping[str, np.ndarray],
    names: Sequence[str],
    fits: Mapping[str, tuple[float, float]],
    *,
    metric: str,
    title: str,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw estimated over exact effects [cell], and name the cells furthest off.

    `fits` are correlation with the exact effects (NaN: not defined) and slope of each estimate.
    """
    figure, ax = draw.open_axes(ax, (5.6, 5.2))
    legends = {
        name: name if math.isnan(fits[name][0]) else "{}: r = {:.3f}, slope {:.2f}".format(name, *fits[name])
        for name in estimates
    }
    draw.scatter_diagonal(ax, exact, {legends[name]: values for name, values in estimates.items()})
    last, middle = [*estimates.values()][-1], sum(ax.get_xlim()) / 2
    for cell in np.argsort(-np.abs(last - exact), kind="stable")[:NAMED]:
        if last[cell] != exact[cell]:
            right = exact[cell] > middle
            ax.annotate(
                draw.plain(names[cell]), (exact[cell], last[cell]), xytext=(-6 if right else 6, 0),
                textcoords="offset points", ha="right" if right else "left", va="center", fontsize=7,
            )  # fmt: skip
    draw.dress(ax, title, xlabel=f"exact change of the {metric}", ylabel="estimate")
    draw.legend(ax, loc="upper left")
    return figure


def _strongest(values: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Return the rows that change the metric most, in their own order; rows without values are dropped."""
    present = np.flatnonzero(~np.isnan(values).all(1))
    if not len(present):
        return values[:MOST], names[:MOST]
    most = np.nanmax(np.abs(values[present]), axis=1)
    chosen = np.sort(present[np.argsort(-most, kind="stable")[:MOST]])
    return values[chosen], [names[row] for row in chosen]


def _position(tokens: Sequence[str], place: int) -> str:
    return f"{draw.plain(tokens[place], 12)}\n{place}"


def _unit(metric: str, recovered: bool) -> str:
    return "fraction of the difference recovered" if recovered else f"change of the {metric}"

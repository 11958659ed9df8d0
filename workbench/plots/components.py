"""Plots of what components and layers contribute: attributions, lenses, ablations, matrices, circuits."""

import re
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError, nearest
from workbench.plots import primitives as draw

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 40
MOST_NUMBERS = 16
"""With more columns the cells have no room for numbers."""
MOST_PANELS = 12
UNCERTAIN = 0.35
"""Opacity of cells whose interval includes 0."""
LENS_VALUES = {
    "top_prob": "its probability",
    "target_log_prob": "log p(target), nats",
    "entropy": "entropy, nats",
    "kl": "KL to the final prediction, nats",
    "loss": "cross-entropy, nats per token",
    "agreement": "agreement with the final prediction",
}
METHODS = {
    "direct": "direct attribution",
    "ablate": "effect of the component ({how} ablation)",
    "patch": "margin lost when the two sentences exchange the component",
    "noise": "margin lost by the good sentence with the bad one's component",
    "denoise": "margin gained by the bad sentence with the good one's component",
    "gradient": "effect of the component, to first order ({how} ablation)",
}


def name_layer(name: str) -> int | None:
    """Return the layer of a head or MLP label such as `L2H0` or `L2 MLP`; None for any other label."""
    match = re.fullmatch(r"L(\d+)(H\d+| MLP)", name)
    return int(match[1]) if match else None


def layer_map(names: Sequence[str], values: Any) -> tuple[np.ndarray, list[str], list[str]]:
    """Arrange values of heads and MLPs by layer.

    Args:
        names: labels of components; those that are neither head nor MLP are ignored.
        values: [component].

    Returns:
        [layer column] with NaN where a block has no such component, and the labels of rows (L0, L1, ...) and
        columns (H0, H1, ..., MLP).
    """
    cells = {}
    for name, value in zip(names, values, strict=True):
        if (layer := name_layer(name)) is not None:
            cells[layer, name.removeprefix(f"L{layer}").strip()] = value
    columns = sorted({column for _, column in cells}, key=lambda name: (name == "MLP", len(name), name))
    grid = np.full((1 + max((layer for layer, _ in cells), default=-1), len(columns)), np.nan)
    for (layer, column), value in cells.items():
        grid[layer, columns.index(column)] = value
    return grid, [f"L{layer}" for layer in range(len(grid))], columns


def plot_pair(names: Sequence[str], values: np.ndarray, *, title: str, ax: "Axes | None" = None) -> "Figure":
    """Draw contributions to a minimal pair's difference as layer x (heads, MLP).

    `values` [component] are in nats; those of embeddings and biases are written into the title.
    """
    grid, rows, columns = layer_map(names, values)
    others = ", ".join(
        f"{name} {value:+.2f}" for name, value in zip(names, values, strict=True) if name_layer(name) is None
    )
    figure, ax = draw.open_axes(ax, (max(4.6, 1.9 + 0.6 * len(columns)), 1.5 + 0.5 * len(grid)))
    draw.heatmap(ax, grid, rows, columns, label="nats for the good sentence", cells="{:+.2f}")
    ax.set_title(f"{title}\n{others}", fontsize=9)
    return figure


def plot_text(
    names: Sequence[str], tokens: Sequence[str], contributions: np.ndarray, ax: "Axes | None" = None
) -> "Figure":
    """Draw contributions to a text's log-probabilities, [pos component] nats, as component x token."""
    figure, ax = draw.open_axes(ax, (2.2 + 0.5 * len(tokens), 1.2 + 0.24 * len(names)))
    labels = [draw.plain(token, 14) for token in tokens]
    draw.heatmap(ax, contributions.T, names, labels, label="nats above the uniform guess", rotation=60)
    return figure


def plot_logits(frame: "pd.DataFrame", *, title: str, omitted: int = 0, ax: "Axes | None" = None) -> "Figure":
    """Draw the largest direct contributions to a logit as bars, with intervals over prompts.

    `frame` has component, mean, low and high (NaN for one prompt), and leaves out `omitted` components.
    """
    figure, ax = draw.open_axes(ax, (6, 1.4 + 0.24 * len(frame)))
    draw.intervals(ax, list(frame["component"]), frame["mean"], frame["low"], frame["high"], bars=True)
    note = f" ({omitted:,} smaller ones not shown)" if omitted else ""
    draw.dress(ax, title, xlabel=f"direct contribution, norm scales frozen{note}")
    return figure


def plot_layer_weights(
    weights: np.ndarray, readers: Sequence[str], sources: Sequence[str], ax: "Axes | None" = None
) -> "Figure":
    """Draw the weights [reader source] of a residual stream over earlier layers; NaN: not written yet."""
    numbers = len(sources) <= MOST_NUMBERS
    cell = 0.5 if numbers else 0.24
    figure, ax = draw.open_axes(ax, (2.4 + cell * len(sources), 1.9 + cell * len(readers)))
    draw.heatmap(
        ax, weights, readers, sources, label="weight", cells="{:.2f}" if numbers else None,
        limits=(0, float(np.nanmax(weights))), cmap=draw.SEQUENTIAL, rotation=90, gaps=True,
        colorbar=not numbers,
    )  # fmt: skip
    ax.set(xlabel="from", ylabel="reads")
    ax.set_title("learned weights of earlier layers\n(a row sums to 1)", fontsize=10)
    return figure


def plot_lens(
    values: np.ndarray,
    top_tokens: np.ndarray,
    points: Sequence[str],
    tokens: Sequence[str],
    *,
    value: str,
    title: str,
    xlabel: str,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw what each layer predicts at each position, the last point on top.

    `values` [point pos] are the colour, a key of `LENS_VALUES` names them; `top_tokens` [point pos] are
    written into the cells.
    """
    figure, ax = draw.open_axes(ax, (2.4 + 0.75 * len(tokens), 1.6 + 0.3 * len(points)))
    cells = np.array([[draw.plain(token, 10) for token in row] for row in top_tokens], object)
    limits = {"top_prob": (0, 1), "target_log_prob": (None, 0)}.get(value, (0, None))
    draw.heatmap(
        ax, values, points, [draw.plain(token, 10) for token in tokens], label=LENS_VALUES[value],
        cells=cells, limits=limits, cmap="viridis", rotation=60, fontsize=7,
    )  # fmt: skip
    ax.invert_yaxis()
    ax.set_xlabel(xlabel)
    ax.set_title(title, fontsize=10)
    return figure


def plot_lens_curve(
    points: Sequence[str],
    values: Any,
    low: Any = None,
    high: Any = None,
    *,
    name: str,
    ylabel: str,
    title: str = "",
    signed: bool = False,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw one measure of a lens over layers; several lenses can be drawn into the same axes.

    `signed` measures may be below 0; the axis begins at 0 for the others.
    """
    figure, ax = draw.open_axes(ax, (max(4.5, 1.5 + 0.5 * len(points)), 3.4))
    draw.curve(ax, range(len(points)), values, low, high, marker="o", markersize=4, label=name)
    ax.grid(axis="y", color="0.92")
    draw.dress(ax, title, ylabel=ylabel)
    long = max(map(len, points)) * len(points) > 50
    ax.set_xticks(range(len(points)), points, rotation=60 if long else 0)
    if signed:
        ax.axhline(0, color="0.3", linewidth=0.8, zorder=0)
    else:
        ax.set_ylim(bottom=0)
    draw.legend(ax)
    return figure


def plot_effects(frame: "pd.DataFrame", *, how: str, xlabel: str, ax: "Axes | None" = None) -> "Figure":
    """Draw the effects of ablations as bars with their intervals, the strongest first, 40 at most.

    `frame` has component, change, low, high.
    """
    order = np.argsort(-frame["change"].abs().to_numpy(), kind="stable")[:MOST_BARS]
    rows = frame.iloc[order]
    figure, ax = draw.open_axes(ax, (6, 1 + 0.28 * len(rows)))
    names = [_short_set(name) for name in rows["component"]]
    draw.intervals(ax, names, rows["change"], rows["low"], rows["high"], bars=True, color=draw.LIGHT)
    selection = "" if len(rows) == len(frame) else f"; {len(rows)} strongest of {len(frame)}"
    draw.dress(ax, f"{how} ablation{selection}", xlabel=xlabel)
    return figure


def _short_set(name: str) -> str:
    if len(name) > 32:
        return f"{draw.plain(name[:20])}... ({name.count('+') + 1} components)"
    return draw.plain(name)


def plot_importance(names: Sequence[str], importance: np.ndarray, ax: "Axes | None" = None) -> "Figure":
    """Draw the importance of heads and MLPs by layer, [component] mean |dL / d gate|."""
    grid, rows, columns = layer_map(names, importance)
    figure, ax = draw.open_axes(ax, (max(4.2, 1.9 + 0.55 * len(columns)), 1.2 + 0.45 * len(grid)))
    limits = (0, float(np.nanmax(grid)) or 1.0)
    draw.heatmap(
        ax,
        grid,
        rows,
        columns,
        label="mean |dL / d gate|",
        cells="{:.2g}",
        limits=limits,
        cmap=draw.SEQUENTIAL,
    )
    ax.set_title("importance (Michel et al. 2019), nats", fontsize=10)
    return figure


def plot_pruning(frame: "pd.DataFrame", ax: "Axes | None" = None) -> "Figure":
    """Draw the loss against the fraction of heads pruned, by importance and in random orders.

    `frame` has order (`importance`, `random 0`, ...), share and loss.
    """
    figure, ax = draw.open_axes(ax, (6, 4))
    orders = [(name, part) for name, part in frame.groupby("order", sort=False) if name != "importance"]
    for index, (_, part) in enumerate(orders):
        label = None if index else "random order"
        draw.curve(
            ax, part["share"], part["loss"], color=draw.LIGHT, linewidth=1, linestyle="--", label=label
        )
    part = frame[frame["order"] == "importance"]
    draw.curve(
        ax,
        part["share"],
        part["loss"],
        color=draw.DARK,
        marker="o",
        markersize=4,
        label="least important first",
    )
    draw.dress(ax, xlabel="fraction of heads pruned", ylabel="loss, nats per token")
    draw.legend(ax)
    return figure


def plot_matrix(
    frame: "pd.DataFrame",
    phenomena: Mapping[str, str],
    accuracy: Mapping[str, float],
    components: Sequence[str],
    *,
    method: str,
    how: str,
    title: str,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw components x paradigms: blue helps the grammatical sentence, red the other.

    Cells whose interval includes 0 are faint, cells without an effect (the method does not apply, or no pair
    is usable) are grey. Colours are on an asinh scale, so that small effects are visible next to large ones,
    and end at the 99th percentile of the magnitudes.

    Args:
        frame: one method's rows: paradigm, component, effect (nats), found (the interval excludes 0).
        phenomena, accuracy: of each paradigm, in the order of the rows.
        components: columns to draw if nothing was measured.
        method: a key of `METHODS`.
        how: kind of ablation.
        title: of the plot.
        ax: axes to draw into; a new figure if not set.
    """
    pyplot = draw.need_pyplot()
    names, columns = list(phenomena), list(dict.fromkeys(frame["component"])) or list(components)
    effects, found = (
        frame.pivot(index="paradigm", columns="component", values=value).reindex(index=names, columns=columns)
        for value in ("effect", "found")
    )
    values = effects.to_numpy(float)
    certain = (found == True).to_numpy() | np.isnan(values)  # noqa: E712
    sizes = np.abs(values[~np.isnan(values)])
    limit = float(np.quantile(sizes, 0.99)) if len(sizes) else 1.0
    limit = limit or float(sizes.max(initial=0.0)) or 1.0
    figure, ax = draw.open_axes(ax, (5.4 + 0.24 * len(columns), 2.2 + max(0.19 * len(names), 1.2)))
    rows = [
        f"{draw.plain(name.removeprefix('embedded_'), 46)}  {100 * accuracy[name]:3.0f} %" for name in names
    ]
    norm = pyplot.matplotlib.colors.AsinhNorm(linear_width=limit / 10, vmin=-limit, vmax=limit)
    image = draw.heatmap(
        ax, values, rows, columns, norm=norm, opacity=np.where(certain, 1.0, UNCERTAIN), rotation=90,
        colorbar=False, fontsize=7, most_ticks=1000,
    )  # fmt: skip
    start = 0
    for phenomenon, group in groupby(phenomena.values()):
        stop = start + len(list(group))
        if start:
            ax.axhline(start - 0.5, color=draw.GREY, linewidth=0.6)
        ax.text(
            len(columns) - 0.3,
            (start + stop - 1) / 2,
            draw.plain(phenomenon),
            fontsize=7,
            va="center",
            color=draw.INK,
        )
        start = stop
    for column, (last, name) in enumerate(pairwise(columns)):
        if name_layer(last) != name_layer(name):
            ax.axvline(column + 0.5, color=draw.GREY, linewidth=0.6)
    ax.set_title(
        f"{title}\n{METHODS[method].format(how=how)}; next to each paradigm: accuracy",
        fontsize=9,
        color=draw.INK,
    )
    bar = draw.add_colorbar(
        image, ax, "nats for the grammatical sentence (faint: interval includes 0)",
        extend="both" if sizes.max(initial=0.0) > limit else "neither",
        orientation="horizontal", shrink=0.6, aspect=45, pad=0.03,
    )  # fmt: skip
    bar.solids.set_alpha(1.0)
    ticks = [fraction * limit for fraction in (-1, -0.3, -0.1, 0, 0.1, 0.3, 1)]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.ax.minorticks_off()
    return figure


def plot_family(
    frame: "pd.DataFrame", depths: "pd.DataFrame", *, title: str, axes: "Axes | Sequence[Axes] | None" = None
) -> "Figure":
    """Draw how concentrated effects are in each model of a family, and how deep in the model they are.

    `frame` has run, rank and cumulative (fraction of all effects); `depths` has run, kind (`head` or `mlp`),
    from, to and share.
    """
    pyplot = draw.need_pyplot()
    figure, (left, right) = draw.open_panels(axes, 2, (5.2, 3.8))
    curves: Any = frame.groupby(["run", "rank"], sort=False)["cumulative"].mean()
    starts = sorted(depths["from"].unique())
    runs = list(dict.fromkeys(frame["run"]))
    width = 0.8 / len(runs)
    for index, run in enumerate(runs):
        color = draw.PALETTE[index % len(draw.PALETTE)]
        line = curves[run].sort_index()
        fractions = np.arange(len(line) + 1) / len(line)
        draw.curve(
            left, fractions, [0, *line], color=color, label=f"{draw.plain(run)} ({len(line)})", linewidth=1.8
        )
        below = np.zeros(len(starts))
        places = np.arange(len(starts)) - 0.4 + width * (index + 0.5)
        for kind, hatch in (("head", None), ("mlp", "///")):
            part: Any = depths[(depths["run"] == run) & (depths["kind"] == kind)]
            heights = part.sort_values("from")["share"].to_numpy()
            right.bar(
                places, heights, width * 0.92, below, color=color, hatch=hatch, edgecolor="white", linewidth=0
            )
            below += heights
    for fraction in (0.5, 0.9):
        left.axhline(fraction, color="0.75", linewidth=0.8, linestyle="--", zorder=0)
    ylabel = "fraction of all effects"
    draw.dress(
        left,
        title,
        xlabel="fraction of the components, strongest first",
        ylabel=ylabel,
        xlim=(0, 1),
        ylim=(0, 1),
    )
    draw.legend(left, title="run (components)", loc="lower right")
    draw.dress(right, xlabel="relative depth: 0 first block, 1 last", ylabel=ylabel)
    labels = [f"{start:.2g} to {end:.2g}" for start, end in zip(starts, [*starts[1:], 1.0], strict=True)]
    right.set_xticks(range(len(starts)), labels)
    handles = [
        pyplot.Rectangle((0, 0), 1, 1, facecolor="0.6", edgecolor="white", hatch=hatch)
        for hatch in (None, "///")
    ]
    draw.legend(right, handles=handles, labels=["heads", "MLPs"])
    return figure


def plot_history(
    frame: "pd.DataFrame",
    *,
    method: str,
    paradigms: Sequence[str] | None = None,
    top: int = 5,
    axes: "Axes | Sequence[Axes] | None" = None,
) -> "Figure":
    """Draw components' effects with their intervals over training, a panel for each paradigm.

    The accuracy is dotted, on the right axis.

    Args:
        frame: step, paradigm, component, kind, effect, low, high, accuracy.
        method: how effects were measured.
        paradigms: which; by default the twelve with the highest accuracy at the end.
        top: lines in a panel: the components that are strongest at the end.
        axes: as many axes as paradigms; a new figure if not set.

    Raises:
        InputError: no such paradigm.
    """
    known = list(dict.fromkeys(frame["paradigm"]))
    steps = np.unique(frame["step"])
    last = frame[frame["step"] == steps[-1]]
    if paradigms is None:
        accuracy: Any = last.groupby("paradigm", sort=False)["accuracy"].first()
        best = set(accuracy.sort_values(ascending=False, kind="stable").index[:MOST_PANELS])
        paradigms = [name for name in known if name in best]
    for name in paradigms:
        if name not in known:
            raise InputError(f"no paradigm is called {name!r} here. {nearest(name, known)}")
    figure, panels = draw.open_panels(axes, len(paradigms), (4.2, 2.6), 3, sharex=True)
    for panel, paradigm in zip(panels, paradigms, strict=True):
        part: Any = frame[(frame["paradigm"] == paradigm) & frame["kind"].isin(["head", "mlp"])]
        end = part[part["step"] == steps[-1]]
        order = np.argsort(-end["effect"].abs().to_numpy(), kind="stable")[:top]
        for index, component in enumerate(end["component"].iloc[order]):
            color = draw.PALETTE[index % len(draw.PALETTE)]
            line = part[part["component"] == component].sort_values("step")
            draw.curve(
                panel, line["step"], line["effect"], line["low"], line["high"], color=color, linewidth=1.5,
                label=component, marker=".", markersize=4, band=0.15,
            )  # fmt: skip
        panel.axhline(0, color=draw.GREY, linewidth=0.7)
        if steps[0] < 1:
            panel.set_xscale("symlog", linthresh=1)
        right = panel.twinx()
        accuracy = part.groupby("step")["accuracy"].first()
        right.plot(accuracy.index, accuracy, ":", color="black", linewidth=1)
        right.set_ylim(0, 1)
        right.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"], fontsize=6, color="0.4")
        draw.dress(panel, xlim=(steps[0], steps[-1]))
        if steps[0] >= 1:
            draw.log_ticks(panel, "x")
        panel.set_title(draw.plain(paradigm.removeprefix("embedded_"), 44), fontsize=8)
        panel.tick_params(labelsize=7)
        right.spines["top"].set_visible(False)
        draw.legend(panel, fontsize=6.5, loc="upper left")
    figure.supylabel("nats for the grammatical sentence", fontsize=9)
    figure.supxlabel(f"step; effect: {method}; dotted: accuracy", fontsize=9)
    return figure


def plot_circuit(
    path: "pd.DataFrame",
    checks: "pd.DataFrame",
    random_accuracy: np.ndarray,
    *,
    target: float,
    title: str,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw accuracy against the number of components kept: the search for a circuit and its controls.

    Args:
        path: direction (`backward`, `forward`), parts, accuracy (on the pairs that the circuit was chosen
            on), held_accuracy.
        checks: set (`whole`, `circuit`, `complement`), parts, accuracy on held-out pairs.
        random_accuracy: [draw] of random sets of the circuit's size.
        target: accuracy that the circuit has to keep.
        title: of the plot.
        ax: axes to draw into; a new figure if not set.
    """
    figure, ax = draw.open_axes(ax, (6.8, 4.2))
    for direction, verb, color in (("backward", "removing", draw.DARK), ("forward", "adding", draw.LIGHT)):
        part = path[path["direction"] == direction]
        if len(part):
            draw.curve(
                ax, part["parts"], part["accuracy"], color=color, linewidth=1, linestyle="--", marker="."
            )
            label = f"{verb}, held out"
            draw.curve(
                ax, part["parts"], part["held_accuracy"], color=color, marker="o", markersize=4, label=label
            )
    sets = checks.set_index("set")
    parts, accuracy = sets["parts"].astype(int), sets["accuracy"]
    ax.plot([], [], color=draw.GREY, linewidth=1, linestyle="--", label="pairs it was chosen on")
    ax.axhline(target, color=draw.GREY, linewidth=0.8, label="target")
    ax.axhline(0.5, color=draw.GREY, linewidth=0.8, linestyle=":", label="chance")
    if len(random_accuracy):
        places = [parts["circuit"]] * len(random_accuracy)
        ax.plot(places, random_accuracy, "_", color=draw.GREY, markersize=9, label="random sets")
    ax.plot(
        parts["complement"], accuracy["complement"], "x", color=draw.NEGATIVE, label="without the circuit"
    )
    ax.plot(
        parts["circuit"],
        accuracy["circuit"],
        "*",
        color=draw.ACCENT,
        markersize=14,
        label="circuit, held out",
        zorder=3,
    )
    draw.dress(ax, title, xlabel="heads and MLPs kept", ylabel="accuracy", xlim=(-0.4, parts["whole"] + 0.4))
    ax.locator_params(axis="x", integer=True)
    draw.legend(ax, outside=True)
    return figure

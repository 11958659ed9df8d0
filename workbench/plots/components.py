"""A circuit's accuracy against its size: the way to the smallest one, and its controls."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError, nearest
from workbench.plots.primitives import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.ablation import AblationResult
    from workbench.interp.attribution import LayerWeights, LogitAttribution, PairAttribution, TextAttribution
    from workbench.interp.circuit import SmallestCircuit
    from workbench.interp.importance import Importance, PruningCurve
    from workbench.interp.matrix import ComponentFamily, ComponentHistory, ComponentMatrix


# Figures of direct attributions: blue helps the grammatical sentence, red the other.


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


# Figures of ablations: effects with intervals, importance by layer and head, pruning curves.


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


# Direct logit attribution as bars.


FOR, AGAINST = "#2166ac", "#b2182b"
"""The ends of `contributions.COLOURS`."""


def plot_logits(found: "LogitAttribution", ax: Any = None, count: int = 20) -> Any:
    """The largest mean contributions, the largest on top; whiskers are intervals over prompts.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    top = found.top(count)
    if ax is None:
        _, ax = pyplot.subplots(figsize=(6, 1.4 + 0.24 * len(top)), layout="constrained")
    means = top["mean"].to_numpy()
    several = len(found.prompts) > 1
    spread = (means - top["low"], top["high"] - means) if several else None
    ax.barh(
        range(len(top)),
        means,
        xerr=spread,
        color=[FOR if value > 0 else AGAINST for value in means],
        error_kw={"ecolor": "0.35", "capsize": 2, "lw": 1},
    )
    ax.set_yticks(range(len(top)), top["component"], fontsize=8)
    ax.invert_yaxis()
    ax.axvline(0, color="0.3", lw=0.8)
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    answer = repr(found.right[0]) + ("" if found.wrong is None else f" − {found.wrong[0]!r}")
    over = f", mean of {len(found.prompts)} prompts" if several else ""
    ax.set_title(
        f"{found.quantity} {answer}: {found.logits.mean():+.2f}{over}", fontsize=10, parse_math=False
    )
    left = len(found.components) - len(top)
    ax.set_xlabel(
        "direct contribution, norms' scales frozen" + (f" ({left:,} smaller ones not shown)" if left else "")
    )
    return ax


# A figure of the learned weights of a residual stream over earlier layers.


MOST_NUMBERS = 16
"""Beyond so many sources the cells have no room for numbers."""


def plot_layer_weights(found: "LayerWeights", ax: Any = None) -> Any:
    """Reader x source, the embedding first, with the weights in the cells as far as there is room.

    Args:
        found: what `layer_weights` gave.
        ax: matplotlib axes to draw on; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    rows, columns = found.weights.shape
    numbers = columns <= MOST_NUMBERS
    if ax is None:
        cell = 0.5 if numbers else 0.24
        _, ax = pyplot.subplots(figsize=(2.2 + cell * columns, 1.9 + cell * rows), layout="constrained")
    top = float(np.nanmax(found.weights))
    image = ax.imshow(found.weights, cmap="Blues", vmin=0, vmax=top)
    if numbers:
        for (row, column), value in np.ndenumerate(found.weights):
            if not np.isnan(value):
                shade = "white" if value > 0.6 * top else "#1b222c"
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=shade)
    ax.set_xticks(range(columns), found.sources, rotation=90)
    ax.set_yticks(range(rows), found.readers)
    ax.set(xlabel="from", ylabel="reads")
    ax.set_title("learned weights of earlier layers\n(a row sums to 1)", fontsize=10)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    # White lines between the cells.
    ax.set_xticks(np.arange(0.5, columns - 1), minor=True)
    ax.set_yticks(np.arange(0.5, rows - 1), minor=True)
    ax.grid(which="minor", color="white", linewidth=1.5)
    ax.tick_params(which="minor", length=0)
    if not numbers:
        ax.figure.colorbar(image, ax=ax, label="weight", shrink=0.8).outline.set_visible(False)
    return ax


# Components x paradigms as a heat map: blue helps the grammatical sentence, red the other.


WHAT = {
    "direct": "direct attribution",
    "ablate": "lost without it ({how} ablation)",
    "patch": "lost when the two sentences exchange it",
    "noise": "lost by the good sentence with the bad one's",
    "denoise": "gained by the bad sentence with the good one's",
    "gradient": "lost without it, to first order ({how} ablation)",
}
FAINT = 0.35
"""Opacity of cells whose interval includes 0."""
INK, RULE = "#1b222c", "#8a94a3"


def plot_matrix(matrix: "ComponentMatrix", ax: Any = None, method: str | None = None) -> Any:
    """A row for each paradigm, phenomena apart; cells whose interval includes 0 are faint, and those without
    an effect (a method does not apply, or no pair is usable) grey. Colours are symmetric, on an asinh scale,
    so that small effects show beside large ones, and end at the 99th percentile of the effects' sizes.

    Args:
        matrix: what `component_matrix` gave.
        ax: matplotlib axes; new ones if not set.
        method: one of the matrix's; its first if not set.

    Returns:
        The axes.

    Raises:
        InputError: no such method, or matplotlib is not installed.
    """
    pyplot = need_pyplot()
    method = matrix.methods[0] if method is None else method
    values = matrix.effect(method)
    known = [index for index, column in enumerate(values.T) if not np.isnan(column).all()]
    columns = known or [index for index, c in enumerate(matrix.components) if c.kind in ("head", "mlp")]
    values = values[:, columns]
    found = (
        matrix.to_frame()
        .query("method == @method")
        .pivot(index="paradigm", columns="component", values="found")
    )
    labels = [matrix.labels[index] for index in columns]
    certain = found.reindex(index=list(matrix.paradigms), columns=labels).to_numpy() == True  # noqa: E712
    sizes = np.abs(values[~np.isnan(values)])
    limit = float(np.quantile(sizes, 0.99)) if len(sizes) else 1.0
    limit = limit or float(sizes.max(initial=0.0)) or 1.0
    height, width = values.shape
    if ax is None:
        size = (4.9 + 0.24 * width, 1.5 + max(0.19 * height, 1.6))
        _, ax = pyplot.subplots(figsize=size, layout="constrained")
    colours = pyplot.get_cmap(COLOURS).with_extremes(bad="0.87")
    scale = pyplot.matplotlib.colors.AsinhNorm(linear_width=limit / 10, vmin=-limit, vmax=limit)
    image = ax.imshow(
        np.ma.masked_invalid(values), cmap=colours, norm=scale, aspect="auto", interpolation="nearest",
        alpha=np.where(certain | np.isnan(values), 1.0, FAINT),
    )  # fmt: skip
    names = list(matrix.paradigms)
    shares = [f"{_short_component_matrix(name)}  {100 * matrix.accuracy[name]:3.0f} %" for name in names]
    ax.set_yticks(range(height), shares, fontsize=7, color=INK)
    ax.set_xticks(range(width), labels, rotation=90, fontsize=7, color=INK)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    start = 0
    for phenomenon, group in groupby(matrix.phenomenon.values()):
        stop = start + len(list(group))
        if start:
            ax.axhline(start - 0.5, color=RULE, linewidth=0.6)
        ax.text(width - 0.3, (start + stop - 1) / 2, phenomenon, fontsize=7, va="center", color=INK)
        start = stop
    layers = [matrix.components[index].layer for index in columns]
    for column in range(1, width):
        if layers[column] != layers[column - 1]:
            ax.axvline(column - 0.5, color=RULE, linewidth=0.6)
    title = WHAT[method].format(how=matrix.how)
    ax.set_title(
        f"{matrix.title}\n{title}; right of each paradigm: pairs decided rightly", fontsize=9, color=INK
    )
    extend = "both" if sizes.max(initial=0.0) > limit else "neither"
    place = dict(orientation="horizontal", shrink=0.6, aspect=45, pad=0.01)
    bar = ax.figure.colorbar(
        image,
        ax=ax,
        label="nats for the grammatical sentence (faint: interval includes 0)",
        extend=extend,
        **place,
    )
    bar.outline.set_visible(False)
    bar.solids.set_alpha(1.0)
    ticks = [share * limit for share in (-1, -0.3, -0.1, 0, 0.1, 0.3, 1)]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=7, length=2)
    bar.ax.xaxis.label.set_size(8)
    return ax


def _short_component_matrix(name: str, most: int = 46) -> str:
    name = name.removeprefix("embedded_")
    return name if len(name) <= most else f"{name[: most - 3]}..."


# Figures of a family of models: how many components carry a paradigm, and where they lie.


COLOURS_COMPONENT_FAMILY = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8c8c8c",
    "#1b222c",
)
"""Okabe and Ito's, told apart by colour-blind readers, and two greys; they come again after eight runs."""


def plot_family(family: "ComponentFamily", ax: Any = None) -> Any:
    """Left, the cumulative share of the components in the order of their rank, the mean over paradigms;
    right, the share of each part of the depth, MLPs hatched.

    Args:
        family: what `component_family` gave.
        ax: two matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    if ax is None:
        _, ax = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    curves = family.to_frame().groupby(["run", "rank"], sort=False).cumulative.mean()
    depths = family.depths()
    starts = sorted(depths["from"].unique())
    bar = 0.8 / len(family.runs)
    for index, run in enumerate(family.runs):
        colour = COLOURS_COMPONENT_FAMILY[index % len(COLOURS_COMPONENT_FAMILY)]
        line = curves[run].sort_index()
        count = len(line)
        ax[0].plot(
            np.arange(count + 1) / count, [0, *line], color=colour, label=f"{run} ({count})", linewidth=1.8
        )
        below = np.zeros(len(starts))
        for kind, hatch in (("head", None), ("mlp", "///")):
            mine = depths.query(f"run == @run and kind == {kind!r}").sort_values(by="from").share.to_numpy()
            places = np.arange(len(starts)) - 0.4 + bar * (index + 0.5)
            ax[1].bar(
                places, mine, bar * 0.92, below, color=colour, hatch=hatch, edgecolor="white", linewidth=0
            )
            below += mine
    for share in (0.5, 0.9):
        ax[0].axhline(share, color="0.75", linewidth=0.8, linestyle="--", zorder=0)
    ax[0].set(
        xlabel="share of the components, strongest first",
        ylabel="share of all effects",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    ax[0].legend(title="run (components)", frameon=False, fontsize=8, title_fontsize=8, loc="lower right")
    ends = [*starts[1:], 1.0]
    ax[1].set_xticks(
        range(len(starts)), [f"{start:.2g} to {end:.2g}" for start, end in zip(starts, ends, strict=True)]
    )
    ax[1].set(xlabel="relative depth: 0 first block, 1 last", ylabel="share of all effects")
    handles = [
        pyplot.Rectangle((0, 0), 1, 1, facecolor="0.6", edgecolor="white", hatch=h) for h in (None, "///")
    ]
    ax[1].legend(handles, ["heads", "MLPs"], frameon=False, fontsize=8)
    for panel in ax:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    ax[0].set_title(f"{family.method}, mean over {len(family.matrices[0].paradigms)} paradigms", fontsize=9)
    return ax


# Figures of components over training.


MOST_PANELS, IN_A_ROW = 12, 3


def plot_history(
    history: "ComponentHistory", ax: Any = None, paradigms: Sequence[str] | None = None, top: int = 5
) -> Any:
    """Effects with their intervals over training, on a logarithmic axis from step 1 on; accuracy dotted, on
    the right.

    Args:
        history: what `component_history` gave.
        ax: as many matplotlib axes as paradigms; new ones if not set.
        paradigms: which; by default the twelve of the greatest accuracy at the end.
        top: lines in a panel: the components that are strongest at the end.

    Returns:
        The axes.

    Raises:
        InputError: no such paradigm, or matplotlib is not installed.
    """
    pyplot = need_pyplot()
    frame, last = history.to_frame(), history.matrices[-1]
    if paradigms is None:
        best = sorted(history.paradigms, key=lambda name: -last.accuracy[name])[:MOST_PANELS]
        paradigms = [name for name in history.paradigms if name in best]
    for name in paradigms:
        if name not in history.paradigms:
            raise InputError(f"no paradigm is called {name!r} here. {nearest(name, history.paradigms)}")
    if ax is None:
        across = min(IN_A_ROW, len(paradigms))
        down = math.ceil(len(paradigms) / across)
        _, made = pyplot.subplots(
            down, across, figsize=(4.2 * across, 2.6 * down), layout="constrained", squeeze=False, sharex=True
        )
        for spare in made.ravel()[len(paradigms) :]:
            spare.set_visible(False)
        ax = made.ravel()[: len(paradigms)]
    steps = history.steps
    for panel, paradigm in zip(ax, paradigms, strict=True):
        mine = frame.query("paradigm == @paradigm and kind in ('head', 'mlp')")
        end = mine.query("step == @steps[-1]")
        strongest = end.component.to_numpy()[np.argsort(-end.effect.abs().to_numpy(), kind="stable")[:top]]
        for index, component in enumerate(strongest):
            line = mine.query("component == @component").sort_values(by="step")
            colour = COLOURS_COMPONENT_FAMILY[index % len(COLOURS_COMPONENT_FAMILY)]
            panel.plot(
                line.step, line.effect, color=colour, linewidth=1.5, label=component, marker=".", markersize=4
            )
            panel.fill_between(line.step, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        panel.axhline(0, color="0.6", linewidth=0.7)
        panel.set_xscale("symlog", linthresh=1)
        panel.set_xlim(0, steps[-1])
        other = panel.twinx()
        other.plot(
            steps, [matrix.accuracy[paradigm] for matrix in history.matrices], ":", color="black", linewidth=1
        )
        other.set_ylim(0, 1)
        other.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"], fontsize=6, color="0.4")
        panel.set_title(paradigm.removeprefix("embedded_"), fontsize=8)
        panel.tick_params(labelsize=7)
        panel.legend(frameon=False, fontsize=6.5, loc="upper left")
        for one in (panel, other):
            one.spines["top"].set_visible(False)
            one.tick_params(length=2)
    ax[0].set_ylabel("nats for the grammatical sentence", fontsize=8)
    ax[0].figure.supxlabel(f"step; effect: {history.method}; dotted: pairs decided rightly", fontsize=9)
    return ax


DARK_SMALLEST_CIRCUIT, LIGHT_SMALLEST_CIRCUIT, GREY = "#33526e", "#7ba0c4", "0.6"


def plot_smallest_circuit(found: "SmallestCircuit", ax: Any = None) -> Any:
    """Accuracy against the number of parts kept, on the pairs that the set was chosen on (dashed) and on
    held-out ones; the circuit, random sets of its size, and the model without it. Returns the axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    if ax is None:
        _, ax = pyplot.subplots(figsize=(6.5, 4), layout="constrained")
    frame, half, size = found.curve(), found.held_out, len(found.kept)
    for direction, colour in (("backward", DARK_SMALLEST_CIRCUIT), ("forward", LIGHT_SMALLEST_CIRCUIT)):
        mine = frame[frame.direction == direction]
        if len(mine):
            way = "taking out" if direction == "backward" else "putting in"
            ax.plot(mine.parts, mine.accuracy, color=colour, linewidth=1, linestyle="--", marker=".")
            ax.plot(
                mine.parts,
                mine.held_accuracy,
                color=colour,
                marker="o",
                markersize=4,
                label=f"{way}, held out",
            )
    ax.plot([], [], color=GREY, linewidth=1, linestyle="--", label="chosen on")
    ax.axhline(found.target, color=GREY, linewidth=0.8)
    ax.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    ax.text(len(found.parts), found.target, "target ", ha="right", va="bottom", fontsize=8, color="0.4")
    if len(half.random):
        ax.plot(
            [size] * len(half.random),
            half.random_accuracy,
            "_",
            color=GREY,
            markersize=9,
            label="random sets",
        )
    ax.plot(
        len(found.parts) - size,
        half.accuracy("complement"),
        "x",
        color="#b5493b",
        label="without the circuit",
    )
    ax.plot(
        size,
        half.accuracy("circuit"),
        "*",
        color="#e0a030",
        markersize=14,
        label="circuit, held out",
        zorder=3,
    )
    ax.set(xlabel="heads and MLPs kept", ylabel="accuracy", xlim=(-0.4, len(found.parts) + 0.4))
    ax.xaxis.get_major_locator().set_params(integer=True)
    names = ", ".join(found.names[:6]) + (", ..." if size > 6 else "")
    ax.set_title(f"{names or 'nothing is needed'} ({found.how} ablation of the others)", fontsize=10)
    ax.legend(frameon=False, fontsize=8)
    return ax

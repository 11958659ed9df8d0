"""Plots of evaluations: minimal pairs, comparisons of runs, and the measurements of `workbench tune`."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots import primitives as draw

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELLED = 14
"""With more rows their names are not written next to the points."""
YLABELS = {
    "loss": "validation loss, nats per token",
    "blimp": "minimal pairs, % correct",
    "ms": "ms per token, batch 1, one thread",
}


def plot_comparison(
    rows: "pd.DataFrame",
    places: Mapping[str, float],
    xlabel: str,
    axes: "Axes | Sequence[Axes] | None" = None,
) -> "Figure":
    """Draw loss, minimal pairs and milliseconds of each row over what varies, with intervals over seeds.

    Args:
        rows: indexed by row: loss, blimp, ms, ms_int8, each perhaps with `_low` and `_high`; measures without
            any value are not drawn.
        places: of each row on the x axis.
        xlabel: what varies; `parameters` where no single setting does.
        axes: as many axes as measures with a value; a new figure if not set.
    """
    measures = [name for name in YLABELS if rows[name].notna().to_numpy().any()]
    figure, panels = draw.open_panels(axes, len(measures), (4.6, 3.8))
    order = sorted(rows.index, key=places.__getitem__)
    rows, x = rows.loc[order], np.array([places[row] for row in order])
    ordered = xlabel != "parameters"
    for panel, measure in zip(panels, measures, strict=True):
        scale = 100.0 if measure == "blimp" else 1.0
        series = {"ms": "float32", "ms_int8": "int8"} if measure == "ms" else {measure: None}
        for (column, label), color in zip(series.items(), draw.PALETTE, strict=False):
            y = scale * rows[column].to_numpy(float)
            if ordered:
                panel.plot(x, y, color=color, linewidth=1, alpha=0.5, zorder=1)
            panel.scatter(x, y, color=color, s=26, label=label, zorder=3)
            if f"{column}_low" in rows:
                ends = [scale * rows[f"{column}_{end}"].to_numpy(float) for end in ("low", "high")]
                panel.vlines(x, ends[0], ends[1], color=color, linewidth=1.6, zorder=2)
        draw.dress(panel, ylabel=YLABELS[measure])
        if not ordered and len(order) <= LABELLED and measure != "ms":
            for place, value, name in zip(x, scale * rows[measure], order, strict=True):
                panel.annotate(
                    draw.plain(name), (place, value), (4, 3), textcoords="offset points", fontsize=6.5
                )
        if measure == "blimp":
            panel.axhline(50, color=draw.GREY, linestyle="--", linewidth=0.8, zorder=0, label="chance")
            panel.set_ylim(bottom=min(panel.get_ylim()[0], 49))
            draw.legend(panel)
        if measure == "ms":
            panel.set_ylim(bottom=0)
            draw.legend(panel)
        _x_axis(panel, x, xlabel)
    return figure


def _x_axis(ax: "Axes", x: np.ndarray, label: str) -> None:
    """Place ticks at the rows themselves, thinned out where their labels would touch."""
    from matplotlib.ticker import NullLocator

    ax.margins(x=0.12)
    log = label == "parameters" or bool(x.min() > 0 and x.max() / x.min() > 3)
    if log:
        ax.set_xscale("log")
    ax.set_xlabel(draw.plain(label))
    ends = np.array(ax.get_xlim())
    low, high = np.log(ends) if log else ends
    fractions, kept = ((np.log(x) if log else x) - low) / ((high - low) or 1.0), []
    for index in np.argsort(fractions):
        if not kept or fractions[index] - fractions[kept[-1]] > 0.11:
            kept.append(index)
    ax.set_xticks(x[kept], [draw.short_number(value) for value in x[kept]])
    ax.xaxis.set_minor_locator(NullLocator())


def plot_phenomena(
    table: "pd.DataFrame", order: Sequence[str], ordered: bool, ax: "Axes | None" = None
) -> "Figure":
    """Draw minimal pairs by phenomenon, a dot with its interval over seeds for each row.

    `table` has row, phenomenon, accuracy, low and high; `ordered` rows are coloured from light to dark.
    """
    means: Any = table.groupby("phenomenon")["accuracy"].mean()
    names = list(means.sort_values().index)
    height = max(3.0, 0.24 * len(names) * max(1.0, len(order) / 4) + 1.2)
    figure, ax = draw.open_axes(ax, (8.6, height))
    step = 0.72 / max(1, len(order))
    for index, (row, color) in enumerate(zip(order, _colors(len(order), ordered), strict=True)):
        part = table[table["row"] == row].set_index("phenomenon")
        if not len(part):
            continue
        y = np.array([names.index(name) for name in part.index]) + 0.36 - step * (index + 0.5)
        ax.scatter(100 * part["accuracy"], y, s=18, color=color, label=draw.plain(row), zorder=3)
        ax.hlines(y, 100 * part["low"], 100 * part["high"], color=color, linewidth=1.3, zorder=2)
    for line in np.arange(len(names) - 1) + 0.5:
        ax.axhline(line, color="0.92", linewidth=0.8, zorder=0)
    ax.axvline(50, color=draw.GREY, linestyle="--", linewidth=0.9, zorder=1, label="chance")
    ax.set_yticks(range(len(names)), [draw.plain(name.replace("_", " ")) for name in names])
    draw.dress(ax, xlabel="% correct", ylim=(-0.6, len(names) - 0.4))
    draw.legend(ax, outside=True)
    return figure


def plot_losses(
    table: "pd.DataFrame", order: Sequence[str], ordered: bool, ax: "Axes | None" = None
) -> "Figure":
    """Draw the validation loss over the tokens read, a line for each run, coloured by row.

    `table` has row, run, tokens and loss; `order` and `ordered` as in `plot_phenomena`.
    """
    figure, ax = draw.open_axes(ax, (8.6, 4.2))
    for row, color in zip(order, _colors(len(order), ordered), strict=True):
        for index, (_, part) in enumerate(table[table["row"] == row].groupby("run")):
            label = None if index else draw.plain(row)
            draw.curve(ax, part["tokens"], part["loss"], color=color, linewidth=1.2, alpha=0.85, label=label)
    draw.dress(ax, xlabel="tokens read", ylabel="validation loss, nats per token")
    ax.xaxis.set_major_formatter(lambda value, _: draw.short_number(value))
    draw.legend(ax, outside=True)
    return figure


def _colors(count: int, ordered: bool) -> list[Any]:
    return draw.shades(count) if ordered or count > len(draw.PALETTE) else list(draw.PALETTE[:count])


def plot_blimp(frame: "pd.DataFrame", *, title: str, ax: "Axes | None" = None) -> "Figure":
    """Draw the accuracy on each phenomenon (accuracy, low, high); the last row is the mean."""
    figure, ax = draw.open_axes(ax, (7, 1.2 + 0.32 * len(frame)))
    colors = [draw.LIGHT] * (len(frame) - 1) + [draw.DARK]
    names = [draw.plain(str(name)) for name in frame.index]
    draw.intervals(
        ax, names, frame["accuracy"], frame["low"], frame["high"], bars=True, color=colors, reference=None
    )
    ax.axvline(0.5, color=draw.NEGATIVE, linewidth=1, linestyle="--", label="chance")
    draw.dress(ax, draw.plain(title), xlim=(0, 1), xlabel="fraction of pairs correct")
    draw.legend(ax, outside=True)
    return figure


def plot_range(
    frame: "pd.DataFrame", steepest: float, knee: float, suggested: float, ax: "Axes | None" = None
) -> "Figure":
    """Draw the losses of a learning-rate range test (rate, loss, smoothed) with three rates marked."""
    figure, ax = draw.open_axes(ax, (5.4, 3.9))
    draw.curve(
        ax, frame["rate"], frame["loss"], color=draw.PALETTE[0], alpha=0.3, linewidth=1, label="each batch"
    )
    draw.curve(ax, frame["rate"], frame["smoothed"], color=draw.PALETTE[0], linewidth=2, label="smoothed")
    ax.axvline(
        steepest, color=draw.GREY, linewidth=1, linestyle=":", label=f"steepest descent, {steepest:.1e}"
    )
    ax.axvline(knee, color=draw.GREY, linewidth=1, linestyle="--", label=f"95 % of the descent, {knee:.1e}")
    ax.axvline(suggested, color=draw.PALETTE[1], linewidth=1.6, label=f"suggested peak, {suggested:.1e}")
    low = min(frame["smoothed"].min(), frame["loss"].min())
    top = frame["smoothed"].iloc[: max(3, len(frame) // 5)].max()
    ax.set_xscale("log")
    ylim = (low - 0.05 * (top - low), top + 0.35 * (top - low))
    draw.dress(ax, "Range test", xlabel="learning rate", ylabel="training loss, nats per token", ylim=ylim)
    draw.legend(ax, loc="lower left")
    return figure


def plot_noise(
    frame: "pd.DataFrame", value: float, low: float, high: float, ax: "Axes | None" = None
) -> "Figure":
    """Draw the gradient-noise scale over steps, each from the steps around it, and that of all steps.

    `frame` has signal and noise at each step; `value`, `low` and `high` are of all steps, in windows.
    """
    figure, ax = draw.open_axes(ax, (5.4, 3.9))
    width = max(3, len(frame) // 5)
    around = frame[["signal", "noise"]].rolling(width, center=True, min_periods=width).mean()
    usable = around[around["signal"] > 0]
    scale: Any = np.maximum(usable["noise"], 0) / usable["signal"]
    draw.curve(ax, scale.index, scale, color=draw.PALETTE[0], linewidth=2, label=f"over {width} steps")
    if math.isfinite(value):
        ax.axhline(value, color=draw.PALETTE[1], linewidth=1.6, label=f"all steps, {value:.0f} windows")
        top = high if math.isfinite(high) else 3 * value
        ax.axhspan(low, top, color=draw.PALETTE[1], alpha=0.15, linewidth=0, label="95 % interval")
        ax.set_ylim(0, max(1.6 * top, 1.1 * scale.to_numpy().max(initial=0.0)))
    draw.dress(ax, "Gradient-noise scale", xlabel="step of the measurement", ylabel="noise scale, windows")
    draw.legend(ax, loc="upper left")
    return figure

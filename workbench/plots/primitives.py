"""Primitives of every plot: heat maps, values with intervals, curves with bands, scatter plots, graphs.

They take arrays, data frames and plain values, draw into matplotlib axes, and know no result class.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#1b222c")
"""Okabe and Ito's colours, distinguishable by colour-blind readers, and two greys; reused after eight."""
DIVERGING, SEQUENTIAL = "RdBu", "Blues"
POSITIVE, NEGATIVE = "#2166ac", "#b2182b"
"""The two ends of `DIVERGING`."""
DARK, LIGHT, ACCENT, GREY, INK = "#33526e", "#7ba0c4", "#d9822b", "0.6", "#1b222c"
NO_VALUE = "0.87"
"""Colour of heat-map cells without a value."""
Number = float | int
LARGEST = 24.0
"""Inches that a figure grows to at most, in either direction."""


def need_pyplot() -> Any:
    """Return matplotlib's pyplot.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        raise InputError("plotting needs matplotlib: pip install 'interp-workbench[notebook]'.") from None
    return pyplot


def new_figure(
    size: tuple[Number, Number], rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Any, Any]:
    """Return a figure and its grid of axes, [rows columns]."""
    pyplot = need_pyplot()
    size = (min(size[0], LARGEST), min(size[1], LARGEST))
    return pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)


def open_axes(ax: "Axes | None", size: tuple[Number, Number]) -> "tuple[Any, Axes]":
    """Return the figure and axes to draw into: the given axes, or those of a new figure of `size` inches."""
    if ax is not None:
        return ax.get_figure(root=True), ax
    figure, grid = new_figure(size)
    return figure, grid[0, 0]


def open_panels(
    axes: "Axes | Sequence[Axes] | np.ndarray | None",
    count: int,
    size: tuple[Number, Number],
    columns: int | None = None,
    **options: Any,
) -> "tuple[Any, list[Axes]]":
    """Return a figure and `count` panels: the given axes, or new ones in a grid of `columns`.

    Args:
        axes: axes to use, also a single one or a grid; None for a new figure.
        count: number of panels.
        size: width and height of one panel in inches.
        columns: panels in a row; all if not set.
        **options: passed on to `pyplot.subplots`, such as `sharex`.
    """
    if axes is not None:
        panels = list(np.ravel(np.asarray(axes, object)))
        return panels[0].get_figure(root=True), panels
    across = min(columns or count, count)
    down = math.ceil(count / across)
    figure, grid = new_figure((size[0] * across, size[1] * down), down, across, **options)
    for unused in grid.ravel()[count:]:
        unused.remove()
    return figure, list(grid.ravel()[:count])


def plain(text: Any, most: int | None = None) -> str:
    """Return text for a label: printable, stripped, no formula, at most `most` characters."""
    visible = "".join(letter if letter.isprintable() else "·" for letter in str(text).strip()) or "␣"
    if most is not None and len(visible) > most:
        visible = visible[: most - 1] + "…"
    return visible.replace("$", r"\$")


def short_number(value: Number) -> str:
    """Return `812`, `1.5k`, `20M`; numbers from 10^14 on as `2e+15`."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if limit <= abs(value) < 1e14:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def dress(ax: "Axes", title: str = "", **labels: Any) -> None:
    """Set title and labels, small ticks, and no frame on top and right.

    Args:
        ax: the axes.
        title: escaped by the caller (see `plain`) where it contains text of a user.
        **labels: passed on to `Axes.set`: xlabel, ylabel, xlim, ylim.
    """
    ax.set(**labels)
    if title:
        ax.set_title(title, fontsize=10, color=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def legend(ax: "Axes", outside: bool = False, **options: Any) -> None:
    """Add a legend without a frame, to the right of the axes if `outside`."""
    place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if outside else {}
    ax.legend(**{"frameon": False, "fontsize": 8, "title_fontsize": 8} | place | options)


def shades(count: int) -> list[Any]:
    """Return `count` colours from light to dark for ordered lines."""
    scale = need_pyplot().get_cmap("viridis")
    return [scale(place) for place in np.linspace(0.88, 0, count)] if count > 1 else [scale(0.25)]


def heatmap(
    ax: "Axes",
    values: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    label: str = "",
    cells: "str | np.ndarray | None" = None,
    limits: tuple[Number | None, Number | None] | None = None,
    cmap: Any = DIVERGING,
    norm: Any = None,
    opacity: Any = 1.0,
    rotation: Number = 0,
    gaps: bool = False,
    colorbar: bool = True,
    fontsize: Number = 8,
    most_ticks: int = 40,
) -> "AxesImage":
    """Draw a matrix as a heat map with a labelled colour bar; cells without a value are grey.

    Args:
        ax: the axes.
        values: [row column], NaN where there is no value.
        rows, columns: tick labels.
        label: of the colour bar.
        cells: what is written into the cells: a format such as `"{:+.2f}"`, or texts [row column].
        limits: of the colour scale; symmetric about 0 and reaching the largest magnitude if not set.
        cmap: a colour map.
        norm: a matplotlib norm, in place of the limits.
        opacity: of the cells: a number, or [row column].
        rotation: of the column labels, degrees.
        gaps: draw white lines between the cells.
        colorbar: draw one.
        fontsize: of tick labels and cells.
        most_ticks: with more rows or columns their labels are thinned out.
    """
    values = np.ma.masked_invalid(np.asarray(values, float))
    if norm is None and limits is None:
        most = float(np.abs(values).max()) if values.count() else 0.0
        limits = (-(most or 1.0), most or 1.0)
    scale: dict[str, Any] = (
        {"norm": norm} if limits is None else dict(zip(("vmin", "vmax"), limits, strict=True))
    )
    colors = need_pyplot().get_cmap(cmap).with_extremes(bad=NO_VALUE)
    image = ax.imshow(values, cmap=colors, aspect="auto", interpolation="nearest", alpha=opacity, **scale)
    if cells is not None:
        for place, value in np.ndenumerate(values.filled(np.nan)):
            missing = bool(np.isnan(value))
            if isinstance(cells, str):
                text = "" if missing else cells.format(value)
            else:
                text = str(cells[place])
            red, green, blue, _ = (1.0, 1.0, 1.0, 1.0) if missing else image.cmap(image.norm(value))
            color = "white" if 0.3 * red + 0.6 * green + 0.1 * blue < 0.5 else INK
            if text:
                ax.text(place[1], place[0], text, ha="center", va="center", fontsize=fontsize, color=color)
    slanted: dict[str, Any] = {"ha": "right", "rotation_mode": "anchor"} if 0 < rotation < 90 else {}
    across, down = (math.ceil(len(labels) / most_ticks) or 1 for labels in (columns, rows))
    places = range(0, len(columns), across)
    ax.set_xticks(places, list(columns)[::across], fontsize=fontsize, rotation=rotation, **slanted)
    ax.set_yticks(range(0, len(rows), down), list(rows)[::down], fontsize=fontsize)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if gaps:
        ax.set_xticks(np.arange(0.5, values.shape[1] - 1), minor=True)
        ax.set_yticks(np.arange(0.5, values.shape[0] - 1), minor=True)
        ax.grid(which="minor", color="white", linewidth=1.5)
        ax.tick_params(which="minor", length=0)
    if colorbar:
        add_colorbar(image, ax, label)
    return image


def add_colorbar(image: "AxesImage", axes: Any, label: str, **options: Any) -> Any:
    """Add a colour bar without a frame next to one or more axes and return it."""
    figure = image.get_figure(root=True)
    assert figure is not None
    first = axes if hasattr(axes, "get_position") else axes[0]
    height = first.get_position().height * figure.get_figheight()
    # The aspect gives the same width in inches for flat and tall axes.
    defaults: dict[str, Any] = {"shrink": 0.85, "pad": 0.02, "aspect": max(6.0, 6 * height)}
    bar = figure.colorbar(image, ax=axes, **defaults | options)
    bar.set_label(label, fontsize=8)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=7, length=2)
    return bar


def intervals(
    ax: "Axes",
    labels: Sequence[str],
    values: Any,
    low: Any = None,
    high: Any = None,
    *,
    bars: bool = False,
    color: Any = None,
    reference: Number | None = 0.0,
) -> None:
    """Draw a row for each value, the first on top: a dot or a bar from 0, with its interval.

    Bars show the size of effects against 0. Where all values lie close to each other and far from 0, such as
    losses, use dots: the axis then covers the values and their intervals only.

    Args:
        ax: the axes.
        labels: of the rows.
        values: [row].
        low, high: [row] ends of the intervals; NaN or None for no interval.
        bars: draw bars from 0 in place of dots.
        color: one colour, or one a row; by sign if not set and bars are drawn.
        reference: where to draw a vertical line; None for none.
    """
    values, rows = np.asarray(values, float), np.arange(len(labels))
    if color is None:
        color = np.where(values < 0, NEGATIVE, POSITIVE) if bars else DARK
    if bars:
        ax.barh(rows, values, color=color, height=0.7)
    else:
        ax.scatter(values, rows, c=color, s=26, zorder=3)
        ax.grid(axis="x", color="0.92")
    if low is not None:
        ax.hlines(rows, low, high, color="0.2" if bars else color, linewidth=1.4, zorder=2)
    if reference is not None:
        ax.axvline(reference, color="0.3", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.set_yticks(rows, list(labels))
    ax.set_ylim(len(rows) - 0.4, -0.6)
    dress(ax)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)


def curve(
    ax: "Axes",
    x: Any,
    y: Any,
    low: Any = None,
    high: Any = None,
    *,
    color: Any = None,
    band: Number = 0.18,
    **style: Any,
) -> None:
    """Draw a line with the band between `low` and `high`; `style` is passed on to `Axes.plot`."""
    (line,) = ax.plot(x, y, color=color, **style)
    if low is not None:
        ax.fill_between(x, low, high, color=line.get_color(), alpha=band, linewidth=0)


def scatter_diagonal(ax: "Axes", x: Any, series: Mapping[str, Any]) -> None:
    """Draw each series [point] over `x` [point], with equal limits and the line on which both are equal."""
    values = np.concatenate([np.asarray(x), *map(np.asarray, series.values())])
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 1.0
    ends = (low - margin, high + margin)
    ax.plot(ends, ends, color=GREY, linewidth=1, zorder=0)
    for (name, y), color in zip(series.items(), PALETTE, strict=False):
        ax.scatter(x, y, s=14, color=color, alpha=0.6, linewidths=0, label=name)
    dress(ax, xlim=ends, ylim=ends)


def graph(
    ax: "Axes",
    nodes: Mapping[str, tuple[Number, Number]],
    edges: Sequence[tuple[str, str, Number, Number]],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Draw nodes and weighted arrows between them; nodes without an edge are pale.

    Args:
        ax: the axes.
        nodes: name to its place.
        edges: from, to, weight, and how far the arrow is bent. Width and opacity follow the weight's
            magnitude, the colour its sign. Later edges are drawn on top.
        notes: small text below a node.
    """
    most = max((abs(weight) for _, _, weight, _ in edges), default=0.0) or 1.0
    for source, target, weight, bend in edges:
        strength = abs(weight) / most
        style = {
            "arrowstyle": "-|>", "connectionstyle": f"arc3,rad={bend}", "shrinkA": 13, "shrinkB": 13,
            "color": POSITIVE if weight > 0 else NEGATIVE, "alpha": 0.25 + 0.75 * strength,
            "linewidth": 0.6 + 3 * strength,
        }  # fmt: skip
        ax.annotate("", nodes[target], nodes[source], arrowprops=style)
    used = {name for source, target, _, _ in edges for name in (source, target)}
    for name, (x, y) in nodes.items():
        edge, ink = ("0.3", "black") if name in used else ("0.85", "0.72")
        box = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": edge}
        ax.text(x, y, name, ha="center", va="center", fontsize=8, color=ink, bbox=box)
    for name, note in (notes or {}).items():
        x, y = nodes[name]
        ax.text(x, y - 0.16, note, ha="center", va="top", fontsize=7, color="0.35")
    ax.axis("off")


def log_ticks(ax: "Axes", which: str = "xy") -> None:
    """Make axes logarithmic with few and plain tick labels; call it after everything is drawn."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    for letter in which:
        getattr(ax, f"set_{letter}scale")("log")
        axis = getattr(ax, f"{letter}axis")
        low, high = sorted(axis.get_view_interval())
        axis.set_minor_formatter(NullFormatter())
        if high / low < 4:
            ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
            axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
            axis.set_minor_locator(FixedLocator([]))
        elif high / low < 200:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        else:
            continue
        axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))

"""Plots of attention heads: scores and classes by layer and head, composition, and token pairs."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots import primitives as draw

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NUMBERS = 12
"""With more heads the cells have no room for numbers."""
CLASS_COLORS = {
    "previous": "#0072b2", "next": "#56b4e9", "self": "#b3a369", "sink": "#8c8c8c", "same_word": "#cc79a7",
    "punctuation": "#f0e442", "name": "#d55e00", "duplicate": "#009e73", "induction": "#e69f00",
    "other": "#ededed",
}  # fmt: skip
"""Okabe and Ito's colours and three quiet ones."""
MARK = "#e66100"


def plot_head_score(
    frame: "pd.DataFrame", score: str, *, most: float | None = None, ax: "Axes | None" = None
) -> "Figure":
    """Draw one score as layer x head; heads of the class of the score are framed.

    `frame` has layer, head, score, value, uniform, untrained, untrained_high and class; the colour scale ends
    at `most`, by default the frame's largest attention score.
    """
    rows = frame[frame["score"] == score]
    grid = rows.pivot(index="layer", columns="head", values="value")
    figure, ax = draw.open_axes(ax, _size(grid.shape))
    signed = score == "copying"
    most = 1.0 if signed else most or color_limit(frame)
    cells = "{:+.2f}" if signed else "{:.2f}"
    draw.heatmap(
        ax, grid, *_names(grid), cells=cells if grid.shape[1] <= MOST_NUMBERS else None, gaps=True,
        limits=(-most if signed else 0, most), cmap=draw.DIVERGING if signed else draw.SEQUENTIAL,
    )  # fmt: skip
    classes = rows.pivot(index="layer", columns="head", values="class").to_numpy()
    frame_style = {"fill": False, "edgecolor": MARK, "linewidth": 2}
    for row, column in zip(*np.nonzero(classes == score.removesuffix("_unigram")), strict=True):
        ax.add_patch(draw.need_pyplot().Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, **frame_style))
    ax.set_title(f"{_words(score)}\n{_baselines(rows)}", fontsize=9, color=draw.INK)
    return figure


def _baselines(rows: Any) -> str:
    """Return what uniform attention and the untrained copy give for one score, for the title."""
    untrained, uniform = float(rows["untrained_high"].max()), float(rows["uniform"].max())
    if rows["score"].iloc[0] == "copying":
        untrained = float(rows["untrained"].max())
        return "OV eigenvalues" + ("" if math.isnan(untrained) else f"; untrained ≤ {untrained:+.2f}")
    if math.isnan(uniform):
        return "not possible in any layer"
    return f"uniform {uniform:.2f}" + ("" if math.isnan(untrained) else f", untrained ≤ {untrained:.2f}")


def plot_head_classes(frame: "pd.DataFrame", ax: "Axes | None" = None) -> "Figure":
    """Draw layer x head, each head in the colour of its class, named as far as there is room."""
    pyplot = draw.need_pyplot()
    grid = frame.drop_duplicates(["layer", "head"]).pivot(index="layer", columns="head", values="class")
    classes, known = grid.to_numpy(), list(CLASS_COLORS)
    indices = np.vectorize(known.index, otypes=[int])(classes)
    roomy = classes.shape[1] <= 6
    figure, ax = draw.open_axes(ax, _size(classes.shape, 0.85))
    draw.heatmap(
        ax, indices, *_names(grid), limits=(0, len(known) - 1),
        cmap=pyplot.matplotlib.colors.ListedColormap(list(CLASS_COLORS.values())),
        cells=np.vectorize(_words, otypes=[object])(classes) if roomy else None, fontsize=7.5,
        gaps=True, colorbar=False,
    )  # fmt: skip
    if not roomy:
        present = [name for name in known if name in classes]
        handles = [pyplot.Rectangle((0, 0), 1, 1, color=CLASS_COLORS[name]) for name in present]
        draw.legend(ax, outside=True, handles=handles, labels=[_words(name) for name in present], fontsize=7)
    ax.set_title("class\n(the score furthest above its baseline)", fontsize=9, color=draw.INK)
    return figure


def plot_head_profile(
    frame: "pd.DataFrame", *, most: float | None = None, ax: "Axes | None" = None
) -> "Figure":
    """Draw the mean attention by distance, a row for each head: layer, head, offset (query - key), value."""
    grid = frame.pivot(index=["layer", "head"], columns="offset", values="value")
    figure, ax = draw.open_axes(ax, (2.4 + 0.3 * grid.shape[1], 1.2 + 0.22 * len(grid)))
    names = [f"L{layer}H{head}" for layer, head in grid.index]
    columns = [str(offset) for offset in grid.columns]
    limits = (0, most or color_limit(frame))
    draw.heatmap(
        ax,
        grid,
        names,
        columns,
        limits=limits,
        cmap=draw.SEQUENTIAL,
        label="attention",
        fontsize=7,
        most_ticks=48,
    )
    ax.set_xlabel("query - key, tokens")
    ax.set_title("attention by distance", fontsize=9, color=draw.INK)
    heads = len(set(frame["head"]))
    for row in range(heads, len(grid), heads):
        ax.axhline(row - 0.5, color="white", linewidth=2)
    return figure


def plot_heads(frame: "pd.DataFrame", profile: "pd.DataFrame", *, title: str, columns: int = 4) -> "Figure":
    """Draw classes, every score and the attention by distance on one page."""
    scores = list(dict.fromkeys(frame["score"]))
    heads = len(set(frame["head"])), len(set(frame["layer"]))
    width, height = _size((heads[1], heads[0]))
    rows = math.ceil((len(scores) + 2) / columns)
    tall = max(height, 0.9 + 0.13 * heads[0] * heads[1])  # the profile's panel has a row for each head
    ratios = {"height_ratios": [height] * (rows - 1) + [tall]}
    size = (columns * width, (rows - 1) * height + tall)
    figure, grid = draw.new_figure(size, rows, columns, gridspec_kw=ratios)
    panels = list(grid.ravel())
    most = max(color_limit(frame), color_limit(profile))
    plot_head_classes(frame, panels.pop(0))
    for score in scores:
        plot_head_score(frame, score, most=most, ax=panels.pop(0))
    for panel in panels:
        panel.remove()
    rest = figure.add_subplot(grid[0, 0].get_gridspec()[-1, columns - len(panels) :])
    plot_head_profile(profile, most=most, ax=rest)
    figure.suptitle(title, fontsize=11, color=draw.INK)
    return figure


def color_limit(frame: "pd.DataFrame") -> float:
    """Return the end of the colour scale that all attention maps of one model share."""
    rows: Any = frame[frame["score"] != "copying"] if "score" in frame else frame
    return float(np.nanmax(rows["value"].to_numpy(float), initial=0.25))


def _size(shape: tuple[int, ...], cell: float = 0.5) -> tuple[float, float]:
    return max(3.2, 1.4 + cell * shape[1]), max(2.0, 1.0 + 0.36 * shape[0])


def _names(grid: "pd.DataFrame") -> tuple[list[str], list[str]]:
    return [f"L{layer}" for layer in grid.index], [f"H{head}" for head in grid.columns]


def _words(name: str) -> str:
    return name.replace("_unigram", ", corpus tokens").replace("_", " ")


def plot_head_kinds(frame: "pd.DataFrame", ax: "Axes | None" = None) -> "Figure":
    """Draw each head's distance from uniform attention, and how much of it two rules explain.

    `frame` has layer, head, kind, measure (`total`, `distance`, `token`), nats, low and high.
    """
    parts = {name: frame[frame["measure"] == name] for name in ("total", "distance", "token")}
    total = parts["total"]
    columns = zip(total["layer"], total["head"], total["kind"], strict=True)
    labels = [f"L{layer}H{head}  {kind}" for layer, head, kind in columns]
    figure, ax = draw.open_axes(ax, (7.2, 1.1 + 0.34 * len(labels)))
    draw.intervals(ax, labels, total["nats"], bars=True, color="#dfe4ea", reference=None)
    for name, shift, color in (
        ("total", 0.0, "#8a94a3"),
        ("distance", -0.2, draw.PALETTE[0]),
        ("token", 0.2, draw.PALETTE[1]),
    ):
        places = np.arange(len(labels)) + shift
        part = parts[name]
        label = "KL from uniform attention" if name == "total" else f"explained by {name} alone"
        ax.scatter(part["nats"], places, color=color, s=18, zorder=3, label=label)
        ax.hlines(places, part["low"], part["high"], color=color, linewidth=1.4)
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_xlabel("nats per query, with 95 % intervals", fontsize=9)
    draw.legend(ax, outside=True)
    return figure


def plot_composition(
    frame: "pd.DataFrame",
    layers: Sequence[int],
    heads: int,
    random: Any,
    axes: "Axes | Sequence[Axes] | None" = None,
) -> "Figure":
    """Draw composition of earlier with later heads above that of random heads, a panel each for Q, K and V.

    `frame` has kind, earlier_layer, earlier_head, later_layer, later_head and value; `random` [kind] is the
    mean composition of random heads.
    """
    writers, readers = (
        [(layer, head) for layer in part for head in range(heads)]
        for part in (layers[: max(len(layers) - 1, 1)], layers[min(len(layers) - 1, 1) :])
    )
    side = max(2.6, 1.2 + 0.16 * len(layers) * heads)
    figure, panels = draw.open_panels(axes, 3, (side + 0.2, side + 0.5))
    values = frame.set_index(["kind", "earlier_layer", "earlier_head", "later_layer", "later_head"])["value"]
    grids = [
        np.array(
            [[values.get((kind, *writer, *reader), np.nan) for reader in readers] for writer in writers],
            float,
        )
        - chance
        for kind, chance in zip("QKV", random, strict=True)
    ]
    most = max(0.05, *(float(np.nanmax(np.abs(grid), initial=0)) for grid in grids))
    names = [[f"L{layer}H{head}" for layer, head in part] for part in (writers, readers)]
    for panel, kind, grid, chance in zip(panels, "QKV", grids, random, strict=True):
        image = draw.heatmap(
            panel,
            grid,
            *names,
            limits=(-most, most),
            cmap="PuOr",
            rotation=90,
            colorbar=False,
            fontsize=7,
            most_ticks=32,
        )
        panel.set(xlabel="reads", ylabel="writes" if kind == "Q" else "")
        panel.set_title(f"{kind}-composition (random {chance:.2f})", fontsize=9, color=draw.INK)
    draw.add_colorbar(image, panels, "above random heads")
    return figure


def plot_token_pairs(frame: "pd.DataFrame", ax: "Axes | None" = None) -> "Figure":
    """Draw the extreme entries of a circuit through the vocabulary: value, row_token, column_token."""
    figure, ax = draw.open_axes(ax, (4.8, 0.9 + 0.22 * len(frame)))
    labels = [
        f"{draw.plain(repr(row))} → {draw.plain(repr(column))}"
        for row, column in zip(frame["row_token"], frame["column_token"], strict=True)
    ]
    draw.intervals(ax, labels, frame["value"], bars=True)
    draw.dress(ax, xlabel="entry of the circuit")
    return figure

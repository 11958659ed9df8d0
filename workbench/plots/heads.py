"""Figures of circuits: composition between heads, and the extreme token pairs of one head."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.primitives import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.head_circuits import Composition, TokenPairs
    from workbench.interp.head_kinds import HeadKinds
    from workbench.interp.heads import HeadScores


# Figures of head scores: layer x head maps, alone or all on one page.


MOST_NUMBERS = 12
"""Beyond so many heads the cells have no room for text."""
CLASS_COLOURS = {
    "previous": "#0072b2", "next": "#56b4e9", "self": "#b3a369", "sink": "#8c8c8c", "same_word": "#cc79a7",
    "punctuation": "#f0e442", "name": "#d55e00", "duplicate": "#009e73", "induction": "#e69f00",
    "other": "#ededed",
}  # fmt: skip
"""Okabe and Ito's, told apart by colour-blind readers, and three quiet ones."""
INK, MARK = "#1b222c", "#e66100"


def plot_score(found: "HeadScores", score: str, ax: Any = None) -> Any:
    """Layer x head, with the numbers in the cells as far as there is room. Heads of that class are framed.

    Args:
        found: what `head_scores` gave.
        score: one of `found.names`, or `copying`.
        ax: matplotlib axes to draw on; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: no such score, or matplotlib is not installed.
    """
    pyplot = need_pyplot()
    values = found.of(score)
    signed = score == "copying"
    if ax is None:
        _, ax = pyplot.subplots(figsize=_size(values), layout="constrained")
    most = 1.0 if signed else _most(found)
    image = ax.imshow(
        np.ma.masked_invalid(values), aspect="auto", cmap="RdBu" if signed else "Blues",
        vmin=-most if signed else 0, vmax=most,
    )  # fmt: skip
    if values.shape[1] <= MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(values):
            text = "" if np.isnan(value) else f"{value:+.2f}" if signed else f"{value:.2f}"
            shade = "white" if abs(value) > 0.6 * most else INK
            ax.text(column, row, text, ha="center", va="center", fontsize=8, color=shade)
    for row, column in zip(*np.nonzero(found.classes == score.removesuffix("_unigram")), strict=True):
        ax.add_patch(
            pyplot.Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor=MARK, linewidth=2)
        )
    ax.set_title(f"{_words(score)}\n{_beside(found, score)}", fontsize=9, color=INK)
    _axes(ax, found, values.shape)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.85, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)
    return ax


def plot_classes(found: "HeadScores", ax: Any = None) -> Any:
    """Layer x head, each head in the colour of its class, with the class's name as far as there is room.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    classes = found.classes
    if ax is None:
        _, ax = pyplot.subplots(figsize=_size(classes, 0.85), layout="constrained")
    colours = [[_rgb(CLASS_COLOURS[name]) for name in row] for row in classes]
    ax.imshow(np.array(colours), aspect="auto")
    roomy = classes.shape[1] <= 6
    if roomy:
        for (row, column), name in np.ndenumerate(classes):
            dark = np.dot(_rgb(CLASS_COLOURS[name]), (0.3, 0.6, 0.1)) < 0.48
            ax.text(
                column,
                row,
                _words(name),
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if dark else INK,
            )
    else:
        present = [name for name in CLASS_COLOURS if name in classes]
        handles = [pyplot.Rectangle((0, 0), 1, 1, color=CLASS_COLOURS[name]) for name in present]
        ax.legend(
            handles,
            map(_words, present),
            fontsize=7,
            frameon=False,
            loc="center left",
            bbox_to_anchor=(1, 0.5),
        )
    ax.set_title("class\n(the score furthest above its baseline)", fontsize=9, color=INK)
    _axes(ax, found, classes.shape)
    return ax


def plot_profile(found: "HeadScores", ax: Any = None) -> Any:
    """Mean attention by distance, a row for each head, the untrained copy's not shown.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    values = found.profile.value
    heads = values.shape[2]
    grid = values.reshape(len(found.offsets), -1).T
    if ax is None:
        size = (2 + 0.3 * grid.shape[1], 1.2 + 0.22 * grid.shape[0])
        _, ax = pyplot.subplots(figsize=size, layout="constrained")
    image = ax.imshow(np.ma.masked_invalid(grid), cmap="Blues", vmin=0, vmax=_most(found), aspect="auto")
    ax.set_xticks(range(len(found.offsets)), found.offsets, fontsize=7)
    if len(grid) <= 48:
        names = [f"L{layer} H{head}" for layer in found.layers for head in range(heads)]
        ax.set_yticks(range(len(grid)), names, fontsize=7)
    ax.set(xlabel="query - key, tokens")
    ax.set_title("attention by distance", fontsize=9, color=INK)
    for row in range(heads, len(grid), heads):
        ax.axhline(row - 0.5, color="white", linewidth=2)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.85, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)
    return ax


def plot_all(found: "HeadScores", columns: int = 4) -> Any:
    """Classes, every score, copying and the distances on one page.

    Returns:
        The figure.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    panels = [*found.names, "copying"]
    rows = math.ceil((len(panels) + 2) / columns)
    width, height = _size(found.copying)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(columns * width, rows * height), layout="constrained", squeeze=False
    )
    places = iter(grid.flat)
    plot_classes(found, next(places))
    for score in panels:
        plot_score(found, score, next(places))
    rest = list(places)
    for ax in rest:
        ax.remove()
    plot_profile(found, figure.add_subplot(grid[0, 0].get_gridspec()[-1, columns - len(rest) :]))
    figure.suptitle(
        f"attention heads on {found.sequences:,} sequences, {found.tokens:,} tokens "
        "(framed: the heads that are called by the score)",
        fontsize=11, color=INK,
    )  # fmt: skip
    return figure


def _most(found: "HeadScores") -> float:
    """The end of the colour scale that all attention maps of one model share."""
    values = [part.value[~np.isnan(part.value)] for part in (found.scores, found.profile)]
    return max(0.25, *(float(part.max()) for part in values if part.size))


def _beside(found: "HeadScores", score: str) -> str:
    """Uniform attention and the untrained copy, in the title's second line."""
    if score == "copying":
        untrained = found.copying_untrained
        return "OV eigenvalues" + (
            "" if np.isnan(untrained).all() else f"; untrained ≤ {untrained.max():+.2f}"
        )
    row = found.index(score)
    uniform, copy = found.scores.uniform[row], found.scores.untrained_high[row]
    if np.isnan(uniform).all():
        return "possible nowhere"
    text = f"uniform {np.nanmax(uniform):.2f}"
    return text if np.isnan(copy).all() else f"{text}, untrained ≤ {np.nanmax(copy):.2f}"


def _axes(ax: Any, found: "HeadScores", shape: tuple[int, ...]) -> None:
    rows, columns = shape
    ax.set_facecolor("0.87")  # shows where a pattern is possible nowhere
    ax.set_yticks(range(rows), [f"L{layer}" for layer in found.layers], fontsize=8)
    ax.set_xticks(range(columns), [f"H{head}" for head in range(columns)], fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(0.5, columns - 1), minor=True)
    ax.set_yticks(np.arange(0.5, rows - 1), minor=True)
    ax.grid(which="minor", color="white", linewidth=1.5)
    ax.tick_params(which="minor", length=0)


def _size(values: np.ndarray, cell: float = 0.46) -> tuple[float, float]:
    rows, columns = values.shape
    return max(3.0, 1.3 + cell * columns), max(2.0, 1.0 + 0.36 * rows)


def _words(name: str) -> str:
    return name.replace("_unigram", ", corpus tokens").replace("_", " ")


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


# Figure of what heads go by: distance, the key's token, or what the query asks for.


COLOURS = {"total": "#dfe4ea", "distance": "#0072b2", "token": "#d55e00"}


def plot_kinds(found: "HeadKinds", ax: Any = None) -> Any:
    """A bar for each head: KL from uniform attention, and inside it what the two rules explain.

    Args:
        found: what `head_kinds` gave.
        ax: matplotlib axes to draw on; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    layers, heads = found.kinds.shape
    if ax is None:
        _, ax = pyplot.subplots(figsize=(5.6, 0.9 + 0.3 * layers * heads), layout="constrained")
    places = np.arange(layers * heads)
    ax.barh(places, found.of("total").ravel(), 0.8, color=COLOURS["total"], label="all")
    for name, shift in (("distance", -0.18), ("token", 0.18)):
        ax.barh(places + shift, found.of(name).ravel(), 0.3, color=COLOURS[name], label=f"by {name} alone")
    names = [f"L{layer}H{head}" for layer in found.layers for head in range(heads)]
    labels = [f"{name}  {kind}" for name, kind in zip(names, found.kinds.ravel(), strict=True)]
    ax.set_yticks(places, labels, fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("nats a query above uniform attention", fontsize=8, color=INK)
    ax.tick_params(length=0, labelsize=8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(fontsize=8, frameon=False)
    return ax


def plot_composition(found: "Composition", ax: Any = None) -> Any:
    """Earlier x later head for each of Q, K and V: composition above that of random heads.

    Args:
        found: what `composition` gave.
        ax: three matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    kinds, layers, heads = found.value.shape[:3]
    if ax is None:
        side = max(2.6, 1.2 + 0.16 * layers * heads)
        _, ax = pyplot.subplots(1, kinds, figsize=(kinds * side + 0.6, side + 0.5), layout="constrained")
    some = slice(max(layers - 1, 1))  # the last layer writes for nobody here, the first reads nobody
    later = slice(min(layers - 1, 1), None)
    above = found.value[:, some, :, later] - found.random[:, None, None, None, None]
    above = above.reshape(kinds, above.shape[1] * heads, -1)
    most = max(0.05, float(np.nanmax(above, initial=0)))
    writers, readers = (
        [f"L{layer} H{head}" for layer in part for head in range(heads)]
        for part in (found.layers[some], found.layers[later])
    )
    ticks = range(0, len(writers), 1 if len(writers) <= 32 else heads)
    for panel, kind, values, chance in zip(ax, "QKV", above, found.random, strict=True):
        image = panel.imshow(np.ma.masked_invalid(values), cmap="PuOr", vmin=-most, vmax=most)
        panel.set_facecolor("0.87")
        panel.set_xticks(ticks, [readers[one] for one in ticks], rotation=90, fontsize=7)
        panel.set_yticks(ticks, [writers[one] for one in ticks], fontsize=7)
        panel.set(xlabel="reads")
        panel.set_title(f"{kind}-composition (random {chance:.2f})", fontsize=9, color=INK)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    ax[0].set(ylabel="writes")
    bar = ax[0].figure.colorbar(image, ax=list(ax), shrink=0.8, label="above random")
    bar.outline.set_visible(False)
    return ax


def plot_pairs(found: "TokenPairs", ax: Any = None) -> Any:
    """A bar for each token pair, the most extreme on top.

    Args:
        found: what `top_pairs` gave.
        ax: matplotlib axes to draw on; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    count = len(found.values)
    if ax is None:
        _, ax = pyplot.subplots(figsize=(4.6, 0.9 + 0.22 * count), layout="constrained")
    ax.barh(range(count), found.values, color=np.where(found.values < 0, "#d55e00", "#0072b2"), height=0.75)
    labels = [
        f"{row!r} → {column!r}" for row, column in zip(found.row_labels, found.column_labels, strict=True)
    ]
    ax.set_yticks(range(count), labels, fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("entry of the circuit", fontsize=8)
    ax.tick_params(length=0, labelsize=8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax

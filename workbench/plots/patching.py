"""Estimated against exact effects."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.components import COLOURS, layer_map
from workbench.plots.primitives import need_pyplot, plain

if TYPE_CHECKING:
    from workbench.interp.gradients import AttributionCheck, EdgeAttribution
    from workbench.interp.patching import PatchResult
    from workbench.interp.paths import PathPatchResult


# A sweep of patches as a map: where a patch moves the metric, and which way.


MOST_ROWS = 40
"""Of a map of heads or neurons by position, the rows that move the metric most are drawn."""


def plot_patches(result: "PatchResult", ax: Any = None, recovered: bool = False) -> Any:
    """Layer x position, layer x head, or layer and head x position, by what was swept. Returns the axes.

    Args:
        result: the sweep.
        ax: matplotlib axes; new ones if not set.
        recovered: as a share of the two runs' difference instead of the metric's own unit.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    values = result.recovered if recovered else result.effect
    layers = np.unique(result.layers)
    rows = [f"L{layer}" for layer in layers]
    if result.positions is not None and result.units is not None:
        grid = values.transpose(0, 2, 1).reshape(-1, values.shape[1])
        names = np.unique(result.units)
        short = "N" if result.unit == "neuron" else "H"
        rows = [f"L{layer}{short}{name}" for layer in layers for name in names]
        if len(rows) > MOST_ROWS:
            chosen = np.sort(np.argsort(-np.abs(grid).max(1), kind="stable")[:MOST_ROWS])
            grid, rows = grid[chosen], [rows[row] for row in chosen]
    else:
        grid = values.reshape(len(layers), -1)
    if result.positions is not None:
        places = np.unique(result.positions)
        columns = [f"{plain(result.tokens[place])}\n{place}" for place in places]
        axis = "position of the patched run (tokens of the first pair)"
    elif result.units is not None:
        columns, axis = [str(name) for name in np.unique(result.units)], (result.unit or "").replace("_", "/")
    else:
        columns, axis = ["all positions"], ""
    limit = float(np.nanmax(np.abs(grid))) or 1.0
    if ax is None:
        size = (2.2 + 0.55 * len(columns), 1.4 + max(0.28 * len(rows), 1.0))
        _, ax = pyplot.subplots(figsize=(min(size[0], 24), min(size[1], 24)), layout="constrained")
    image = ax.imshow(grid, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    step = max(1, len(columns) // 40)
    ax.set_xticks(range(0, len(columns), step), columns[::step], fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set_xlabel(axis)
    ax.set_title(f"{result.site}, {result.direction} with {result.values} values", fontsize=10)
    unit = "share of the difference recovered" if recovered else f"change of the {result.metric}"
    ax.figure.colorbar(image, ax=ax, label=unit)
    return ax


# Paths between components as a map: who tells whom what moves the metric.


MOST = 40
"""Of more rows or columns, those that move the metric most are drawn."""


def plot_paths(result: "PathPatchResult", ax: Any = None, recovered: bool = False) -> Any:
    """Layer x head and MLP for one receiver, receiver x sender for several, path x position if the senders'
    positions were patched one by one. Grey: no path. Returns the axes.

    Args:
        result: what `path_patch` gave.
        ax: matplotlib axes; new ones if not set.
        recovered: as a share of the two runs' difference instead of the metric's own unit.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    values = result.recovered if recovered else result.effect
    senders = [one.label for one in result.senders]
    title = f"{result.direction}, {'through MLPs' if result.through_mlps else 'all else frozen'}"
    below, left = "", ""
    if result.tokens is not None:
        grid = values.reshape(-1, values.shape[-1])
        rows = [f"{sender} → {receiver}" for receiver in result.receivers for sender in senders]
        grid, rows = _strongest(grid, rows)
        columns = [f"{plain(token)}\n{place}" for place, token in enumerate(result.tokens)]
        below = "position of the sender (tokens of the first pair)"
    elif len(result.receivers) == 1 and any(one.layer is not None for one in result.senders):
        inside = [index for index, one in enumerate(result.senders) if one.layer is not None]
        grid, columns = layer_map([result.senders[index] for index in inside], values[0, inside])
        rows = [f"L{layer}" for layer in range(len(grid))]
        outside = [i for i in range(len(senders)) if i not in inside and not np.isnan(values[0, i])]
        title = f"to {result.receivers[0]}: {title}"
        title += "".join(f"\n{senders[index]} {values[0, index]:+.3g}" for index in outside)
    else:
        grid, rows = _strongest(values, list(result.receivers))
        turned, columns = _strongest(grid.T, senders)
        grid, below, left = turned.T, "sender", "receiver"
    limit = float(np.nanmax(np.abs(grid), initial=0)) or 1.0
    if ax is None:
        size = (2.6 + 0.42 * len(columns), 1.6 + max(0.24 * len(rows), 1.0))
        _, ax = pyplot.subplots(figsize=(min(size[0], 24), min(size[1], 24)), layout="constrained")
    ax.set_facecolor("0.87")
    image = ax.imshow(grid, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    turn = {"rotation": 90} if below == "sender" else {}
    ax.set_xticks(range(len(columns)), columns, fontsize=8, **turn)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set(xlabel=below, ylabel=left)
    ax.set_title(title, fontsize=10)
    unit = "share of the difference recovered" if recovered else f"change of the {result.metric}"
    ax.figure.colorbar(image, ax=ax, label=unit)
    return ax


def _strongest(grid: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """The rows that move the metric most, in their own order; those without any path are left out."""
    there = np.flatnonzero(~np.isnan(grid).all(1))
    most = np.nanmax(np.abs(grid[there]), axis=1)
    chosen = np.sort(there[np.argsort(-most, kind="stable")[:MOST]])
    return grid[chosen], [names[row] for row in chosen]


# The strongest edges between components as a graph.


FOR, AGAINST = "#2166ac", "#b2182b"


def plot_edges(result: "EdgeAttribution", ax: Any = None, count: int = 25) -> Any:
    """Layers upwards, heads side by side, MLPs to the right; blue edges raise the metric, red ones lower it,
    and the strongest are widest. A letter at an arrow's head is the input that it enters. Returns the axes.

    Args:
        result: what `edge_attribution` gave.
        ax: matplotlib axes; new ones if not set.
        count: how many edges.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    frame: Any = result.top(count)
    frame = frame[frame["score"] != 0]
    layers = 1 + max(one.layer for one in result.receivers if one.layer is not None)
    heads = 1 + max([one.head or 0 for one in result.senders])
    where = {"embed": (heads / 2 - 0.5, -1.0), "logits": (heads / 2 - 0.5, float(layers))}
    for one in result.senders:
        if one.layer is not None:
            mlp = one.head is None
            where[one.label] = (heads + 0.3 if mlp else float(one.head or 0), one.layer + 0.35 * mlp)
    used = {name.split(".")[0] for column in ("sender", "receiver") for name in frame[column]}
    if ax is None:
        size = (2.0 + 0.85 * (heads + 1), 1.6 + 1.15 * (layers + 1))
        _, ax = pyplot.subplots(figsize=(min(size[0], 24), min(size[1], 24)), layout="constrained")
    most = float(frame["score"].abs().max()) if len(frame) else 1.0
    for row in frame.iloc[::-1].to_dict("records"):  # the strongest on top
        name, _, part = row["receiver"].partition(".")
        share = abs(row["score"]) / most
        colour = FOR if row["score"] > 0 else AGAINST
        (x, y), (to_x, to_y) = where[row["sender"]], where[name]
        ax.annotate(
            "", (to_x, to_y), (x, y),
            arrowprops={
                "arrowstyle": "-|>", "color": colour, "alpha": 0.25 + 0.75 * share,
                "linewidth": 0.6 + 3 * share, "shrinkA": 13, "shrinkB": 13,
                "connectionstyle": f"arc3,rad={_bend(part, x, to_x)}",
            },
        )  # fmt: skip
    for name, (x, y) in where.items():
        dim = name not in used
        ax.text(
            x, y, name, ha="center", va="center", fontsize=8, color="0.72" if dim else "black",
            bbox={"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": "0.85" if dim else "0.3"},
        )  # fmt: skip
    for name in used:
        parts = sorted({r.partition(".")[2] for r in frame["receiver"] if r.startswith(f"{name}.")})
        if parts:
            x, y = where[name]
            ax.text(x, y - 0.16, " ".join(parts), ha="center", va="top", fontsize=7, color="0.35")
    ax.set(xlim=(-0.8, heads + 1), ylim=(-1.4, layers + 0.4))
    ax.axis("off")
    how = f"{result.steps} steps" if result.steps else "plain gradient"
    ax.set_title(
        f"{len(frame)} strongest edges of {len(result.to_frame()):,}, {how}; {result.metric}, "
        f"{result.direction}\nblue raises it, red lowers it; the widest by {most:.3g}",
        fontsize=9,
    )
    return ax


def _bend(part: str, x: float, to_x: float) -> float:
    """How far an edge is bent, so that those into one head's q, k and v lie beside each other."""
    straight = {"q": 0.18, "k": 0.0, "v": -0.18}.get(part, 0.08)
    return straight if to_x >= x else -straight


COLOURS_PATCH_CHECK = ("#d55e00", "#0072b2", "#009e73", "#cc79a7")
"""Okabe and Ito's, told apart by colour-blind readers."""
NAMED = 3


def plot_check(result: "AttributionCheck", ax: Any = None) -> Any:
    """A point a cell and estimate, the line where they agree, and the names of the cells that disagree most.

    Args:
        result: what `check_attribution` or `check_edges` gave.
        ax: matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    if ax is None:
        _, ax = pyplot.subplots(figsize=(5.6, 5.2), layout="constrained")
    both = np.concatenate([result.exact, result.estimates.ravel()])
    low, high = float(both.min()), float(both.max())
    edge = 0.06 * (high - low) or 1.0
    ends = (low - edge, high + edge)
    ax.plot(ends, ends, color="0.6", linewidth=1, zorder=0)
    rows = zip(result.estimators, result.estimates, result.pearson, result.slope, strict=True)
    for index, (name, estimate, correlation, slope) in enumerate(rows):
        label = name if np.isnan(correlation) else f"{name}: r = {correlation:.3f}, slope {slope:.2f}"
        colour = COLOURS_PATCH_CHECK[index % len(COLOURS_PATCH_CHECK)]
        ax.scatter(result.exact, estimate, s=14, color=colour, alpha=0.6, linewidths=0, label=label)
    for cell in np.argsort(-np.abs(result.estimates[-1] - result.exact), kind="stable")[:NAMED]:
        x, y = result.exact[cell], result.estimates[-1, cell]
        if x != y:
            right = x > (low + high) / 2
            ax.annotate(
                plain(result.names[cell]), (x, y), xytext=(-6 if right else 6, 0), textcoords="offset points",
                ha="right" if right else "left", va="center", fontsize=7, color="0.3",
            )  # fmt: skip
    ax.set(xlim=ends, ylim=ends, xlabel=f"exact change of the {result.metric}", ylabel="estimate")
    part = "" if len(result.exact) == result.total else f" of {result.total:,}"
    ax.set_title(f"{result.what}, {result.direction}: {len(result.exact):,}{part} cells", fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    ax.spines[["top", "right"]].set_visible(False)
    return ax

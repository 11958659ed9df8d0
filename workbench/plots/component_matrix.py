"""Components x paradigms as a heat map: blue helps the grammatical sentence, red the other."""

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.contributions import COLOURS
from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.components.matrix_result import ComponentMatrix

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
    shares = [f"{_short(name)}  {100 * matrix.accuracy[name]:3.0f} %" for name in names]
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


def _short(name: str, most: int = 46) -> str:
    name = name.removeprefix("embedded_")
    return name if len(name) <= most else f"{name[: most - 3]}..."

"""Plots of scaling laws: power laws, loss surface, IsoFLOP parabolas, compute envelope, predictions."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots import primitives as draw

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Law = Callable[[Any], Any]
"""A fitted curve: values at an array of places."""
MOST_LINES = 8
IN_A_ROW = 5
LINE, LAW = draw.PALETTE[:2]
PANEL = (5.3, 4.1)
COMPUTE = "training compute 6ND, FLOPs"


def plot_parametric(
    points: "pd.DataFrame",
    loss: Callable[[Any, Any], Any],
    best_n: Law,
    covered: tuple[float, float],
    *,
    floor: float,
    exponent: float,
    xlabel: str,
    ylabel: str,
    axes: "Axes | Sequence[Axes] | None" = None,
) -> "Figure":
    """Draw a law L(N, D): the loss over N by tokens, and contours of equal loss with the best size.

    Args:
        points: n, tokens, loss.
        loss: the law's loss for n parameters and d tokens.
        best_n: the best size for an amount of compute.
        covered: least and greatest compute of the points.
        floor: the irreducible loss E.
        exponent: of compute in the best size.
        xlabel, ylabel: what N counts, and what the loss is.
        axes: two axes to draw into; a new figure if not set.
    """
    figure, (left, right) = draw.open_panels(axes, 2, PANEL)
    n, d, y = (points[name].to_numpy(float) for name in ("n", "tokens", "loss"))
    tokens = _spread(np.unique(d.round(3)))
    span = np.geomspace(n.min() / 1.15, n.max() * 1.15, 200)
    nearest = np.abs(np.log(d[:, None] / tokens)).argmin(axis=1)
    for index, (count, color) in enumerate(zip(tokens, draw.shades(len(tokens)), strict=True)):
        near = (nearest == index) & (np.abs(np.log(d / count)) < 0.2)
        left.plot(n[near], y[near], "o", color=color, markersize=4, alpha=0.85)
        draw.curve(left, span, loss(span, count), color=color, linewidth=1.4, label=draw.short_number(count))
    left.axhline(floor, color=draw.GREY, linewidth=0.9, linestyle="--")
    left.annotate(
        f"E = {floor:.3g}", (0.99, floor), xycoords=("axes fraction", "data"), ha="right", va="bottom",
        fontsize=7.5, color="0.35",
    )  # fmt: skip
    draw.dress(left, r"$E + A/N^\alpha + B/D^\beta$", xlabel=xlabel, ylabel=ylabel)
    draw.log_ticks(left, "x")
    draw.legend(left, title="tokens D", fontsize=7, ncols=2)

    compute = np.geomspace(covered[0] / 1.3, covered[1] * 1.3, 160)
    sizes = np.geomspace(n.min() / 1.3, n.max() * 1.3, 160)
    grid_c, grid_n = np.meshgrid(compute, sizes)
    right.set(xscale="log", yscale="log")  # before the contour labels, whose gaps are measured on the screen
    levels = floor + np.geomspace(max(y.min() - floor, 0.02 * floor), y.max() - floor, 11)
    surface = loss(grid_n, grid_c / (6 * grid_n))
    lines = right.contour(grid_c, grid_n, surface, levels=levels, cmap="viridis", linewidths=0.9)
    right.clabel(lines, fontsize=6.5, fmt="%.2f")
    right.scatter(6 * n * d, n, s=7, color="0.45", zorder=2)
    best = best_n(compute)
    inside = (compute >= covered[0]) & (compute <= covered[1])
    inside &= (best >= sizes[0] * 1.15) & (best <= sizes[-1] / 1.15)
    draw.curve(right, compute, best, color=LAW, linewidth=1.2, linestyle="--", label="extrapolated")
    draw.curve(right, compute[inside], best[inside], color=LAW, linewidth=2.2, label="best N")
    title = rf"equal loss; best $N \propto C^{{{exponent:.2f}}}$"
    limits = {"xlim": (compute[0], compute[-1]), "ylim": (sizes[0], sizes[-1])}
    draw.dress(right, title, xlabel=COMPUTE, ylabel="parameters N", **limits)
    draw.log_ticks(right)
    draw.legend(right, loc="upper left")
    return figure


def plot_isoflop(
    budgets: "pd.DataFrame",
    points: Sequence[tuple[np.ndarray, np.ndarray]],
    parabolas: Sequence[Law],
    best_n: Law | None,
    exponent: tuple[float, float, float] | None,
    *,
    exact: bool,
    xlabel: str,
    ylabel: str,
    axes: "Axes | Sequence[Axes] | None" = None,
) -> "Figure":
    """Draw IsoFLOP parabolas: the loss over N at each budget with its vertex, and the vertices over compute.

    Args:
        budgets: flops, n, n_low, n_high, loss: the vertex of each.
        points: N and loss of each budget's points.
        parabolas: the fitted loss over N of each budget.
        best_n: the best size for an amount of compute; None where no law was fitted.
        exponent: of compute in the best size, with its interval.
        exact: whether compute is the exact count in place of 6ND.
        xlabel, ylabel: what N counts, and what the loss is.
        axes: two axes to draw into; a new figure if not set.
    """
    figure, (left, right) = draw.open_panels(axes, 2, PANEL)
    rows: Any = budgets.itertuples()
    for row, (n, y), parabola, color in zip(rows, points, parabolas, draw.shades(len(budgets)), strict=True):
        span = np.geomspace(n.min(), n.max(), 200)
        left.plot(n, y, "o", color=color, markersize=4)
        draw.curve(left, span, parabola(span), color=color, linewidth=1.4, label=f"{row.flops:.2g}")
        ends = np.clip([row.n_low, row.n_high], n.min(), n.max())
        left.hlines(row.loss, ends[0], ends[1], color="black", linewidth=1.2, zorder=3)
        left.plot(row.n, row.loss, "D", color="white", markeredgecolor="black", markersize=5, zorder=4)
        error = [[row.n - row.n_low], [row.n_high - row.n]]
        right.errorbar(row.flops, row.n, error, fmt="D", color=color, ecolor="0.3", capsize=3, markersize=6)
    kind = "exact" if exact else "6ND"
    draw.dress(left, "IsoFLOP parabolas, vertices with 95 % intervals", xlabel=xlabel, ylabel=ylabel)
    draw.log_ticks(left, "x")
    draw.legend(left, title=f"FLOPs ({kind})", fontsize=7)
    title = "best N"
    if best_n is not None and exponent is not None:
        compute = np.geomspace(budgets["flops"].min() / 1.5, budgets["flops"].max() * 1.5, 50)
        draw.curve(right, compute, best_n(compute), color=LAW, linewidth=1.6, zorder=1)
        title = rf"best $N \propto C^{{{exponent[0]:.2f}}}$ [{exponent[1]:.2f}, {exponent[2]:.2f}]"
    draw.dress(right, title, xlabel=f"training compute, FLOPs ({kind})", ylabel="parameters N")
    draw.log_ticks(right)
    return figure


def plot_envelope(
    points: "pd.DataFrame",
    envelope: "pd.DataFrame",
    best_n: Law,
    exponent: tuple[float, float, float],
    *,
    ylabel: str,
    axes: "Axes | Sequence[Axes] | None" = None,
) -> "Figure":
    """Draw training curves over compute with their lower envelope, and the best size over compute.

    `points` has group (a run), n, six_nd (compute) and loss, `envelope` flops, n and loss; `exponent` is that
    of compute in the best size, with its interval.
    """
    figure, (left, right) = draw.open_panels(axes, 2, PANEL)
    sizes = np.unique(points["n"])
    colors = dict(zip(sizes, draw.shades(len(sizes)), strict=True))
    unnamed = set(_spread(sizes))
    for _, group in sorted(points.groupby("group"), key=lambda item: item[1]["n"].iloc[0]):
        group, size = group.sort_values("six_nd"), group["n"].iloc[0]
        label = draw.short_number(size) if size in unnamed else None
        unnamed.discard(size)
        draw.curve(left, group["six_nd"], group["loss"], color=colors[size], linewidth=1.1, label=label)
    draw.curve(left, envelope["flops"], envelope["loss"], color="black", linewidth=2, label="envelope")
    draw.dress(left, xlabel=COMPUTE, ylabel=ylabel)
    draw.log_ticks(left)
    draw.legend(left, title="parameters N", fontsize=7)
    right.plot(envelope["flops"], envelope["n"], ".", color=LINE, markersize=3, label="envelope")
    draw.curve(
        right, envelope["flops"], best_n(envelope["flops"].to_numpy()), color=LAW, linewidth=1.8, label="law"
    )
    interval = f" [{exponent[1]:.2f}, {exponent[2]:.2f}]" if np.isfinite(exponent[1]) else ""
    title = rf"best $N \propto C^{{{exponent[0]:.2f}}}$" + interval
    draw.dress(right, title, xlabel=COMPUTE, ylabel="best N on the envelope")
    draw.log_ticks(right)
    draw.legend(right)
    return figure


def _spread(values: np.ndarray) -> np.ndarray:
    """Return at most `MOST_LINES` of the values, evenly chosen, with both ends."""
    chosen = np.linspace(0, len(values) - 1, min(MOST_LINES, len(values))).round().astype(int)
    return values[np.unique(chosen)]


def plot_power(
    x: np.ndarray,
    y: np.ndarray,
    law: Law,
    band: Law,
    *,
    variable: str,
    scale: float,
    exponent: float,
    floor: float | None,
    xlabel: str,
    ylabel: str,
    ax: "Axes | None" = None,
) -> "Figure":
    """Draw the loss over N or D with a power law, floor + (scale / x)^exponent, and its 95 % interval."""
    figure, ax = draw.open_axes(ax, (5.6, 4.1))
    span = np.geomspace(x.min() / 1.4, x.max() * 1.4, 200)
    draw.curve(ax, span, law(span), *band(span), color=LAW, linewidth=1.8, label="law, 95 % interval")
    ax.plot(x, y, "o", color=LINE, markersize=5, label="runs")
    letter, constant = variable.upper(), "" if floor is None else f"{floor:.3g} + "
    title = rf"$L({letter})$ = {constant}$({_scientific(scale)} / {letter})^{{{exponent:.3f}}}$"
    draw.dress(ax, title, xlabel=xlabel, ylabel=ylabel)
    draw.log_ticks(ax)
    draw.legend(ax)
    return figure


def plot_critical_batch(
    frame: "pd.DataFrame", law: Law, *, scale: float, exponent: float, ax: "Axes | None" = None
) -> "Figure":
    """Draw the noise scale (tokens) over the loss, and the law B = scale / L^(1 / exponent)."""
    figure, ax = draw.open_axes(ax, (5.6, 4.1))
    span = np.geomspace(frame["loss"].min() / 1.05, frame["loss"].max() * 1.05, 100)
    ax.plot(frame["loss"], frame["noise_scale"], "o", color=LINE, markersize=5, label="measured")
    draw.curve(ax, span, law(span), color=LAW, linewidth=1.8, label="law")
    title = rf"$B = {_scientific(scale)} / L^{{1/{exponent:.2f}}}$"
    draw.dress(
        ax, title, xlabel="loss, nats per token (training goes to the right)", ylabel="critical batch, tokens"
    )
    draw.log_ticks(ax)
    ax.invert_xaxis()
    draw.legend(ax)
    return figure


def plot_predictions(frame: "pd.DataFrame", ax: "Axes | None" = None) -> "Figure":
    """Draw each prediction with its 95 % interval next to what was measured, a row for each run.

    `frame` has run, predicted, low, high, measured and covered.
    """
    figure, ax = draw.open_axes(ax, (6.4, 1.6 + 0.35 * max(1, len(frame))))
    names = [draw.plain(str(run)) for run in frame["run"]]
    draw.intervals(ax, names, frame["predicted"], frame["low"], frame["high"], color=LINE, reference=None)
    for covered, marker, label in ((True, "o", "measured"), (False, "X", "measured, outside")):
        rows = np.flatnonzero(frame["covered"] == covered)
        if len(rows):
            measured = frame["measured"].to_numpy()[rows]
            ax.plot(measured, rows, marker, color=LAW, markersize=7, label=label, zorder=4)
    draw.dress(ax, xlabel="loss")
    ax.plot([], [], "o-", color=LINE, markersize=5, label="predicted, 95 % interval")
    draw.legend(ax, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


def _scientific(value: float) -> str:
    """Return a number for a formula: 1.5 x 10^8."""
    digits, power = f"{value:.1e}".split("e")
    return digits if power == "+00" else rf"{digits} \times 10^{{{int(power)}}}"


def plot_grammar(
    table: "pd.DataFrame",
    curves: Mapping[str, Callable[[Any], tuple[Any, Any, Any]]],
    gains: Mapping[str, tuple[float, float, float]],
    axes: "Axes | Sequence[Axes] | None" = None,
) -> "Figure":
    """Draw accuracy on minimal pairs over the size of the model, a panel for each phenomenon.

    `table` has phenomenon, n and accuracy. By phenomenon, `curves` gives the fitted accuracy and the ends of
    its 95 % interval at an array of n, `gains` the rise for ten times the size, with its interval.
    """
    figure, panels = draw.open_panels(
        axes, len(curves), (max(2.5, 5 / len(curves)), 2.3), IN_A_ROW, sharex=True, sharey=True
    )
    for panel, (name, law) in zip(panels, curves.items(), strict=True):
        part = table.query("phenomenon == @name")
        n = part["n"].to_numpy(float)
        span = np.geomspace(n.min() / 1.2, n.max() * 1.2, 100)
        panel.axhline(0.5, color=draw.GREY, linewidth=0.8, linestyle="--")
        draw.curve(panel, span, *law(span), color=LAW, linewidth=1.6)
        panel.plot(n, part["accuracy"], "o", color=LINE, markersize=4)
        value, low, high = (100 * end for end in gains[name])
        draw.dress(panel)
        weight = None if low <= 0 <= high else "bold"
        panel.set_title(
            f"{draw.plain(name)}\n{value:+.1f} [{low:+.1f}, {high:+.1f}]", fontsize=7.5, fontweight=weight
        )
        draw.log_ticks(panel, "x")
    note = "above: points of accuracy for ten times the size (bold: not 0)"
    figure.supxlabel(f"parameters N\n{note}", fontsize=8)
    figure.supylabel("accuracy", fontsize=8.5)
    return figure

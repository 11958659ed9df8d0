"""Figure of accuracy on minimal pairs over the size of the model."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.primitives import need_pyplot, plain

if TYPE_CHECKING:
    from workbench.scaling.fitting import Frontier
    from workbench.scaling.laws import CriticalBatch, GrammarScaling, ParametricFit, PowerLaw
    from workbench.scaling.optimum import Envelope, IsoFlop
    from workbench.scaling.study import Checked


# Figures of Chinchilla's three approaches: the surface L(N, D), IsoFLOP parabolas, envelope of curves.


MOST_LINES = 8
LINE, LAW = "#0072b2", "#d55e00"


def two_axes(ax: Any) -> Any:
    """The two axes given, or new ones."""
    if ax is None:
        _, ax = need_pyplot().subplots(1, 2, figsize=(10.5, 4.1), layout="constrained")
    for panel in ax:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    return ax


def shades(count: int) -> list[Any]:
    """Colours from light to dark for ordered lines; none too pale to see."""
    return [need_pyplot().get_cmap("viridis")(0.92 * (1 - k / max(1, count - 1))) for k in range(count)]


def log_ticks(panel: Any, which: str = "xy") -> None:
    """Logarithmic axes with few and plain labels; call it when all is drawn."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    for letter in which:
        getattr(panel, f"set_{letter}scale")("log")
        axis = getattr(panel, f"{letter}axis")
        low, high = sorted(axis.get_view_interval())
        axis.set_minor_formatter(NullFormatter())
        if high / low < 4:
            inside = [
                tick
                for tick in MaxNLocator(7, steps=[1, 2, 5, 10]).tick_values(low, high)
                if low <= tick <= high
            ]
            axis.set_major_locator(FixedLocator(inside))
            axis.set_minor_locator(FixedLocator([]))
        elif high / low < 200:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        else:
            continue
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """`812`, `1.5k`, `20M`; beyond 10^14 as 2e+15."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if limit <= abs(value) < 1e14:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def size_label(points: Any) -> str:
    """What N counts, for an axis."""
    return f"N, {points.count} parameters"


def plot_parametric(fit: "ParametricFit", ax: Any = None) -> Any:
    """Left, the loss over N, a line for each number of tokens; right, contours of the law over compute and N
    with the points, the best size and its interval.

    Args:
        fit: what `fit_parametric` gave.
        ax: two matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    ax = two_axes(ax)
    points = fit.points
    tokens = _spread(np.unique(points.d.round(3)), MOST_LINES)
    span = np.geomspace(points.n.min() / 1.15, points.n.max() * 1.15, 200)
    left, right = ax
    every = np.abs(np.log(points.d[:, None] / tokens)).argmin(axis=1)
    for index, (count, colour) in enumerate(zip(tokens, shades(len(tokens)), strict=True)):
        mine = (every == index) & (np.abs(np.log(points.d / count)) < 0.2)
        left.plot(points.n[mine], points.y[mine], "o", color=colour, markersize=4, alpha=0.85)
        left.plot(span, fit.loss(span, count), color=colour, linewidth=1.4, label=short(count))
    left.axhline(fit.constants["E"].value, color="0.55", linewidth=0.9, linestyle="--")
    left.annotate(
        f"E = {fit.constants['E'].value:.3g}", (0.99, fit.constants["E"].value),
        xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7.5, color="0.35",
    )  # fmt: skip
    left.set(xlabel=size_label(points), ylabel=f"loss, {points.unit}")
    log_ticks(left, "x")
    left.set_title(r"$E + A/N^\alpha + B/D^\beta$", fontsize=9)
    left.legend(title="tokens D", fontsize=7, title_fontsize=7.5, frameon=False, ncols=2)
    _contours(fit, right)
    return ax


def _contours(fit: "ParametricFit", panel: Any) -> None:
    points = fit.points
    c = np.geomspace(points.c.min() / 1.3, points.c.max() * 1.3, 160)
    n = np.geomspace(points.n.min() / 1.3, points.n.max() * 1.3, 160)
    grid_c, grid_n = np.meshgrid(c, n)
    loss = fit.loss(grid_n, grid_c / (6 * grid_n))
    panel.set(xscale="log", yscale="log")  # before the labels, whose gaps are measured on the screen
    low, high = points.y.min(), points.y.max()
    floor = fit.constants["E"].value
    levels = floor + np.geomspace(max(low - floor, 0.02 * floor), high - floor, 11)
    lines = panel.contour(grid_c, grid_n, loss, levels=levels, cmap="viridis", linewidths=0.9)
    panel.clabel(lines, fontsize=6.5, fmt="%.2f")
    panel.scatter(points.c, points.n, s=7, color="0.45", zorder=2)
    frontier(fit.frontier, panel, c, n)
    log_ticks(panel)
    panel.set(
        xlabel="training compute 6ND, FLOPs", ylabel="parameters N", ylim=(n[0], n[-1]), xlim=(c[0], c[-1])
    )
    panel.set_title(rf"equal loss; best $N \propto C^{{{fit.frontier.a.value:.2f}}}$", fontsize=9)
    panel.legend(fontsize=7.5, frameon=False, loc="upper left")


def frontier(found: "Frontier", panel: Any, c: Any, n: Any) -> None:
    """The best size over compute: drawn through where the data cover it, dashed where they do not."""
    best = found.n(c)
    inside = (c >= found.lowest) & (c <= found.highest) & (best >= n[0] * 1.15) & (best <= n[-1] / 1.15)
    panel.plot(c, best, color=LAW, linewidth=1.2, linestyle="--")
    panel.plot(c[inside], best[inside], color=LAW, linewidth=2.2, label="best N")


def plot_isoflop(found: "IsoFlop", ax: Any = None) -> Any:
    """Left, the loss over N at each budget with its parabola and vertex; right, the vertices over compute.

    Args:
        found: what `fit_isoflop` gave.
        ax: two matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    ax = two_axes(ax)
    left, right = ax
    for one, colour in zip(found.parabolas, shades(len(found.parabolas)), strict=True):
        span = np.geomspace(one.n.min(), one.n.max(), 200)
        left.plot(one.n, one.loss, "o", color=colour, markersize=4)
        left.plot(span, one.at(span), color=colour, linewidth=1.4, label=f"{one.flops:.2g}")
        best = one.best_n
        left.plot(
            np.clip([best.low, best.high], one.n.min(), one.n.max()), [one.minimum] * 2, color="black",
            linewidth=1.2,
        )  # fmt: skip
        left.plot(
            best.value, one.minimum, "D", color="white", markeredgecolor="black", markersize=5, zorder=4
        )
        error = [[best.value - best.low], [best.high - best.value]]
        right.errorbar(
            one.flops, best.value, error, fmt="D", color=colour, ecolor="0.3", capsize=3, markersize=6
        )
    left.set(xlabel=size_label(found.points), ylabel=f"loss, {found.points.unit}")
    log_ticks(left, "x")
    kind = "exact" if found.exact else "6ND"
    left.legend(title=f"FLOPs ({kind})", fontsize=7, title_fontsize=7.5, frameon=False)
    left.set_title("IsoFLOP parabolas, vertices with 95 % intervals", fontsize=9)
    flops = np.array([one.flops for one in found.parabolas])
    title = "best N"
    if found.frontier is not None:
        c = np.geomspace(flops[0] / 1.5, flops[-1] * 1.5, 50)
        right.plot(c, found.frontier.n(c), color=LAW, linewidth=1.6, zorder=1)
        a = found.frontier.a
        title = rf"best $N \propto C^{{{a.value:.2f}}}$ [{a.low:.2f}, {a.high:.2f}]"
    log_ticks(right)
    right.set(xlabel=f"training compute, FLOPs ({kind})", ylabel="parameters N")
    right.set_title(title, fontsize=9)
    return ax


def plot_envelope(found: "Envelope", ax: Any = None) -> Any:
    """Left, each run's loss over compute with the envelope; right, the best size over compute.

    Args:
        found: what `fit_envelope` gave.
        ax: two matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    ax = two_axes(ax)
    left, right = ax
    points = found.points
    sizes = points.sizes
    palette = dict(zip(sizes, shades(len(sizes)), strict=True))
    named = set(_spread(sizes, MOST_LINES))
    groups = sorted(np.unique(points.groups), key=lambda group: points.n[points.groups == group][0])
    for group in groups:
        mine = np.flatnonzero(points.groups == group)
        mine = mine[np.argsort(points.c[mine])]
        size = float(points.n[mine[0]])
        label = short(size) if size in named else None
        named.discard(size)
        left.plot(points.c[mine], points.y[mine], color=palette[size], linewidth=1.1, label=label)
    left.plot(found.flops, found.loss, color="black", linewidth=2, label="envelope")
    left.set(xlabel="training compute 6ND, FLOPs", ylabel=f"loss, {points.unit}")
    log_ticks(left)
    left.legend(title="parameters N", fontsize=7, title_fontsize=7.5, frameon=False)
    right.plot(found.flops, found.n, ".", color=LINE, markersize=3)
    right.plot(found.flops, found.frontier.n(found.flops), color=LAW, linewidth=1.8)
    log_ticks(right)
    a = found.frontier.a
    span = f" [{a.low:.2f}, {a.high:.2f}]" if np.isfinite(a.low) else ""
    right.set_title(rf"best $N \propto C^{{{a.value:.2f}}}$" + span, fontsize=9)
    right.set(xlabel="training compute 6ND, FLOPs", ylabel="best N on the envelope")
    return ax


def _spread(values: Any, most: int) -> Any:
    """At most so many of the values, evenly chosen, both ends among them."""
    if len(values) <= most:
        return values
    return values[np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))]


# Figures of one-variable laws: Kaplan's power law, the critical batch, predictions beside what came out.


def _axes(ax: Any, size: tuple[float, float] = (5.6, 4.1)) -> Any:
    if ax is None:
        _, ax = need_pyplot().subplots(figsize=size, layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    return ax


def plot_power(law: "PowerLaw", ax: Any = None) -> Any:
    """The loss over N or D, the law and its 95 % interval.

    Args:
        law: what `fit_power` gave.
        ax: matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    ax = _axes(ax)
    x = law.x
    span = np.geomspace(x.min() / 1.4, x.max() * 1.4, 200)
    low, high = law.band(span)
    ax.fill_between(span, low, high, color=LAW, alpha=0.18, linewidth=0)
    ax.plot(span, law.loss(span), color=LAW, linewidth=1.8)
    ax.plot(x, law.points.y, "o", color=LINE, markersize=5)
    letter = law.variable.upper()
    floor = f"{law.constants['E'].value:.3g} + " if law.irreducible else ""
    ax.set_title(
        rf"$L({letter})$ = {floor}$({_scientific(law.scale.value)} / {letter})^{{{law.exponent.value:.3f}}}$",
        fontsize=9,
    )
    name = size_label(law.points) if law.variable == "n" else "D, tokens"
    ax.set(xlabel=name, ylabel=f"loss, {law.points.unit}")
    log_ticks(ax)
    return ax


def plot_critical_batch(found: "CriticalBatch", ax: Any = None) -> Any:
    """The simple noise scale over the loss and the law.

    Args:
        found: what `fit_critical_batch` gave.
        ax: matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    ax = _axes(ax)
    span = np.geomspace(found.loss.min() / 1.05, found.loss.max() * 1.05, 100)
    ax.plot(found.loss, found.noise_scale, "o", color=LINE, markersize=5)
    ax.plot(span, found.at(span), color=LAW, linewidth=1.8)
    log_ticks(ax)
    ax.invert_xaxis()
    ax.set(xlabel="loss, nats a token (training goes to the right)", ylabel="critical batch, tokens")
    ax.set_title(rf"$B = {_scientific(found.scale.value)} / L^{{1/{found.exponent.value:.2f}}}$", fontsize=9)
    return ax


def plot_checked(found: "Checked", ax: Any = None) -> Any:
    """Each prediction's interval beside what was measured: a row a run.

    Args:
        found: what `check_predictions` gave.
        ax: matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    rows = found.table.to_dict("records")
    ax = _axes(ax, (6.0, 1.2 + 0.35 * max(1, len(rows))))
    for place, row in enumerate(rows):
        ax.plot([row["low"], row["high"]], [place, place], color=LINE, linewidth=5, alpha=0.35)
        ax.plot(row["predicted"], place, "|", color=LINE, markersize=13, markeredgewidth=2)
        ax.plot(row["measured"], place, "o" if row["covered"] else "X", color=LAW, markersize=7)
    ax.set_yticks(range(len(rows)), [plain(str(row["run"])) for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel("loss: predicted (bar: 95 % interval) and measured (dot; a cross outside)", fontsize=8)
    return ax


def _scientific(value: float) -> str:
    """A number for a formula: 1.5 x 10^8."""
    digits, power = f"{value:.1e}".split("e")
    return digits if power == "+00" else rf"{digits} \times 10^{{{int(power)}}}"


IN_A_ROW = 5


def plot_grammar(found: "GrammarScaling", ax: Any = None) -> Any:
    """A panel a phenomenon: each run, the curve with its 95 % interval, chance dashed.

    Args:
        found: what `fit_grammar` gave.
        ax: as many matplotlib axes as phenomena; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    names = found.phenomena
    if ax is None:
        across = min(IN_A_ROW, len(names))
        down = math.ceil(len(names) / across)
        size = (2.4 * across + 0.4, 2.1 * down + 0.4)
        _, made = pyplot.subplots(
            down, across, figsize=size, layout="constrained", squeeze=False, sharex=True, sharey=True
        )
        for spare in made.ravel()[len(names) :]:
            spare.set_visible(False)
        ax = made.ravel()[: len(names)]
    for panel, name in zip(ax, names, strict=True):
        mine = found.table.query("phenomenon == @name")
        n = mine["n"].to_numpy(float)
        span = np.geomspace(n.min() / 1.2, n.max() * 1.2, 100)
        curve, low, high = found.band(name, span)
        panel.axhline(0.5, color="0.6", linewidth=0.8, linestyle="--")
        panel.fill_between(span, low, high, color=LAW, alpha=0.2, linewidth=0)
        panel.plot(span, curve, color=LAW, linewidth=1.6)
        panel.plot(n, mine["accuracy"], "o", color=LINE, markersize=4)
        log_ticks(panel, "x")
        gain = found.gain(name)
        clear = not gain.low <= 0 <= gain.high
        panel.set_title(
            f"{plain(name)}\n{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]",
            fontsize=7.5,
            fontweight="bold" if clear else None,
        )
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=7)
    figure = ax[0].figure
    figure.supxlabel("parameters N; above each: points of accuracy for ten times the size", fontsize=8.5)
    figure.supylabel("pairs decided rightly", fontsize=8.5)
    return ax

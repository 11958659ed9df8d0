"""Figures of `workbench tune`: the learning-rate range test and the gradient-noise scale."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.components import COLOURS_COMPONENT_FAMILY as COLOURS
from workbench.plots.primitives import need_pyplot, plain

if TYPE_CHECKING:
    from workbench.evals.blimp import BlimpResult
    from workbench.evals.comparison import Comparison


# Figures of a comparison: costs and gains of each row, minimal pairs by phenomenon, curves of loss.


_LABELLED = 14


def plot_figures(found: "Comparison", ax: Any = None) -> Any:
    """Loss, minimal pairs and milliseconds a token of each row over what varies, intervals over seeds.

    Args:
        found: what `compare` gave.
        ax: as many matplotlib axes as there are panels (see `panels`); new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    shown = panels(found)
    if ax is None:
        _, ax = pyplot.subplots(1, len(shown), figsize=(4.6 * len(shown), 3.8), layout="constrained")
    ax = np.atleast_1d(ax)
    rows = found.rows
    order = sorted(rows.index, key=found.place)
    x = np.array([found.place(row) for row in order])
    single = found.axis != "parameters"
    for panel, name in zip(ax, shown, strict=True):
        scale = 100.0 if name == "blimp" else 1.0
        for column, colour, label in _series(name):
            y = scale * rows.loc[order, column].to_numpy(float)
            if single:
                panel.plot(x, y, color=colour, linewidth=1, alpha=0.5, zorder=1)
            panel.scatter(x, y, color=colour, s=26, label=label, zorder=3)
            if f"{column}_low" in rows:
                ends = [scale * rows.loc[order, f"{column}_{end}"].to_numpy(float) for end in ("low", "high")]
                panel.vlines(x, *ends, color=colour, linewidth=1.6, zorder=2)
        if not single and len(order) <= _LABELLED and name != "ms":
            _label(panel, x, scale * rows.loc[order, name].to_numpy(float), order)
        if name == "blimp":
            panel.axhline(50, color="0.6", linestyle="--", linewidth=0.8, zorder=0)
            low, high = panel.get_ylim()
            panel.set_ylim(min(low, 49), high)
        if name == "ms":
            panel.set_ylim(bottom=0)
            panel.legend(frameon=False, fontsize=8)
        _x_axis(panel, x, found.axis, pyplot)
        panel.set_ylabel(_Y[name])
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    return ax


_Y = {
    "loss": "validation loss, nats a token",
    "blimp": "minimal pairs right, %",
    "ms": "ms a token, batch 1, one thread",
}


def panels(found: "Comparison") -> list[str]:
    """The figures that there is something to show of."""
    return [name for name in ("loss", "blimp", "ms") if bool(found.rows[name].notna().to_numpy().any())]


def _series(name: str) -> list[tuple[str, str, str | None]]:
    if name == "ms":
        return [("ms", COLOURS[0], "float32"), ("ms_int8", COLOURS[1], "int8")]
    return [(name, COLOURS[0], None)]


def _label(panel: Any, x: Any, y: Any, names: list[str]) -> None:
    for place, value, name in zip(x, y, names, strict=True):
        panel.annotate(plain(name), (place, value), (4, 3), textcoords="offset points", fontsize=6.5)


def _x_axis(panel: Any, x: Any, axis: str, pyplot: Any) -> None:
    """Ticks at the rows themselves, thinned out where their labels would touch."""
    log = axis == "parameters" or (x.min() > 0 and x.max() / x.min() > 3)
    if log:
        panel.set_xscale("log")
    panel.set_xlabel(axis)
    low, high = panel.get_xlim()
    at = np.log([low, high, *x]) if log else np.array([low, high, *x])
    shares, kept = (at[2:] - at[0]) / ((at[1] - at[0]) or 1.0), []
    for index in np.argsort(shares):
        if not kept or shares[index] - shares[kept[-1]] > 0.09:
            kept.append(index)
    panel.set_xticks(x[kept], [_short(value) for value in x[kept]])
    panel.xaxis.set_minor_formatter(pyplot.NullFormatter())
    panel.xaxis.set_minor_locator(pyplot.NullLocator())


def _short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:g}"


def plot_phenomena(found: "Comparison", ax: Any = None) -> Any:
    """Minimal pairs by phenomenon, a mark for each row, intervals over seeds, and the chance line.

    Args:
        found: what `compare` gave; some run must have been scored.
        ax: matplotlib axes; new ones if not set.

    Returns:
        The axes.
    """
    pyplot = need_pyplot()
    table = found.phenomena
    order = sorted(found.rows.index, key=found.place)
    names = list(table.groupby("phenomenon").accuracy.mean().sort_values().index)
    height = max(3.0, 0.24 * len(names) * max(1.0, len(order) / 4) + 1.2)
    if ax is None:
        _, ax = pyplot.subplots(figsize=(8.6, height), layout="constrained")
    step = 0.72 / max(1, len(order))
    for index, row in enumerate(order):
        mine = table[table.row == row].set_index("phenomenon")
        if not len(mine):
            continue
        colour = _colour(index, len(order), found.axis != "parameters", pyplot)
        y = np.array([names.index(name) for name in mine.index]) + 0.36 - step * (index + 0.5)
        ax.scatter(100 * mine.accuracy, y, s=18, color=colour, label=plain(row), zorder=3)
        ax.hlines(y, 100 * mine.low, 100 * mine.high, color=colour, linewidth=1.3, zorder=2)
    for line in np.arange(len(names) - 1) + 0.5:
        ax.axhline(line, color="0.92", linewidth=0.8, zorder=0)
    ax.axvline(50, color="0.55", linestyle="--", linewidth=0.9, zorder=1)
    ax.set_yticks(range(len(names)), [plain(name.replace("_", " ")) for name in names])
    ax.set(xlabel="% decided rightly; chance is 50", ylim=(-0.6, len(names) - 0.4))
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def plot_curves(found: "Comparison", ax: Any = None) -> Any:
    """Validation loss over tokens read, a line for each run, coloured by row."""
    pyplot = need_pyplot()
    if ax is None:
        _, ax = pyplot.subplots(figsize=(8.6, 4.2), layout="constrained")
    order = sorted(found.rows.index, key=found.place)
    for index, row in enumerate(order):
        colour = _colour(index, len(order), found.axis != "parameters", pyplot)
        for number, (_, part) in enumerate(found.curves[found.curves.row == row].groupby("run")):
            label = plain(row) if number == 0 else None
            ax.plot(part.tokens, part.loss, color=colour, linewidth=1.2, alpha=0.85, label=label)
    ax.set(xlabel="tokens read", ylabel="validation loss, nats a token")
    ax.xaxis.set_major_formatter(pyplot.FuncFormatter(lambda value, _: _short(value)))
    ax.xaxis.set_minor_formatter(pyplot.NullFormatter())
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def _colour(index: int, count: int, ordered: bool, pyplot: Any) -> Any:
    """Along an ordered axis from dark to light; else told apart as well as can be."""
    if ordered or count > len(COLOURS):
        return pyplot.get_cmap("viridis")(0.85 * index / max(1, count - 1))
    return COLOURS[index % len(COLOURS)]


# Figures of results on minimal pairs.


def plot_blimp(result: "BlimpResult", ax: Any = None) -> Any:
    """One bar a phenomenon with its Wilson interval, the mean over paradigms below, and the chance line.

    Args:
        result: what `blimp` gave.
        ax: matplotlib axes to draw on; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    frame = result.phenomena
    names = [*frame.index, "mean over paradigms"]
    shares = [*frame[["accuracy", "low", "high"]].itertuples(index=False), result.overall.paradigms]
    if ax is None:
        _, ax = pyplot.subplots(figsize=(7, 0.6 + 0.32 * len(names)), layout="constrained")
    for row, share in enumerate(shares):
        last = row == len(shares) - 1
        ax.barh(row, share.accuracy, color="#33526e" if last else "#7ba0c4", height=0.7)
        ax.plot([share.low, share.high], [row, row], color="black", linewidth=1.2)
    ax.axvline(0.5, color="#b04a3a", linewidth=1, linestyle="--", label="chance")
    ax.set(xlim=(0, 1), xlabel="share of pairs decided rightly", title=result.title)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.legend(loc="lower right", frameon=False)
    return ax


_LOSS, _MARK = "#2f6db3", "#c2462e"


def two_panels() -> Any:
    """Two axes side by side.

    Raises:
        InputError: matplotlib is not installed.
    """
    _, axes = need_pyplot().subplots(1, 2, figsize=(10.5, 3.9), layout="constrained")
    return axes


def plot_range(frame: Any, steepest: float, knee: float, suggested: float, ax: Any = None) -> Any:
    """Losses over the learning rate, and where the suggestion lies.

    Args:
        frame: rate, loss, smoothed.
        steepest, knee, suggested: rates to mark.
        ax: a matplotlib axes; a new one if not set.
    """
    ax = ax or need_pyplot().subplots(figsize=(5.4, 3.9), layout="constrained")[1]
    ax.plot(frame.rate, frame.loss, color=_LOSS, alpha=0.3, linewidth=1, label="each batch")
    ax.plot(frame.rate, frame.smoothed, color=_LOSS, linewidth=2, label="smoothed")
    ax.axvline(steepest, color="0.6", linewidth=1, linestyle=":", label=f"falls fastest, {steepest:.1e}")
    ax.axvline(knee, color="0.6", linewidth=1, linestyle="--", label=f"has fallen, {knee:.1e}")
    ax.axvline(suggested, color=_MARK, linewidth=1.6, label=f"suggested peak, {suggested:.1e}")
    low = min(frame.smoothed.min(), frame.loss.min())
    top = frame.smoothed.iloc[: max(3, len(frame) // 5)].max()
    ax.set_ylim(low - 0.05 * (top - low), top + 0.35 * (top - low))
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    ax.set_ylabel("training loss, nats a token")
    ax.set_title("Range test", fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="lower left")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_noise(frame: Any, value: float, low: float, high: float, ax: Any = None) -> Any:
    """The noise scale over steps, each from the steps around it, and over all of them with its interval.

    Args:
        frame: signal and noise at each step.
        value, low, high: over all steps, in windows.
        ax: a matplotlib axes; a new one if not set.
    """
    ax = ax or need_pyplot().subplots(figsize=(5.4, 3.9), layout="constrained")[1]
    width = max(3, len(frame) // 5)
    around = frame[["signal", "noise"]].rolling(width, center=True, min_periods=width).mean()
    usable = around[around.signal > 0]
    scale = usable.noise.clip(lower=0) / usable.signal
    ax.plot(scale.index, scale, color=_LOSS, linewidth=2, label=f"over {width} steps")
    if math.isfinite(value):
        ax.axhline(value, color=_MARK, linewidth=1.6, label=f"all steps, {value:.0f} windows")
        top = high if math.isfinite(high) else 3 * value
        ax.axhspan(low, top, color=_MARK, alpha=0.15, linewidth=0, label="95 % interval")
        ax.set_ylim(0, max(1.6 * top, 1.1 * float(scale.max()) if len(scale) else 0))
    ax.set_xlabel("step of the measurement")
    ax.set_ylabel("noise scale, windows")
    ax.set_title("Gradient-noise scale", fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    ax.spines[["top", "right"]].set_visible(False)
    return ax

"""Figure of accuracy on minimal pairs over the size of the model."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.pyplot import need_pyplot, plain
from workbench.plots.scaling import LAW, LINE, log_ticks

if TYPE_CHECKING:
    from workbench.evals.scaling.grammar import GrammarScaling

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

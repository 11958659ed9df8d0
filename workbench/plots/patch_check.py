"""Estimated against exact effects."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.pyplot import need_pyplot, plain

if TYPE_CHECKING:
    from workbench.interp.patching.check import AttributionCheck

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7")
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
        colour = COLOURS[index % len(COLOURS)]
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

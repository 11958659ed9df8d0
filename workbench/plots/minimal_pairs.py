"""Figures of results on minimal pairs."""

from typing import TYPE_CHECKING, Any

from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.evals.result import BlimpResult


def plot_phenomena(result: "BlimpResult", ax: Any = None) -> Any:
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

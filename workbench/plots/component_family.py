"""Figures of a family of models: how many components carry a paradigm, and where they lie."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.components.family import ComponentFamily

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#1b222c")
"""Okabe and Ito's, told apart by colour-blind readers, and two greys; they come again after eight runs."""


def plot_family(family: "ComponentFamily", ax: Any = None) -> Any:
    """Left, the cumulative share of the components in the order of their rank, the mean over paradigms;
    right, the share of each part of the depth, MLPs hatched.

    Args:
        family: what `component_family` gave.
        ax: two matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    if ax is None:
        _, ax = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    curves = family.to_frame().groupby(["run", "rank"], sort=False).cumulative.mean()
    depths = family.depths()
    starts = sorted(depths["from"].unique())
    bar = 0.8 / len(family.runs)
    for index, run in enumerate(family.runs):
        colour = COLOURS[index % len(COLOURS)]
        line = curves[run].sort_index()
        count = len(line)
        ax[0].plot(
            np.arange(count + 1) / count, [0, *line], color=colour, label=f"{run} ({count})", linewidth=1.8
        )
        below = np.zeros(len(starts))
        for kind, hatch in (("head", None), ("mlp", "///")):
            mine = depths.query(f"run == @run and kind == {kind!r}").sort_values(by="from").share.to_numpy()
            places = np.arange(len(starts)) - 0.4 + bar * (index + 0.5)
            ax[1].bar(
                places, mine, bar * 0.92, below, color=colour, hatch=hatch, edgecolor="white", linewidth=0
            )
            below += mine
    for share in (0.5, 0.9):
        ax[0].axhline(share, color="0.75", linewidth=0.8, linestyle="--", zorder=0)
    ax[0].set(
        xlabel="share of the components, strongest first",
        ylabel="share of all effects",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    ax[0].legend(title="run (components)", frameon=False, fontsize=8, title_fontsize=8, loc="lower right")
    ends = [*starts[1:], 1.0]
    ax[1].set_xticks(
        range(len(starts)), [f"{start:.2g} to {end:.2g}" for start, end in zip(starts, ends, strict=True)]
    )
    ax[1].set(xlabel="relative depth: 0 first block, 1 last", ylabel="share of all effects")
    handles = [
        pyplot.Rectangle((0, 0), 1, 1, facecolor="0.6", edgecolor="white", hatch=h) for h in (None, "///")
    ]
    ax[1].legend(handles, ["heads", "MLPs"], frameon=False, fontsize=8)
    for panel in ax:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    ax[0].set_title(f"{family.method}, mean over {len(family.matrices[0].paradigms)} paradigms", fontsize=9)
    return ax

"""Figures of components over training."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import InputError, nearest
from workbench.plots.component_family import COLOURS
from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.components.history import ComponentHistory

MOST_PANELS, IN_A_ROW = 12, 3


def plot_history(
    history: "ComponentHistory", ax: Any = None, paradigms: Sequence[str] | None = None, top: int = 5
) -> Any:
    """Effects with their intervals over training, on a logarithmic axis from step 1 on; accuracy dotted, on
    the right.

    Args:
        history: what `component_history` gave.
        ax: as many matplotlib axes as paradigms; new ones if not set.
        paradigms: which; by default the twelve of the greatest accuracy at the end.
        top: lines in a panel: the components that are strongest at the end.

    Returns:
        The axes.

    Raises:
        InputError: no such paradigm, or matplotlib is not installed.
    """
    pyplot = need_pyplot()
    frame, last = history.to_frame(), history.matrices[-1]
    if paradigms is None:
        best = sorted(history.paradigms, key=lambda name: -last.accuracy[name])[:MOST_PANELS]
        paradigms = [name for name in history.paradigms if name in best]
    for name in paradigms:
        if name not in history.paradigms:
            raise InputError(f"no paradigm is called {name!r} here. {nearest(name, history.paradigms)}")
    if ax is None:
        across = min(IN_A_ROW, len(paradigms))
        down = math.ceil(len(paradigms) / across)
        _, made = pyplot.subplots(
            down, across, figsize=(4.2 * across, 2.6 * down), layout="constrained", squeeze=False, sharex=True
        )
        for spare in made.ravel()[len(paradigms) :]:
            spare.set_visible(False)
        ax = made.ravel()[: len(paradigms)]
    steps = history.steps
    for panel, paradigm in zip(ax, paradigms, strict=True):
        mine = frame.query("paradigm == @paradigm and kind in ('head', 'mlp')")
        end = mine.query("step == @steps[-1]")
        strongest = end.component.to_numpy()[np.argsort(-end.effect.abs().to_numpy(), kind="stable")[:top]]
        for index, component in enumerate(strongest):
            line = mine.query("component == @component").sort_values(by="step")
            colour = COLOURS[index % len(COLOURS)]
            panel.plot(
                line.step, line.effect, color=colour, linewidth=1.5, label=component, marker=".", markersize=4
            )
            panel.fill_between(line.step, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        panel.axhline(0, color="0.6", linewidth=0.7)
        panel.set_xscale("symlog", linthresh=1)
        panel.set_xlim(0, steps[-1])
        other = panel.twinx()
        other.plot(
            steps, [matrix.accuracy[paradigm] for matrix in history.matrices], ":", color="black", linewidth=1
        )
        other.set_ylim(0, 1)
        other.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"], fontsize=6, color="0.4")
        panel.set_title(paradigm.removeprefix("embedded_"), fontsize=8)
        panel.tick_params(labelsize=7)
        panel.legend(frameon=False, fontsize=6.5, loc="upper left")
        for one in (panel, other):
            one.spines["top"].set_visible(False)
            one.tick_params(length=2)
    ax[0].set_ylabel("nats for the grammatical sentence", fontsize=8)
    ax[0].figure.supxlabel(f"step; effect: {history.method}; dotted: pairs decided rightly", fontsize=9)
    return ax

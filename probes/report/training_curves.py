"""Scores over training: what each layer knew at each checkpoint."""

from typing import TYPE_CHECKING, Any

import numpy as np

from probes.activations.hooks import FINAL
from probes.report.curves import BASELINES, DASHES, curve, dress, has_heads, kinds_of
from probes.report.words import layer_name
from probes.result import MODEL, NOTHING, TASK
from workbench.plots import primitives as draw

if TYPE_CHECKING:
    from probes.result import ProbeResult


def histories(result: "ProbeResult") -> list[str]:
    """Runs that were probed at two checkpoints or more."""
    runs = [part.run for part in result.parts]
    return [run for run in dict.fromkeys(runs) if runs.count(run) > 1]


def plot_training(result: "ProbeResult", ax: Any = None, run: str | None = None) -> Any:
    """A line for each layer over the steps of a run, with 95 % intervals; logarithmic from step 1 on.

    Args:
        result: what `probe` gave for several checkpoints of a run.
        ax: axes to draw into; a new figure if not set.
        run: which; the first with several checkpoints if not set.

    Returns:
        The matplotlib figure.
    """
    figure, ax = draw.open_axes(ax, (7.6, 4.2))
    run = run or histories(result)[0]
    table: Any = result.table[result.table.run == run]
    kind = next((one for one in kinds_of(table) if not has_heads(table, one)), kinds_of(table)[0])
    mine = curve_of_all(table, kind)
    layers = np.unique(mine.layer.to_numpy(int))
    for layer, color in zip(layers, draw.shades(len(layers)), strict=True):
        line = mine[mine.layer == layer].sort_values("step")
        label = f"layer {layer}" if 0 <= layer < FINAL else layer_name(layer)
        ends = line.low, line.high
        draw.curve(ax, line.step, line.score, *ends, color=color, marker="o", markersize=3.5, label=label)
    last: Any = table[(table.source == NOTHING) & (table.step == table.step.max())]
    for name, words in BASELINES.items():
        for score in last[last.probe == name].score:
            ax.axhline(score, color="0.25", linewidth=0.9, linestyle=DASHES[name], label=words, zorder=1)
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xlim(left=0)
    ax.set_xlabel("step")
    dress(ax, result, f"{result.task} while {run} learned ({kind})")
    return figure


def curve_of_all(table: Any, kind: str) -> Any:
    """The curves of every checkpoint, one below the other."""
    import pandas as pd

    return pd.concat([curve(part, kind, MODEL, TASK) for _, part in table.groupby("step")])

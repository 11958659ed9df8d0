"""Scores by layer: the model, its controls, its baselines; families and checkpoints in one plot."""

from typing import TYPE_CHECKING, Any

import numpy as np

from probes.activations.hooks import FINAL
from probes.report.words import layer_name
from probes.result import CONTROL, MODEL, NOTHING, SHUFFLED, TASK, UNTRAINED
from workbench.plots import primitives as draw
from workbench.plots.primitives import PALETTE as COLOURS

if TYPE_CHECKING:
    import pandas as pd

    from probes.result import ProbeResult

BASELINES = {"word": "word's commonest label", "position": "position alone", "majority": "majority"}
STYLES = {
    (UNTRAINED, TASK): ("untrained copy", (0, (5, 2)), "0.35", "s"),
    (MODEL, CONTROL): ("control task", (0, (1, 1.2)), "#cc79a7", "^"),
    (MODEL, SHUFFLED): ("shuffled labels", (0, (1, 2.5)), "0.6", "v"),
}
MOST_BANDS = 4
"""Of more runs the intervals would hide each other; they stand in the tables."""
DASHES = {"word": (0, (8, 3)), "position": (0, (4, 2, 1, 2)), "majority": (0, (2, 2))}


def plot_layers(result: "ProbeResult", ax: Any = None) -> Any:
    """The layerwise curve: a line for each run and checkpoint with 95 % intervals over groups, the embedding
    first; horizontal lines for the baselines that read no activation.

    One run and checkpoint is drawn with its untrained copy, control task and shuffled labels; of several,
    the runs' own lines and the first one's baselines and untrained copy. Checkpoints of one run go from light
    to dark. Hook points with heads are drawn as a map of layers and heads.

    Args:
        result: what `probe` gave.
        ax: axes to draw into; a new figure if not set.

    Returns:
        The matplotlib figure.

    Raises:
        InputError: matplotlib is not installed.
    """
    table = result.table
    kinds = kinds_of(table)
    layered = [kind for kind in kinds if not has_heads(table, kind)]
    if not layered:
        from probes.report.heads import plot_heads

        return plot_heads(result, ax)
    figure, ax = draw.open_axes(ax, (7.6, 4.6))
    single = len(result.parts) == 1
    colours = _colours(result)
    markers = "oDPXsv^*"
    low = []
    for number, part in enumerate(result.parts):
        mine: Any = table[(table.run == part.run) & (table.step == part.step)]
        for index, kind in enumerate(layered):
            line = curve(mine, kind, MODEL, TASK)
            label = _label(result, part, kind, len(layered) > 1)
            colour = COLOURS[index % len(COLOURS)] if single else colours[number]
            marker = markers[(index if single else number // 2) % len(markers)]
            _draw(ax, line, colour, label, "-", marker, len(result.parts) <= MOST_BANDS)
            low.append(line.low.min())
    first: Any = table[(table.run == result.parts[0].run) & (table.step == result.parts[0].step)]
    for index, kind in enumerate(layered):
        for (source, labels), (name, dashes, grey, marker) in STYLES.items():
            line = curve(first, kind, source, labels)
            if len(line) and (single or (source, labels) == (UNTRAINED, TASK)):
                label = None if index else name if single else f"{name} of the first"
                _draw(ax, line, grey, label, dashes, marker, single)
                low.append(line.score.min())
    _baselines(ax, table, result.parts[0], low)
    _finish(ax, result, table, layered)
    return figure


def kinds_of(table: "pd.DataFrame") -> list[str]:
    """Kinds of hook points without the embedding, such as `hook_resid_post`."""
    from probes.activations.hooks import EMBEDDING, place_of

    hooks = table[(table.source == MODEL) & table.hook.notna()].hook.unique()
    kinds = list(dict.fromkeys(place_of(hook).kind for hook in hooks if hook != EMBEDDING))
    return kinds or [EMBEDDING]


def has_heads(table: "pd.DataFrame", kind: str) -> bool:
    """Whether a kind of hook points was probed head by head."""
    return bool(table[_of_kind(table, kind) & table["head"].notna()].shape[0])


def curve(table: "pd.DataFrame", kind: str, source: str, labels: str) -> "pd.DataFrame":
    """The rows of a kind of hook points by layer, the embedding in front where it was read."""
    from probes.activations.hooks import EMBEDDING

    chosen = (table.source == source) & (table.labels == labels) & table["head"].isna()
    mine: Any = table[chosen & (_of_kind(table, kind) | (table.hook == EMBEDDING))]
    return mine.drop_duplicates("layer").sort_values("layer")


def _of_kind(table: "pd.DataFrame", kind: str) -> Any:
    return table.hook.notna() & ((table.hook == kind) | table.hook.fillna("").str.endswith(f".{kind}"))


def layer_positions(layers: Any) -> np.ndarray:
    """Where layers stand on the axis; what comes behind the blocks stands one place after the last."""
    values = np.asarray(layers, float)
    inside = values[values < FINAL]
    last = inside.max() if len(inside) else -1
    return np.where(values >= FINAL, last + 1, values)


def _draw(
    ax: Any, line: "pd.DataFrame", colour: Any, label: str | None, dashes: Any, marker: str, band: bool
) -> None:
    x = layer_positions(line.layer)
    solid = dashes == "-"
    ends = (line.low, line.high) if band else ()
    draw.curve(
        ax, x, line.score, *ends, color=colour, band=0.18 if solid else 0.1, linestyle=dashes, marker=marker,
        markersize=4.5 if solid else 3.5, linewidth=1.8 if solid else 1.2, label=label,
        zorder=3 if solid else 2,
    )  # fmt: skip


def _baselines(ax: Any, table: "pd.DataFrame", part: Any, low: list[float]) -> None:
    mine: Any = table[(table.source == NOTHING) & (table.run == part.run) & (table.step == part.step)]
    for name, words in BASELINES.items():
        for score in mine[mine.probe == name].score:
            ax.axhline(score, color="0.25", linewidth=0.9, linestyle=DASHES[name], label=words, zorder=1)
            low.append(float(score))


def _finish(ax: Any, result: "ProbeResult", table: "pd.DataFrame", kinds: list[str]) -> None:
    rows = table[(table.source == MODEL) & table["head"].isna()]
    layers = np.unique(rows.layer.dropna().to_numpy(int))
    ax.set_xticks(layer_positions(layers), [layer_name(layer) for layer in layers])
    where = kinds[0] if len(kinds) == 1 else "several hooks"
    ax.set_xlabel(f"layer ({where}, {result.settings['token']} token)")
    dress(ax, result, f"{result.task}: {result.description}")


def dress(ax: Any, result: "ProbeResult", title: str) -> None:
    """Title, score axis, grid and legend of a figure of scores."""
    ax.set_ylabel(f"{result.measure}, test {result.unit}s")
    if result.classes:
        ax.set_ylim(top=1.02)
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %" if value <= 1 else "")
    draw.dress(ax)
    ax.set_title(draw.plain(title), fontsize=10, loc="left")
    ax.grid(axis="y", color="0.92", linewidth=0.7, zorder=0)
    draw.legend(ax, outside=True)


def _label(result: "ProbeResult", part: Any, kind: str, several: bool) -> str:
    name = "model" if len(result.parts) == 1 else short_title(result, part)
    return draw.plain(f"{name}, {kind}" if several else name)


def short_title(result: "ProbeResult", part: Any) -> str:
    """What tells a run and checkpoint from the others: the name, the step, or both."""
    runs = {one.run for one in result.parts}
    once = len(runs) == len(result.parts)
    if len(runs) == 1 and not once:
        return f"step {part.step:,}"
    name = part.run.rpartition("/")[2] or part.run
    if len({one.run.rpartition("/")[2] for one in result.parts}) < len(runs):
        name = part.run
    return name if once else f"{name}@{part.step}"


def _colours(result: "ProbeResult") -> list[Any]:
    count = len(result.parts)
    if len({part.run for part in result.parts}) == 1 or count > 20:
        return draw.shades(count)
    return (
        list(COLOURS[:count]) if count <= len(COLOURS) else list(draw.need_pyplot().get_cmap("tab20").colors)
    )

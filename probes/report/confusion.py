"""Which classes a probe takes for which."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots import primitives as draw

if TYPE_CHECKING:
    from probes.result import ProbeResult

MOST = 25
"""Classes drawn: the most frequent ones."""


def plot_confusion(
    result: "ProbeResult",
    ax: Any = None,
    hook: str | None = None,
    head: int | None = None,
    title: str | None = None,
) -> Any:
    """Each row is an actual class: the share of its labels that were predicted as each class.

    Args:
        result: what `probe` gave, of a task with classes.
        ax: axes to draw into; a new figure if not set.
        hook: where; at the best hook if not set.
        head: of a hook point with heads.
        title: run and checkpoint; the first if not set.

    Returns:
        The matplotlib figure.

    Raises:
        InputError: a task of numbers, no such probe, or matplotlib is not installed.
    """
    counts = result.confusion_matrix(hook, head, title)
    frequent = np.argsort(-counts.sum(1), kind="stable")[:MOST]
    frequent = frequent[counts.sum(1)[frequent] > 0]
    shares = counts[np.ix_(frequent, frequent)] / counts.sum(1)[frequent, None]
    names = [draw.plain(result.classes[index], 18) for index in frequent]
    rows = [f"{name}  ({count:,})" for name, count in zip(names, counts.sum(1)[frequent], strict=True)]
    percent = 100 * shares
    cells = np.array([["" if value < 0.5 else f"{value:.0f}" for value in row] for row in percent], object)
    side = max(3.6, 0.36 * len(frequent) + 1.6)
    figure, ax = draw.open_axes(ax, (side + 0.8, side))
    draw.heatmap(
        ax, percent, rows, names, cells=cells, limits=(0, 100), cmap=draw.SEQUENTIAL, rotation=60,
        fontsize=7.5 if len(frequent) <= 18 else 6, label="% of the row",
    )  # fmt: skip
    ax.set(xlabel="predicted", ylabel="actual (labels tested on)")
    ax.set_title(draw.plain(_where(result, hook, head, title)), fontsize=9, loc="left")
    return figure


def _where(result: "ProbeResult", hook: str | None, head: int | None, title: str | None) -> str:
    part = result.part(title)
    if hook is None:
        best = result.best(title)
        hook, head = str(best["hook"]), best["head"]
    of = f", head {int(head)}" if head is not None and head == head else ""
    return f"{result.task}: {part.title}, {hook}{of}"


def confused(
    result: "ProbeResult", title: str | None = None, top: int = 5
) -> list[tuple[str, str, int, float]]:
    """The commonest mistakes at the best hook: actual, predicted, count, share of the actual class."""
    counts = result.confusion_matrix(title=title)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:top]
    found = []
    for actual, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[actual, predicted]:
            share = wrong[actual, predicted] / counts[actual].sum()
            found.append(
                (
                    result.classes[actual],
                    result.classes[predicted],
                    int(wrong[actual, predicted]),
                    float(share),
                )
            )
    return found

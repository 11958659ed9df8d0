"""Which classes a probe takes for which."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.primitives import need_pyplot, plain

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
        ax: matplotlib axes; new ones if not set.
        hook: where; at the best hook if not set.
        head: of a hook point with heads.
        title: run and checkpoint; the first if not set.

    Returns:
        The axes.

    Raises:
        InputError: a task of numbers, no such probe, or matplotlib is not installed.
    """
    pyplot = need_pyplot()
    counts = result.confusion_matrix(hook, head, title)
    frequent = np.argsort(-counts.sum(1), kind="stable")[:MOST]
    frequent = frequent[counts.sum(1)[frequent] > 0]
    shares = counts[np.ix_(frequent, frequent)] / counts.sum(1)[frequent, None]
    if ax is None:
        side = max(3.6, 0.36 * len(frequent) + 1.6)
        _, ax = pyplot.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(shares):
        if value >= 0.005:
            colour = "white" if value > 0.55 else "0.15"
            size = 7 if len(frequent) <= 18 else 5.5
            ax.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=size, color=colour)
    names = [plain(result.classes[index])[:18] for index in frequent]
    numbers = counts.sum(1)[frequent]
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7.5)
    ax.set_yticks(
        range(len(names)),
        [f"{name}  ({count:,})" for name, count in zip(names, numbers, strict=True)],
        fontsize=7.5,
    )
    where = _where(result, hook, head, title)
    ax.set(xlabel="predicted, % of the row", ylabel="actual (labels tested on)")
    ax.set_title(plain(where), fontsize=9, loc="left")
    ax.tick_params(length=0)
    ax.figure.colorbar(image, ax=ax, shrink=0.7, format=lambda value, _: f"{100 * value:.0f} %")
    return ax


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

"""Lenses: what each layer says, how far it is from the end, and where a choice is made."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.primitives import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.lens import LensCurve, LensLoss, LensReading

LABELS = {
    "top_prob": "its probability",
    "target_log_prob": "log p(target), nats",
    "entropy": "entropy, nats",
    "kl": "KL to the end, nats",
    "loss": "cross-entropy, nats a token",
    "agreement": "agrees with the end",
}
LONGEST = 10
"""Letters of a token in a cell."""


def plot_reading(found: "LensReading", ax: Any = None, value: str = "top_prob") -> Any:
    """Point x position, the last point on top; in each cell the most likely token.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    grid = getattr(found, value)
    points, places = grid.shape
    if ax is None:
        size = (2.4 + 0.72 * places, 1.6 + 0.3 * points)
        _, ax = pyplot.subplots(figsize=(min(size[0], 40), min(size[1], 24)), layout="constrained")
    ax.set_facecolor("0.87")  # where there is no target
    limits = {"top_prob": (0, 1), "target_log_prob": (None, 0)}.get(value, (0, None))
    image = ax.imshow(grid, cmap="viridis", vmin=limits[0], vmax=limits[1], aspect="auto", origin="lower")
    for (point, place), token in np.ndenumerate(found.top_tokens):
        dark = image.norm(grid[point, place]) < 0.6 and not np.isnan(grid[point, place])
        shade = "white" if dark else "black"
        ax.text(
            place, point, _short(token), ha="center", va="center", fontsize=7, color=shade, parse_math=False
        )
    ax.set_xticks(
        range(places), [_short(token) for token in found.tokens], rotation=60, ha="right", parse_math=False
    )
    ax.set_yticks(range(points), found.points)
    ax.set_xlabel(
        "token read"
        if any(a != b for a, b in zip(found.tokens, found.targets, strict=True))
        else "hidden token"
    )
    ax.set_title(f"{found.lens}: the most likely token at each layer", fontsize=10)
    ax.figure.colorbar(image, ax=ax, label=LABELS[value])
    return ax


def plot_loss(found: "LensLoss", ax: Any = None, value: str = "kl") -> Any:
    """A curve over points.

    Raises:
        InputError: matplotlib is not installed.
    """
    ax = _curve_axes(found.points, ax)
    ax.plot(range(len(found.points)), getattr(found, value), marker="o", ms=4, label=found.lens)
    ax.set_ylabel(LABELS[value])
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return ax


def plot_curve(found: "LensCurve", ax: Any = None) -> Any:
    """The mean difference, its interval over pairs, and single pairs as far as they are few.

    Raises:
        InputError: matplotlib is not installed.
    """
    ax = _curve_axes(found.points, ax)
    frame = found.to_frame()
    places = range(len(frame))
    (line,) = ax.plot(places, frame["difference"], marker="o", ms=4, label=found.lens)
    if len(found.good) > 1:
        ax.fill_between(places, frame["low"], frame["high"], color=line.get_color(), alpha=0.2, lw=0)
    ax.axhline(0, color="0.3", lw=0.8)
    good, bad = found.names
    ax.set_ylabel(f"log p({good}) − log p({bad}), nats", parse_math=False)
    if len(found.good) > 1:
        ax.set_title(f"{len(found.good)} pairs, mean and 95 % interval", fontsize=10)
    ax.legend(frameon=False)
    return ax


def _curve_axes(points: tuple[str, ...], ax: Any) -> Any:
    if ax is None:
        size = (max(4.5, 1.5 + 0.5 * len(points)), 3.4)
        _, ax = need_pyplot().subplots(figsize=size, layout="constrained")
    long = max(map(len, points)) * len(points) > 50
    ax.set_xticks(range(len(points)), points, rotation=60 if long else 0)
    ax.grid(axis="y", color="0.92")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _short(token: str) -> str:
    text = repr(token)[1:-1].replace(" ", "␣", 1) if token.startswith(" ") else repr(token)[1:-1]
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"

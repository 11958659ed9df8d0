"""Figures of circuits: composition between heads, and the extreme token pairs of one head."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.heads import INK
from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.heads.circuits import TokenPairs
    from workbench.interp.heads.composition import Composition


def plot_composition(found: "Composition", ax: Any = None) -> Any:
    """Earlier x later head for each of Q, K and V: composition above that of random heads.

    Args:
        found: what `composition` gave.
        ax: three matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    kinds, layers, heads = found.value.shape[:3]
    if ax is None:
        side = max(2.6, 1.2 + 0.16 * layers * heads)
        _, ax = pyplot.subplots(1, kinds, figsize=(kinds * side + 0.6, side + 0.5), layout="constrained")
    some = slice(max(layers - 1, 1))  # the last layer writes for nobody here, the first reads nobody
    later = slice(min(layers - 1, 1), None)
    above = found.value[:, some, :, later] - found.random[:, None, None, None, None]
    above = above.reshape(kinds, above.shape[1] * heads, -1)
    most = max(0.05, float(np.nanmax(above, initial=0)))
    writers, readers = (
        [f"L{layer} H{head}" for layer in part for head in range(heads)]
        for part in (found.layers[some], found.layers[later])
    )
    ticks = range(0, len(writers), 1 if len(writers) <= 32 else heads)
    for panel, kind, values, chance in zip(ax, "QKV", above, found.random, strict=True):
        image = panel.imshow(np.ma.masked_invalid(values), cmap="PuOr", vmin=-most, vmax=most)
        panel.set_facecolor("0.87")
        panel.set_xticks(ticks, [readers[one] for one in ticks], rotation=90, fontsize=7)
        panel.set_yticks(ticks, [writers[one] for one in ticks], fontsize=7)
        panel.set(xlabel="reads")
        panel.set_title(f"{kind}-composition (random {chance:.2f})", fontsize=9, color=INK)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    ax[0].set(ylabel="writes")
    bar = ax[0].figure.colorbar(image, ax=list(ax), shrink=0.8, label="above random")
    bar.outline.set_visible(False)
    return ax


def plot_pairs(found: "TokenPairs", ax: Any = None) -> Any:
    """A bar for each token pair, the most extreme on top.

    Args:
        found: what `top_pairs` gave.
        ax: matplotlib axes to draw on; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    count = len(found.values)
    if ax is None:
        _, ax = pyplot.subplots(figsize=(4.6, 0.9 + 0.22 * count), layout="constrained")
    ax.barh(range(count), found.values, color=np.where(found.values < 0, "#d55e00", "#0072b2"), height=0.75)
    labels = [
        f"{row!r} → {column!r}" for row, column in zip(found.row_labels, found.column_labels, strict=True)
    ]
    ax.set_yticks(range(count), labels, fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("entry of the circuit", fontsize=8)
    ax.tick_params(length=0, labelsize=8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax

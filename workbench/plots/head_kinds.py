"""Figure of what heads go by: distance, the key's token, or what the query asks for."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.heads import INK
from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.heads.kinds import HeadKinds

COLOURS = {"total": "#dfe4ea", "distance": "#0072b2", "token": "#d55e00"}


def plot_kinds(found: "HeadKinds", ax: Any = None) -> Any:
    """A bar for each head: KL from uniform attention, and inside it what the two rules explain.

    Args:
        found: what `head_kinds` gave.
        ax: matplotlib axes to draw on; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    layers, heads = found.kinds.shape
    if ax is None:
        _, ax = pyplot.subplots(figsize=(5.6, 0.9 + 0.3 * layers * heads), layout="constrained")
    places = np.arange(layers * heads)
    ax.barh(places, found.of("total").ravel(), 0.8, color=COLOURS["total"], label="all")
    for name, shift in (("distance", -0.18), ("token", 0.18)):
        ax.barh(places + shift, found.of(name).ravel(), 0.3, color=COLOURS[name], label=f"by {name} alone")
    names = [f"L{layer}H{head}" for layer in found.layers for head in range(heads)]
    labels = [f"{name}  {kind}" for name, kind in zip(names, found.kinds.ravel(), strict=True)]
    ax.set_yticks(places, labels, fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("nats a query above uniform attention", fontsize=8, color=INK)
    ax.tick_params(length=0, labelsize=8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(fontsize=8, frameon=False)
    return ax

"""A circuit's accuracy against its size: the way to the smallest one, and its controls."""

from typing import TYPE_CHECKING, Any

from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.components.smallest_result import SmallestCircuit

DARK, LIGHT, GREY = "#33526e", "#7ba0c4", "0.6"


def plot_smallest_circuit(found: "SmallestCircuit", ax: Any = None) -> Any:
    """Accuracy against the number of parts kept, on the pairs that the set was chosen on (dashed) and on
    held-out ones; the circuit, random sets of its size, and the model without it. Returns the axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    if ax is None:
        _, ax = pyplot.subplots(figsize=(6.5, 4), layout="constrained")
    frame, half, size = found.curve(), found.held_out, len(found.kept)
    for direction, colour in (("backward", DARK), ("forward", LIGHT)):
        mine = frame[frame.direction == direction]
        if len(mine):
            way = "taking out" if direction == "backward" else "putting in"
            ax.plot(mine.parts, mine.accuracy, color=colour, linewidth=1, linestyle="--", marker=".")
            ax.plot(
                mine.parts,
                mine.held_accuracy,
                color=colour,
                marker="o",
                markersize=4,
                label=f"{way}, held out",
            )
    ax.plot([], [], color=GREY, linewidth=1, linestyle="--", label="chosen on")
    ax.axhline(found.target, color=GREY, linewidth=0.8)
    ax.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    ax.text(len(found.parts), found.target, "target ", ha="right", va="bottom", fontsize=8, color="0.4")
    if len(half.random):
        ax.plot(
            [size] * len(half.random),
            half.random_accuracy,
            "_",
            color=GREY,
            markersize=9,
            label="random sets",
        )
    ax.plot(
        len(found.parts) - size,
        half.accuracy("complement"),
        "x",
        color="#b5493b",
        label="without the circuit",
    )
    ax.plot(
        size,
        half.accuracy("circuit"),
        "*",
        color="#e0a030",
        markersize=14,
        label="circuit, held out",
        zorder=3,
    )
    ax.set(xlabel="heads and MLPs kept", ylabel="accuracy", xlim=(-0.4, len(found.parts) + 0.4))
    ax.xaxis.get_major_locator().set_params(integer=True)
    names = ", ".join(found.names[:6]) + (", ..." if size > 6 else "")
    ax.set_title(f"{names or 'nothing is needed'} ({found.how} ablation of the others)", fontsize=10)
    ax.legend(frameon=False, fontsize=8)
    return ax

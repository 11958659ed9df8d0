"""The strongest edges between components as a graph."""

from typing import TYPE_CHECKING, Any

from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.patching.edges import EdgeAttribution

FOR, AGAINST = "#2166ac", "#b2182b"


def plot_edges(result: "EdgeAttribution", ax: Any = None, count: int = 25) -> Any:
    """Layers upwards, heads side by side, MLPs to the right; blue edges raise the metric, red ones lower it,
    and the strongest are widest. A letter at an arrow's head is the input that it enters. Returns the axes.

    Args:
        result: what `edge_attribution` gave.
        ax: matplotlib axes; new ones if not set.
        count: how many edges.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    frame: Any = result.top(count)
    frame = frame[frame["score"] != 0]
    layers = max([one.layer for one in result.receivers])
    heads = 1 + max([one.head or 0 for one in result.senders])
    where = {"embed": (heads / 2 - 0.5, -1.0), "logits": (heads / 2 - 0.5, float(layers))}
    for one in result.senders:
        if one.layer is not None and one.layer >= 0:
            mlp = one.head is None
            where[one.label] = (heads + 0.3 if mlp else float(one.head or 0), one.layer + 0.35 * mlp)
    used = {name.split(".")[0] for column in ("sender", "receiver") for name in frame[column]}
    if ax is None:
        size = (2.0 + 0.85 * (heads + 1), 1.6 + 1.15 * (layers + 1))
        _, ax = pyplot.subplots(figsize=(min(size[0], 24), min(size[1], 24)), layout="constrained")
    most = float(frame["score"].abs().max()) if len(frame) else 1.0
    for row in frame.iloc[::-1].to_dict("records"):  # the strongest on top
        name, _, part = row["receiver"].partition(".")
        share = abs(row["score"]) / most
        colour = FOR if row["score"] > 0 else AGAINST
        (x, y), (to_x, to_y) = where[row["sender"]], where[name]
        ax.annotate(
            "", (to_x, to_y), (x, y),
            arrowprops={
                "arrowstyle": "-|>", "color": colour, "alpha": 0.25 + 0.75 * share,
                "linewidth": 0.6 + 3 * share, "shrinkA": 13, "shrinkB": 13,
                "connectionstyle": f"arc3,rad={_bend(part, x, to_x)}",
            },
        )  # fmt: skip
    for name, (x, y) in where.items():
        dim = name not in used
        ax.text(
            x, y, name, ha="center", va="center", fontsize=8, color="0.72" if dim else "black",
            bbox={"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": "0.85" if dim else "0.3"},
        )  # fmt: skip
    for name in used:
        parts = sorted({r.partition(".")[2] for r in frame["receiver"] if r.startswith(f"{name}.")})
        if parts:
            x, y = where[name]
            ax.text(x, y - 0.16, " ".join(parts), ha="center", va="top", fontsize=7, color="0.35")
    ax.set(xlim=(-0.8, heads + 1), ylim=(-1.4, layers + 0.4))
    ax.axis("off")
    how = f"{result.steps} steps" if result.steps else "plain gradient"
    ax.set_title(
        f"{len(frame)} strongest edges of {len(result.to_frame()):,}, {how}; {result.metric}, "
        f"{result.direction}\nblue raises it, red lowers it; the widest by {most:.3g}",
        fontsize=9,
    )
    return ax


def _bend(part: str, x: float, to_x: float) -> float:
    """How far an edge is bent, so that those into one head's q, k and v lie beside each other."""
    straight = {"q": 0.18, "k": 0.0, "v": -0.18}.get(part, 0.08)
    return straight if to_x >= x else -straight

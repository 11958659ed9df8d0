"""Direct logit attribution as bars."""

from typing import TYPE_CHECKING, Any

from workbench.plots.pyplot import need_pyplot

if TYPE_CHECKING:
    from workbench.interp.direct.logits import LogitAttribution

FOR, AGAINST = "#2166ac", "#b2182b"
"""The ends of `contributions.COLOURS`."""


def plot_logits(found: "LogitAttribution", ax: Any = None, count: int = 20) -> Any:
    """The largest mean contributions, the largest on top; whiskers are intervals over prompts.

    Raises:
        InputError: matplotlib is not installed.
    """
    pyplot = need_pyplot()
    top = found.top(count)
    if ax is None:
        _, ax = pyplot.subplots(figsize=(6, 1.4 + 0.24 * len(top)), layout="constrained")
    means = top["mean"].to_numpy()
    several = len(found.prompts) > 1
    spread = (means - top["low"], top["high"] - means) if several else None
    ax.barh(
        range(len(top)),
        means,
        xerr=spread,
        color=[FOR if value > 0 else AGAINST for value in means],
        error_kw={"ecolor": "0.35", "capsize": 2, "lw": 1},
    )
    ax.set_yticks(range(len(top)), top["component"], fontsize=8)
    ax.invert_yaxis()
    ax.axvline(0, color="0.3", lw=0.8)
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    answer = repr(found.right[0]) + ("" if found.wrong is None else f" − {found.wrong[0]!r}")
    over = f", mean of {len(found.prompts)} prompts" if several else ""
    ax.set_title(
        f"{found.quantity} {answer}: {found.logits.mean():+.2f}{over}", fontsize=10, parse_math=False
    )
    left = len(found.components) - len(top)
    ax.set_xlabel(
        "direct contribution, norms' scales frozen" + (f" ({left:,} smaller ones not shown)" if left else "")
    )
    return ax

"""Plots of erasure and steering."""

from typing import Any

from workbench.plots.primitives import need_pyplot, plain

COLOURS = {
    "nothing": "0.35", "concept": "#c2462e", "control concept": "#d99a2b", "random subspace": "#2f6db3",
    "random, as far": "#7fa8d6",
    "everything": "0.7", "probe's direction": "#c2462e", "random direction": "#2f6db3",
    "class means": "#3f8f5a",
}  # fmt: skip


def plot_erasure(result: Any) -> Any:
    """Draw probe score, change of loss (symlog) and of accuracy on pairs over hooks; return the figure."""
    pyplot = need_pyplot()
    frame, hooks = result.to_frame(), list(result.hooks)
    with_pairs = frame.pairs.notna().any()
    figure, axes = pyplot.subplots(
        1, 3 if with_pairs else 2, figsize=(13 if with_pairs else 9, 4), layout="constrained"
    )
    place = {hook: index for index, hook in enumerate(hooks)}
    for condition, rows in frame.groupby("condition", sort=False):
        x, colour = rows.hook.map(place), COLOURS[str(condition)]
        axes[0].plot(x, rows.probe, "o-", color=colour, label=condition, markersize=4)
        if condition == "nothing":
            continue
        for axis, name in zip(axes[1:], ("loss", "pairs"), strict=False):
            axis.fill_between(
                x, rows[f"{name}_low"], rows[f"{name}_high"], color=colour, alpha=0.15, linewidth=0
            )
            axis.plot(x, rows[name], "o-", color=colour, label=condition, markersize=4)
    axes[0].axhline(result.chance, color="0.5", linestyle=":", linewidth=1, label="chance")
    axes[0].set_ylabel(f"probe's {result.measure} after erasure")
    axes[1].set_ylabel("change of loss, nats per token")
    axes[1].set_yscale("symlog", linthresh=0.01)
    axes[1].axhline(0, color="0.5", linewidth=0.8)
    if with_pairs:
        axes[2].set_ylabel("change of accuracy on minimal pairs")
        axes[2].axhline(0, color="0.5", linewidth=0.8)
    for axis in axes:
        axis.set_xticks(range(len(hooks)), [_short(hook) for hook in hooks])
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"{plain(result.task)} erased from {plain(result.run)}", fontsize=11)
    return figure


def _short(hook: str) -> str:
    """`blocks.2.hook_resid_post` as `2 resid_post`."""
    parts = hook.split(".")
    name = parts[-1].removeprefix("hook_").replace("_", "\n", 1)
    return f"{parts[1]}\n{name}" if parts[0] == "blocks" else name


def plot_steering(result: Any) -> Any:
    """Draw probe, divergence, loss and pairs over the strength, a row for each hook; return the figure."""
    pyplot = need_pyplot()
    frame = result.to_frame()
    hooks = list(dict.fromkeys(frame.hook))
    panels = [
        ("read", f"read as {plain(result.target)}"),
        ("kl", "divergence, nats"),
        ("loss", "change of loss, nats"),
    ]
    if frame.pairs.notna().any():
        panels.append(("pairs", "change of accuracy on pairs"))
    size = (3.4 * len(panels), 2.6 * len(hooks) + 0.6)
    figure, axes = pyplot.subplots(
        len(hooks), len(panels), figsize=size, layout="constrained", squeeze=False, sharex=True
    )
    for row, hook in zip(axes, hooks, strict=True):
        mine = frame[frame.hook == hook]
        for direction, rows in mine.groupby("direction", sort=False):
            rows = rows.sort_values("strength")
            for axis, (name, _) in zip(row, panels, strict=True):
                colour = COLOURS[str(direction)]
                if f"{name}_low" in rows:
                    ends = rows[f"{name}_low"], rows[f"{name}_high"]
                    axis.fill_between(rows.strength, *ends, color=colour, alpha=0.15, linewidth=0)
                axis.plot(rows.strength, rows[name], "o-", color=colour, label=direction, markersize=4)
        for axis, (_, title) in zip(row, panels, strict=True):
            axis.set_title(f"{hook}\n{title}" if axis is row[0] else title, fontsize=9)
            axis.axvline(0, color="0.8", linewidth=0.8)
            axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("strength")
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"{plain(result.run)}: {plain(result.source)} to {plain(result.target)}", fontsize=11)
    return figure

"""Figures of one-variable laws: Kaplan's power law, the critical batch, predictions beside what came out."""

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.pyplot import need_pyplot, plain
from workbench.plots.scaling import LAW, LINE, log_ticks, size_label

if TYPE_CHECKING:
    from workbench.evals.scaling.critical_batch import CriticalBatch
    from workbench.evals.scaling.power import PowerLaw
    from workbench.evals.scaling.predictions import Checked


def _axes(ax: Any, size: tuple[float, float] = (5.6, 4.1)) -> Any:
    if ax is None:
        _, ax = need_pyplot().subplots(figsize=size, layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    return ax


def plot_power(law: "PowerLaw", ax: Any = None) -> Any:
    """The loss over N or D, the law and its 95 % interval.

    Args:
        law: what `fit_power` gave.
        ax: matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    ax = _axes(ax)
    x = law.x
    span = np.geomspace(x.min() / 1.4, x.max() * 1.4, 200)
    low, high = law.band(span)
    ax.fill_between(span, low, high, color=LAW, alpha=0.18, linewidth=0)
    ax.plot(span, law.loss(span), color=LAW, linewidth=1.8)
    ax.plot(x, law.points.y, "o", color=LINE, markersize=5)
    letter = law.variable.upper()
    floor = f"{law.constants['E'].value:.3g} + " if law.irreducible else ""
    ax.set_title(
        rf"$L({letter})$ = {floor}$({_scientific(law.scale.value)} / {letter})^{{{law.exponent.value:.3f}}}$",
        fontsize=9,
    )
    name = size_label(law.points) if law.variable == "n" else "D, tokens"
    ax.set(xlabel=name, ylabel=f"loss, {law.points.unit}")
    log_ticks(ax)
    return ax


def plot_critical_batch(found: "CriticalBatch", ax: Any = None) -> Any:
    """The simple noise scale over the loss and the law.

    Args:
        found: what `fit_critical_batch` gave.
        ax: matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    ax = _axes(ax)
    span = np.geomspace(found.loss.min() / 1.05, found.loss.max() * 1.05, 100)
    ax.plot(found.loss, found.noise_scale, "o", color=LINE, markersize=5)
    ax.plot(span, found.at(span), color=LAW, linewidth=1.8)
    log_ticks(ax)
    ax.invert_xaxis()
    ax.set(xlabel="loss, nats a token (training goes to the right)", ylabel="critical batch, tokens")
    ax.set_title(rf"$B = {_scientific(found.scale.value)} / L^{{1/{found.exponent.value:.2f}}}$", fontsize=9)
    return ax


def plot_checked(found: "Checked", ax: Any = None) -> Any:
    """Each prediction's interval beside what was measured: a row a run.

    Args:
        found: what `check_predictions` gave.
        ax: matplotlib axes; new ones if not set.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    rows = found.table.to_dict("records")
    ax = _axes(ax, (6.0, 1.2 + 0.35 * max(1, len(rows))))
    for place, row in enumerate(rows):
        ax.plot([row["low"], row["high"]], [place, place], color=LINE, linewidth=5, alpha=0.35)
        ax.plot(row["predicted"], place, "|", color=LINE, markersize=13, markeredgewidth=2)
        ax.plot(row["measured"], place, "o" if row["covered"] else "X", color=LAW, markersize=7)
    ax.set_yticks(range(len(rows)), [plain(str(row["run"])) for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel("loss: predicted (bar: 95 % interval) and measured (dot; a cross outside)", fontsize=8)
    return ax


def _scientific(value: float) -> str:
    """A number for a formula: 1.5 x 10^8."""
    digits, power = f"{value:.1e}".split("e")
    return digits if power == "+00" else rf"{digits} \times 10^{{{int(power)}}}"

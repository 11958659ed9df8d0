"""All figures of a result."""

import io
from typing import TYPE_CHECKING, Any

from probes.report.confusion import plot_confusion
from probes.report.curves import has_heads, kinds_of, plot_layers
from probes.report.heads import plot_heads
from probes.report.training_curves import histories, plot_training

if TYPE_CHECKING:
    from probes.result import ProbeResult


def pictures(result: "ProbeResult") -> dict[str, Any]:
    """Figures by name: `layers`, `heads`, `training`, `confusion`; if there is something to show."""
    found: dict[str, Any] = {}
    kinds = kinds_of(result.table)
    if any(not has_heads(result.table, kind) for kind in kinds):
        found["layers"] = plot_layers(result)
    if any(has_heads(result.table, kind) for kind in kinds):
        found["heads"] = plot_heads(result)
    if histories(result):
        found["training"] = plot_training(result)
    if result.classes:
        found["confusion"] = plot_confusion(result)
    return found


def svg(figure: Any) -> str:
    """A figure as SVG, the same bytes for the same figure."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "probes"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()

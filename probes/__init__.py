"""Probes: what each layer of a model knows, with the controls that make it evidence.

`import probes` is instant: names load their modules on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.activations.extraction import extract
    from probes.align import Aligned, align
    from probes.examples import Document, Item, Task
    from probes.experiment import probe
    from probes.result import ProbeResult
    from probes.splits import split
    from probes.tasks import TASKS, load_task

_HOMES = {
    "Aligned": "probes.align",
    "Document": "probes.examples",
    "Item": "probes.examples",
    "ProbeResult": "probes.result",
    "TASKS": "probes.tasks",
    "Task": "probes.examples",
    "align": "probes.align",
    "extract": "probes.activations.extraction",
    "load_task": "probes.tasks",
    "probe": "probes.experiment",
    "split": "probes.splits",
}

__all__ = [
    "TASKS",
    "Aligned",
    "Document",
    "Item",
    "ProbeResult",
    "Task",
    "align",
    "extract",
    "load_task",
    "probe",
    "split",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'probes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

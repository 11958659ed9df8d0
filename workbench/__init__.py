"""A mechanistic interpretability workbench for small language models.

`import workbench as wb` is instant: names load their modules on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.data.embedded.pairs import embedded_pairs
    from workbench.data.embedded.stories import stories
    from workbench.errors import WorkbenchError
    from workbench.evals.blimp import blimp
    from workbench.interp.attribution import attribute_pair
    from workbench.interp.attribution_patching import attribution_patch
    from workbench.interp.layer_weights import layer_weights
    from workbench.interp.patching import patch
    from workbench.model.classifier import SequenceClassifier
    from workbench.model.config import ModelConfig
    from workbench.model.presets import PRESETS, preset
    from workbench.model.transformer import HookedTransformer
    from workbench.runs.catalogue import list_runs, load

__version__ = "0.1.0"

_HOMES = {
    "HookedTransformer": "workbench.model.transformer",
    "ModelConfig": "workbench.model.config",
    "PRESETS": "workbench.model.presets",
    "SequenceClassifier": "workbench.model.classifier",
    "WorkbenchError": "workbench.errors",
    "attribute_pair": "workbench.interp.attribution",
    "attribution_patch": "workbench.interp.attribution_patching",
    "blimp": "workbench.evals.blimp",
    "embedded_pairs": "workbench.data.embedded.pairs",
    "layer_weights": "workbench.interp.layer_weights",
    "list_runs": "workbench.runs.catalogue",
    "load": "workbench.runs.catalogue",
    "patch": "workbench.interp.patching",
    "preset": "workbench.model.presets",
    "stories": "workbench.data.embedded.stories",
}

__all__ = [
    "PRESETS",
    "HookedTransformer",
    "ModelConfig",
    "SequenceClassifier",
    "WorkbenchError",
    "attribute_pair",
    "attribution_patch",
    "blimp",
    "embedded_pairs",
    "layer_weights",
    "list_runs",
    "load",
    "patch",
    "preset",
    "stories",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

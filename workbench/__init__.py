"""A mechanistic interpretability workbench for small language models.

`import workbench as wb` is instant: the names in `__init__.pyi` are loaded on first use. The rest of the
library is in the subpackages `wb.interp`, `wb.evals`, `wb.scaling`, `wb.data`, `wb.model`, `wb.runs`,
`wb.zoo` and `wb.plots`.
"""

from importlib import import_module
from typing import Any

import lazy_loader

__version__ = "0.1.0"

_attached, _attached_dir, __all__ = lazy_loader.attach_stub(__name__, __file__)
# The packages above the library, named here so that one import is enough in a notebook.
_ABOVE = {"train": "training", "resume": "training", "probe": "probes"}
__all__ = [*__all__, *_ABOVE]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _ABOVE:
        return getattr(import_module(_ABOVE[name]), name)
    return _attached(name)


def __dir__() -> list[str]:
    return [*_attached_dir(), *_ABOVE]

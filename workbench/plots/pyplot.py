"""matplotlib, where it is installed."""

from typing import Any

from workbench.errors import InputError


def need_pyplot() -> Any:
    """matplotlib's pyplot.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        raise InputError("plotting needs matplotlib: pip install 'interp-workbench[notebook]'.") from None
    return pyplot

"""matplotlib, where it is installed."""

from typing import Any

from workbench.errors import InputError


def plain(text: str) -> str:
    """Text for a label: no line breaks or control characters, and `$` begins no formula."""
    visible = "".join(letter if letter.isprintable() else "·" for letter in text.strip())
    return visible.replace("$", r"\$") or "␣"


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

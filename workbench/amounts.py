"""Large numbers as people write them: `50M`, `1e15`, `2.5G`."""

import math
import re
from typing import Any

from workbench.errors import ConfigError, shown

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


def amount(value: Any, where: str) -> float:
    """A number above 0, or a text such as `50M`, `1e15`, `1_000` or `2.5G`.

    Args:
        value: what was given.
        where: the field or option that it was given for, for the message.

    Raises:
        ConfigError: anything else.
    """
    number = value
    if isinstance(value, str):
        word = value.strip().replace(",", "").replace("_", "")
        found = re.fullmatch(r"([\d.]+(?:[eE][+-]?\d+)?)([kKmMgGbBtT]?)", word)
        try:
            number = float(found[1]) * _UNITS[found[2].lower()] if found else math.nan
        except ValueError:
            number = math.nan
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 1e40:
        raise ConfigError(f"{where} must be a number above 0, such as 50M or 1e15; found {shown(value)!r}.")
    return float(number)

"""What the charts share."""

from typing import Any

BARE: Any = {"ticks": False, "domain": False, "labelFlush": False, "labelBound": False}
"""An axis that is labels only, each in its place."""

NONE: Any = {"left": 0, "right": 0, "top": 0, "bottom": 2}
"""No margin around a chart; the page has its own."""

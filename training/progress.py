"""The progress line, which lives in `workbench.progress`."""

from workbench.progress import Progress, clock, short

__all__ = ["Progress", "clock", "short"]

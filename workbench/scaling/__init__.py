"""Scaling laws: points from runs or tables, fits with intervals, compute-optimal sizes, predictions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

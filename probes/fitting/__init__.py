"""Fitting probes: many at once, each with labels, rows and a penalty of its own."""

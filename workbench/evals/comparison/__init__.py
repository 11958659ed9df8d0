"""Runs beside each other: what differs, what came out, and how far seeds alone move it."""

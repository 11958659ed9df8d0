"""Models side by side, one model over its training, and the whole family."""

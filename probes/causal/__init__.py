"""Is what a probe reads used? Erase it, or push it, and see what the model does."""

"""The study of a run in one go."""

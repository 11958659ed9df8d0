"""Train a model on stories, from scratch, into a new run folder."""

from training.command import add_arguments, run

__all__ = ["add_arguments", "run"]

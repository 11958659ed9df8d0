"""Published figures that the family is held against, with their sources. None of them is ours."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
    """A model's mean share of minimal pairs decided rightly, in per cent."""

    name: str
    objective: str
    parameters: int
    mean: float
    low: float
    high: float
    """95 % interval over seeds."""
    seeds: int


TINY_TRANSFORMERS = (
    Published("GPT-Neo", "clm", 9_585_664, 57.82, 56.97, 58.68, 6),
    Published("RoBERTa", "mlm", 9_863_952, 58.48, 56.68, 59.50, 6),
)
"""AISE-TUDelft's models trained on TinyStories: macro average over BLiMP's 12 phenomena and 5 supplement
tasks, by the evaluation pipeline of the BabyLM challenge of 2023."""

SEED_SPREAD = 1.1
"""Standard deviation over seeds of those, in points."""
BLIMP_PAPER = {"human": 88.6, "GPT-2": 83.0, "LSTM": 69.8, "5-gram": 61.2}
"""Warstadt et al. 2020, mean over 67 paradigms."""

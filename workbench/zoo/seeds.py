"""One configuration trained from several seeds: mean and interval over the training, not over the pairs."""

import dataclasses
import math
from collections.abc import Sequence

from workbench.runs import folder
from workbench.runs.shipped import family_folder
from workbench.zoo.family_files import family_facts
from workbench.zoo.table import changes


@dataclasses.dataclass(frozen=True)
class SeedInterval:
    """Mean over seeds with Student's interval of the mean."""

    mean: float
    low: float
    high: float
    spread: float
    """Standard deviation over seeds."""
    n: int
    """Seeds."""


def seed_interval(values: Sequence[float], confidence: float = 0.95) -> SeedInterval:
    """Student's interval of a mean of few values.

    Args:
        values: one for each seed; at least two.
        confidence: of the interval.

    Raises:
        ValueError: fewer than two values.
    """
    from scipy import stats

    n = len(values)
    if n < 2:
        raise ValueError(f"an interval over seeds needs two of them; found {n}")
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    reach = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * spread / math.sqrt(n)
    return SeedInterval(mean, mean - reach, mean + reach, spread, n)


def seeds_of_middle() -> list[str]:
    """Members that differ from the middle one in nothing but the seed, itself among them."""
    facts = family_facts()
    other = folder.read_config(family_folder() / facts["middle"])
    return [
        name
        for name in facts["members"]
        if changes(folder.read_config(family_folder() / name), other).keys() <= {"seed"}
    ]

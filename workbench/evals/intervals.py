"""Shares of right decisions with Wilson intervals (Wilson 1927), for one paradigm and for means of many."""

import dataclasses
import math
from collections.abc import Sequence
from statistics import NormalDist

Number = int | float


@dataclasses.dataclass(frozen=True)
class Share:
    """A share in [0, 1] and its interval."""

    accuracy: float
    low: float
    high: float
    n: int
    """Pairs it rests on."""
    ties: int
    """Pairs with two equal scores among them."""

    def __str__(self) -> str:
        return f"{self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}]"


def wilson(accuracy: Number, n: Number, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Args:
        accuracy: the share observed; ties may have made it a multiple of 1 / 2n.
        n: number of trials, or the effective number behind a weighted mean.
        confidence: of the interval.

    Raises:
        ValueError: `accuracy` outside [0, 1] or no trials.
    """
    if not 0.0 <= accuracy <= 1.0 or not n > 0:
        raise ValueError(f"no interval for a share of {accuracy} in {n} trials")
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    centre = accuracy + z2 / (2 * n)
    reach = math.sqrt(z2 * (accuracy * (1 - accuracy) + z2 / (4 * n)) / n)
    low, high = (centre - reach) / (1 + z2 / n), (centre + reach) / (1 + z2 / n)
    # Exact at the ends, where the formula leaves a rounding error on the wrong side.
    return max(0.0, min(low, accuracy)), min(1.0, max(high, accuracy))


def weighted_share(
    accuracies: Sequence[Number], counts: Sequence[int], weights: Sequence[Number], ties: int = 0
) -> Share:
    """A weighted mean of shares, with Wilson's interval for as many pairs as its variance is worth.

    Pairs in a small stratum weigh more and tell less: the effective number is 1 / sum(w_i^2 / n_i),
    which is the number of pairs when each pair has the same weight. Variation between the strata is
    left in, so the interval is on the wide side. It is about drawing other pairs, not about training
    the model again: seeds alone move BLiMP by about a point.

    Args:
        accuracies: share of each stratum.
        counts: pairs of each stratum.
        weights: weight of each stratum; scaled to sum to one.
        ties: to be carried along.
    """
    total = sum(weights)
    scaled = [weight / total for weight in weights]
    mean = math.fsum(weight * accuracy for weight, accuracy in zip(scaled, accuracies, strict=True))
    mean = min(1.0, max(0.0, mean))
    effective = 1 / math.fsum(weight**2 / n for weight, n in zip(scaled, counts, strict=True))
    return Share(mean, *wilson(mean, effective), n=sum(counts), ties=ties)

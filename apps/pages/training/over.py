"""One pair, or the mean of its paradigm: a choice that both views share."""

from apps.answers import comparison
from apps.answers.wanted import Wanted
from apps.frame import address

OVER = {"pair": "This pair", "paradigm": "Mean of the paradigm"}


def choose(wanted: Wanted) -> str:
    """`pair` or `paradigm`; the reader's own sentences have no paradigm."""
    if wanted.uid is None or wanted.source is None:
        return "pair"
    return address.one_of(
        "tover",
        "Over",
        OVER,
        help=f"One pair, or the mean over the first {comparison.PAIRS} pairs of its paradigm.",
    )

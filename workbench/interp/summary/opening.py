"""The pair to open on: a clear mistake whose components can be told."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.interp.direct.contributions import PairAttribution
from workbench.interp.direct.pair import attribute_pair

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Opening:
    """A pair of a set, and how clearly the model decides it: nats by which the right sentence is ahead."""

    paradigm: str
    pair_id: int
    difference: float
    """Over the whole sentences."""
    difference_at_place: float
    """At the first token that differs."""


def candidates(frame: "pd.DataFrame", count: int = 6) -> "pd.DataFrame":
    """Mistakes to open on: the clearest one of each paradigm that the model mostly gets right (else of all),
    of sentences with equally many tokens where there are any; clearest first.

    Args:
        frame: as `BlimpResult.per_pair`, with sentences.
        count: at most so many.
    """
    accuracy = frame.groupby("paradigm").correct.transform("mean")
    even = frame.tokens_good == frame.tokens_bad
    wrong = frame.correct < 0.5
    kinds = (wrong & even & (accuracy > 0.5), wrong & even, wrong, frame.correct >= 0)
    chosen = next((frame[kind] for kind in kinds if kind.any()), frame)
    clearest = chosen.loc[chosen.groupby("paradigm").margin.idxmin()]
    return clearest.sort_values(["margin", "paradigm"], kind="stable").head(count)


def opening_pair(
    model: Any,
    tokenizer: Any,
    frame: "pd.DataFrame",
    protocol: str = "native",
    pll: str = "original",
    attribute: Callable[[str, str], PairAttribution] | None = None,
) -> Opening | None:
    """Of the clearest mistakes of several paradigms the one whose first differing token carries most of it,
    so that its components can be told; None without pairs.

    Args:
        model: a `HookedTransformer`.
        tokenizer: its own.
        frame: the model's decisions, as `BlimpResult.per_pair`, with sentences.
        protocol: how they were scored.
        pll: for masked models.
        attribute: takes the place of `attribute_pair`, for a caller that remembers what it gave.
    """

    def own(good: str, bad: str) -> PairAttribution:
        return attribute_pair(model, tokenizer, good, bad, protocol=protocol, pll=pll)

    found = []
    for row in candidates(frame).to_dict("records"):
        pair = (attribute or own)(row["sentence_good"], row["sentence_bad"])
        where = Opening(
            str(row["paradigm"]), int(row["pair_id"]), float(pair.difference), float(pair.difference_at_place)
        )
        found.append((max(where.difference, where.difference_at_place), where.paradigm, where.pair_id, where))
    return min(found)[-1] if found else None

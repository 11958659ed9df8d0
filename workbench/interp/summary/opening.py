"""The pair to open on: a clear mistake at one token, so that its components can be told."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.interp.direct.contributions import PairAttribution
from workbench.interp.direct.pair import attribute_pair

if TYPE_CHECKING:
    import pandas as pd

LOOKED_AT = 2000
"""Mistakes whose tokens are compared."""


@dataclasses.dataclass(frozen=True)
class Opening:
    """A pair of a set, and what it is made of."""

    paradigm: str
    pair_id: int
    pair: PairAttribution = dataclasses.field(repr=False, compare=False)


def candidates(frame: "pd.DataFrame", tokenizer: Any = None, count: int = 6) -> "pd.DataFrame":
    """Mistakes to open on: the clearest one of each paradigm that the model mostly gets right (else of all),
    of sentences that differ in one token where there are any, else of equally many; clearest first.

    Args:
        frame: as `BlimpResult.per_pair`, with sentences.
        tokenizer: the model's; None: tokens are not looked at.
        count: at most so many.
    """
    accuracy = frame.groupby("paradigm").correct.transform("mean")
    even = frame.tokens_good == frame.tokens_bad
    wrong = frame.correct < 0.5
    single = _single(frame, wrong & even & (accuracy > 0.5), tokenizer)
    kinds = (single, wrong & even & (accuracy > 0.5), wrong & even, wrong, frame.correct >= 0)
    chosen = next((frame[kind] for kind in kinds if kind.any()), frame)
    clearest = chosen.loc[chosen.groupby("paradigm").margin.idxmin()]
    return clearest.sort_values(["margin", "paradigm"], kind="stable").head(count)


def _single(frame: "pd.DataFrame", among: "pd.Series", tokenizer: Any) -> np.ndarray:
    """Which of the clearest of these pairs differ in one token only."""
    found = np.zeros(len(frame), dtype=bool)
    rows = np.flatnonzero(among.to_numpy())
    if tokenizer is None or not len(rows):
        return found
    rows = rows[np.argsort(frame.margin.to_numpy()[rows], kind="stable")][:LOOKED_AT]
    goods, bads = (frame[name].iloc[rows].tolist() for name in ("sentence_good", "sentence_bad"))
    for row, good, bad in zip(rows, tokenizer(goods)["input_ids"], tokenizer(bads)["input_ids"], strict=True):
        found[row] = len(good) == len(bad) and sum(a != b for a, b in zip(good, bad, strict=True)) == 1
    return found


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
    for row in candidates(frame, tokenizer).to_dict("records"):
        pair = (attribute or own)(row["sentence_good"], row["sentence_bad"])
        worst = max(pair.difference, pair.difference_at_place)
        where = Opening(str(row["paradigm"]), int(row["pair_id"]), pair)
        found.append((worst, where.paradigm, where.pair_id, where))
    return min(found)[-1] if found else None

"""The pair that the page opens on, and what a summary knows of it before the model is read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from apps.answers.catalogue import Opened
from apps.answers.explain import MINIMAL, Subject, View, explain_pair
from apps.answers.libraries import libraries
from apps.answers.sources import Source, protocol_of, scored_pairs
from apps.answers.summaries import table
from apps.look.tokens import Column, Scored, bare, side_by_side
from workbench.interp.components import Component

if TYPE_CHECKING:
    import pandas as pd

    from workbench.interp.attribution import PairAttribution


@dataclass(frozen=True)
class FirstLook:
    """Verdict, tokens and components of a pair, without its readings."""

    difference: float
    """Of the whole sentences, nats."""
    columns: list[Column]
    """Empty where the tokens are not kept."""
    subject: Subject


def opening_pair(opened: Opened, source: Source) -> tuple[str, int] | None:
    """Paradigm and pair to open on, see `workbench.interp.summary`: as the run's summary has it, else
    chosen now; None without either a summary or a saved result."""
    known = _known_opening(opened, source)
    if known is not None or source.saved is None:
        return known
    return _opening(opened, opened.key, source.saved.modified, source)


def _known_opening(opened: Opened, source: Source) -> tuple[str, int] | None:
    row = _row(opened, source)
    return None if row is None else (str(row["paradigm"]), int(row["pair_id"]))


def _row(opened: Opened, source: Source) -> dict[str, Any] | None:
    frame, saved = table(opened, "opening"), source.saved
    if frame is None:
        return None
    rows = frame.loc[frame.pairs == source.key]
    if saved is not None:
        rows = rows.loc[(rows.fingerprint == saved.fingerprint) & (rows.protocol == saved.protocol)]
        rows = rows.loc[rows.pll.isna() if saved.pll is None else rows.pll == saved.pll]
    return None if rows.empty else rows.to_dict("records")[0]


def first_look(opened: Opened, source: Source, uid: str, pair_id: int) -> FirstLook | None:
    """What the run's summary knows of this pair; None where it is not the one to open on, or not known."""
    row, parts = _row(opened, source), table(opened, "opening_parts")
    if row is None or parts is None or (row["paradigm"], row["pair_id"]) != (uid, pair_id):
        return None
    place, records = int(row["place"]), parts.loc[parts.pairs == source.key].to_dict("records")
    tokens = table(opened, "opening_tokens")
    good, bad = _scored(tokens, source.key, "good"), _scored(tokens, source.key, "bad")
    at = [f"‘{bare(side[place][1])}’" if place < len(side) else "nothing" for side in (good, bad)]
    here = View(
        "position", f"At {at[0]} against {at[1]}" if good else "Where they first differ",
        float(row["difference_at_place"]),
        "logit difference" if row["same_context"] else "log-probability difference",
        np.array([one["at_place"] for one in records]), float(row["uniform_at_place"]), 0.0, place,
    )  # fmt: skip
    components = tuple(Component.parse(one["component"]) for one in records)
    first, second = MINIMAL
    subject = Subject("saved", components, (here,), (), f"the {first} one", f"the {second} one")
    columns = side_by_side(good, bad, place) if good and bad else []
    return FirstLook(float(row["difference"]), columns, subject)


def _scored(tokens: "pd.DataFrame | None", pairs: str, side: str) -> list[Scored]:
    if tokens is None:
        return []
    mine = tokens.loc[(tokens.pairs == pairs) & (tokens.sentence == side)]
    return list(zip(mine.id.tolist(), mine.token.tolist(), mine.log_prob.tolist(), strict=True))


@st.cache_resource(max_entries=32, show_spinner="Looking for a telling pair …")
def _opening(_opened: Opened, key: str, modified: int, _source: Source) -> tuple[str, int] | None:
    libraries()
    from workbench.interp.summary import opening_pair as choose

    protocol, pll = protocol_of(_source)

    def attribute(good: str, bad: str) -> "PairAttribution":
        return explain_pair(_opened, good, bad, protocol, pll)

    found = choose(_opened.model, _opened.tokenizer, scored_pairs(_source), protocol, pll, attribute)
    return None if found is None else (found.paradigm, found.pair_id)

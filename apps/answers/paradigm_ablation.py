"""A whole paradigm with and without parts of the model, some pairs at a time; no widget in here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import streamlit as st

from apps.answers.ablate import replacements
from apps.answers.catalogue import Opened
from apps.answers.wanted import Wanted
from workbench.data.pairs import Pair, PairSet
from workbench.evals.blimp import blimp
from workbench.evals.scoring import ready
from workbench.interp.ablation import DRAWS, ablated, on_threads
from workbench.stats import Accuracy, Estimate, Flips, bootstrap_mean, mcnemar, weighted_accuracy

if TYPE_CHECKING:
    import pandas as pd

TRIAL = 8
"""Pairs that the rate is measured on."""


@dataclass(frozen=True)
class Outcome:
    """What taking the parts out did to the decisions on some pairs."""

    before: Accuracy
    after: Accuracy
    change: Estimate
    """After minus before, with its 95 % interval by drawing pairs again."""
    flips: Flips
    margin: Estimate
    """Of the margin, nats."""


def pairs_of(wanted: Wanted) -> tuple[Pair, ...]:
    """The pairs of the chosen paradigm, by their number; none for sentences of the reader's own."""
    if wanted.paradigm is None:
        return ()
    columns = ["sentence_good", "sentence_bad", "paradigm", "phenomenon", "pair_id"]
    frame = wanted.paradigm.per_pair.sort_values("pair_id", kind="stable")
    return tuple(Pair(*row) for row in frame[columns].itertuples(index=False, name=None))


def pair_set(pairs: Sequence[Pair]) -> PairSet:
    """Some pairs of one paradigm."""
    return PairSet("these pairs", "folder", {pairs[0].uid: tuple(pairs)})


def measure(
    opened: Opened, pairs: Sequence[Pair], off: tuple[str, ...], how: str, protocol: str, pll: str
) -> "pd.DataFrame":
    """Decisions on these pairs by the whole model and without the parts; see `ablation_effect`, whose numbers
    these are. Both are computed now and alike, so that what does nothing changes nothing.

    Returns:
        `BlimpResult.per_pair` of the whole model with the columns `margin_now` and `correct_now`, means over
        the draws of a resampled ablation.
    """
    some = pair_set(pairs)
    tokenizer = opened.tokenizer
    given = replacements(opened, off, how)
    with opened.lock, ready(opened.model) as network, on_threads(network):
        table = blimp(network, some, protocol, pll=pll, tokenizer=tokenizer, progress=False).per_pair
        found = []
        for each in given:
            with ablated(network, off, each.how, each):
                scored = blimp(network, some, protocol, pll=pll, tokenizer=tokenizer, progress=False)
                found.append(scored.per_pair)
    return table.assign(
        margin_now=sum(one.margin for one in found) / len(found),
        correct_now=sum(one.correct for one in found) / len(found),
    )


def outcome(frame: "pd.DataFrame") -> Outcome:
    """Accuracies with Wilson's intervals, the paired change, the pairs that turned (McNemar)."""
    count = len(frame)
    shares = [
        weighted_accuracy([float(correct.mean())], [count], [1.0], int((margin == 0).sum()))
        for correct, margin in (
            (frame.correct, frame.margin), (frame.correct_now, frame.margin_now),
        )
    ]  # fmt: skip
    change = (frame.correct_now - frame.correct).to_numpy(float)
    margin = (frame.margin_now - frame.margin).to_numpy(float)
    return Outcome(shares[0], shares[1], bootstrap_mean(change), mcnemar(change), bootstrap_mean(margin))


def turned(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The pairs whose decision changed, lost before gained, the largest change of margin first: turn,
    pair_id, margin, margin_now, change, sentence_good, sentence_bad."""
    moved = frame[frame.correct_now != frame.correct].assign(
        change=lambda rows: rows.margin_now - rows.margin
    )
    moved = moved.assign(turn=["lost" if now < was else "gained" for was, now in
                               zip(moved.correct, moved.correct_now, strict=True)])  # fmt: skip
    moved = moved.assign(size=-moved.change.abs()).sort_values(
        ["turn", "size", "pair_id"], ascending=[False, True, True], kind="stable"
    )
    columns = ["turn", "pair_id", "margin", "margin_now", "change", "sentence_good", "sentence_bad"]
    return cast("pd.DataFrame", moved[columns]).reset_index(drop=True)


def seconds_a_pair(opened: Opened, pairs: Sequence[Pair], how: str, protocol: str, pll: str) -> float:
    """What a pair takes, measured on a few of them; remembered."""
    runs = 1 + (DRAWS if how == "resample" else 1)
    return runs * _rate(opened, opened.key, pairs[0].uid, protocol, pll, pair_set(pairs[:TRIAL]))


@st.cache_data(max_entries=64, show_spinner=False)
def _rate(_opened: Opened, key: str, uid: str, protocol: str, pll: str, _pairs: PairSet) -> float:
    with _opened.lock:
        few = _pairs.select(limit=2)
        blimp(_opened.model, few, protocol, pll=pll, tokenizer=_opened.tokenizer, progress=False)
        began = time.perf_counter()
        blimp(_opened.model, _pairs, protocol, pll=pll, tokenizer=_opened.tokenizer, progress=False)
        return (time.perf_counter() - began) / len(_pairs)

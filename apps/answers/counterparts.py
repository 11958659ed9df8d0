"""For a pair whose sentences begin alike: another beginning, of the same paradigm, after which the other
token is the right one. The two beginnings are the clean and the corrupted prompt of a patch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from apps.answers.catalogue import Opened
from apps.answers.patching import Readout
from apps.answers.wanted import Wanted
from workbench.evals.protocols import causal_rows, find_protocol
from workbench.interp.attribution import first_difference

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Counterpart:
    """A beginning, and the pair it is of."""

    prompt: tuple[int, ...]
    pair_id: int


def counterpart(opened: Opened, wanted: Wanted, readout: Readout) -> Counterpart | None:
    """The beginning of another pair of the paradigm, of as many tokens, whose right and wrong token are
    this pair's wrong and right one; of several the one that differs in the fewest tokens. None for masked
    models, which read the ends too, and where there is none; remembered."""
    if wanted.paradigm is None or not readout.contrast or opened.model.config.objective != "clm":
        return None
    frame = wanted.paradigm.per_pair
    where = f"{wanted.source.key if wanted.source else ''}|{wanted.uid}"
    return _found(opened, opened.key, where, wanted.protocol, readout, frame)


@st.cache_data(max_entries=128, show_spinner=False)
def _found(
    _opened: Opened, key: str, where: str, protocol: str, readout: Readout, _frame: "pd.DataFrame"
) -> Counterpart | None:
    contexts = _contexts(_opened, key, where, protocol, _frame)
    mine = np.array(readout.good_prompt)
    best: tuple[int, Counterpart] | None = None
    for pair_id, prompt, right, wrong in contexts:
        if (right, wrong) != (readout.wrong, readout.right) or len(prompt) != len(mine):
            continue
        apart = int((np.array(prompt) != mine).sum())
        if apart and (best is None or apart < best[0]):
            best = apart, Counterpart(prompt, pair_id)
    return None if best is None else best[1]


@st.cache_resource(max_entries=32, show_spinner=False)
def _contexts(
    _opened: Opened, key: str, where: str, protocol: str, _frame: "pd.DataFrame"
) -> list[tuple[int, tuple[int, ...], int, int]]:
    """Of each pair whose sentences differ in a token: number, what both begin with, right and wrong token."""
    chosen = find_protocol(protocol, "clm", "original")
    good, bad = (
        causal_rows(_opened.tokenizer, list(_frame[name]), chosen, str)
        for name in ("sentence_good", "sentence_bad")
    )
    found = []
    for row, pair_id in enumerate(_frame.pair_id):
        one, other = good[row], bad[row]
        if np.array_equal(one, other):
            continue
        place = first_difference(one, other)
        if 0 < place < min(len(one), len(other)):
            found.append((int(pair_id), tuple(one[:place].tolist()), int(one[place]), int(other[place])))
    return found

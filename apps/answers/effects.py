"""What each head and MLP writes for a pair's difference, against what is lost without it; no widget here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from apps.answers.ablate import reference
from apps.answers.catalogue import Opened
from apps.answers.paradigm_ablation import pair_set
from workbench.data.pairs import Pair
from workbench.interp.matrix import component_matrix
from workbench.stats import spearman


@dataclass(frozen=True)
class Effects:
    """One number of each kind for every head and MLP and pair, nats; positive: for the good sentence."""

    labels: tuple[str, ...]
    direct: np.ndarray
    """Direct contribution to the margin, [pair component]."""
    ablated: np.ndarray
    """Margin that is lost when it is ablated, [pair component]."""

    def rows(self) -> list[dict[str, Any]]:
        """Means over pairs: component, kind, direct, ablated."""
        return [
            {
                "component": label,
                "kind": "MLP" if label.endswith("MLP") else "head",
                "direct": float(one),
                "ablated": float(other),
            }
            for label, one, other in zip(self.labels, self.direct.mean(0), self.ablated.mean(0), strict=True)
        ]


@dataclass(frozen=True)
class Agreement:
    """How far direct contribution and ablation effect go together over components."""

    pearson: float
    spearman: float
    n: int


def own_pair(good: str, bad: str) -> Pair:
    """Two sentences as a set of one pair."""
    return Pair(good, bad, "this pair", "this pair", 0)


def pair_effects(opened: Opened, good: str, bad: str, protocol: str, pll: str, how: str) -> Effects:
    """Of one pair; remembered."""
    return _pair_effects(opened, opened.key, good, bad, protocol, pll, how)


@st.cache_resource(max_entries=64, show_spinner="Ablating each head and MLP …")
def _pair_effects(
    _opened: Opened, key: str, good: str, bad: str, protocol: str, pll: str, how: str
) -> Effects:
    return measure(_opened, [own_pair(good, bad)], protocol, pll, how)


def measure(opened: Opened, pairs: Sequence[Pair], protocol: str, pll: str, how: str) -> Effects:
    """`component_matrix` of some pairs of one paradigm, each part alone; see there."""
    text = None if how == "zero" else reference(opened)
    with opened.lock:
        found = component_matrix(
            opened.model, pair_set(pairs), methods=("direct", "ablate"), how=how, reference=text,
            protocol=protocol, pll=pll,
        )  # fmt: skip
    columns = [index for index, part in enumerate(found.components) if part.layer is not None]
    labels = tuple(found.components[index].label for index in columns)
    return Effects(labels, found.effects["direct"][:, columns], found.effects["ablate"][:, columns])


def together(pieces: Sequence[Effects]) -> Effects:
    """Pieces of one paradigm as a whole."""
    return Effects(
        pieces[0].labels,
        np.concatenate([piece.direct for piece in pieces]),
        np.concatenate([piece.ablated for piece in pieces]),
    )


def agreement(effects: Effects) -> Agreement:
    """Correlations over components of the means over pairs; NaN where one side does not vary."""
    one, other = effects.direct.mean(0), effects.ablated.mean(0)
    constant = len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0
    pearson = float("nan") if constant else float(np.corrcoef(one, other)[0, 1])
    return Agreement(pearson, spearman(one, other), len(one))

"""What becomes of a pair, or of a token, when one head or MLP is switched off."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import streamlit as st
import torch
import torch.nn.functional as F

from apps.answers import ablate
from apps.answers.background import Work, works
from apps.answers.catalogue import Opened
from apps.answers.explain import Subject, View
from workbench.evals.scoring import ready
from workbench.interp.ablation import Replacement, ablated
from workbench.interp.attribution import TextAttribution
from workbench.interp.components import list_components

HOWS = ("mean", "zero")
_HAVE_MEANS: set[str] = set()


class Switched(NamedTuple):
    """A quantity without one component."""

    without: float
    """The quantity, nats."""
    effect: float
    """The whole model's less that: what the component is worth, later components included."""


def switched_off(opened: Opened, subject: Subject, view: View, label: str, how: str) -> Switched:
    """The view's quantity with one head or MLP switched off at all positions of all sentences.

    Args:
        opened: the model.
        subject: pair or text.
        view: the quantity.
        label: of the component.
        how: `mean` (over the tokens of the reference) or `zero`.
    """
    sides = _log_probs(opened, opened.key, subject.key, label, how, subject)
    without = total(sides, view)
    return Switched(without, view.total - without)


def effects(opened: Opened, subject: Subject, view: View, how: str) -> np.ndarray:
    """Return the effect of each component of the subject, in its order; NaN of those that cannot be
    ablated."""
    return effects_of(_all_log_probs(opened, subject, how, lambda share: None), subject, view)


def begin_effects(opened: Opened, subject: Subject, how: str) -> Work:
    """Start to ablate each component in the background, or find the work that is under way."""

    def answer(tick: Callable[[float], None]) -> dict[str, tuple[np.ndarray, ...]]:
        return _all_log_probs(opened, subject, how, tick)

    return works().begin(_work_key(opened, subject, how), answer, attended=True)


def cancel_effects(opened: Opened, subject: Subject, how: str) -> None:
    """End that work."""
    works().cancel(_work_key(opened, subject, how))


def effects_of(sides: dict[str, tuple[np.ndarray, ...]], subject: Subject, view: View) -> np.ndarray:
    """Return `effects` from the result of `begin_effects`."""
    return np.array([
        view.total - total(sides[each.label], view) if each.label in sides else np.nan
        for each in subject.components
    ])  # fmt: skip


def _work_key(opened: Opened, subject: Subject, how: str) -> tuple[str, ...]:
    return ("ablate each", opened.key, subject.key, how)


def _all_log_probs(
    opened: Opened, subject: Subject, how: str, tick: Callable[[float], None]
) -> dict[str, tuple[np.ndarray, ...]]:
    labels = [each.label for each in subject.components if each.kind in ("head", "mlp")]
    found = {}
    for done, label in enumerate(labels, 1):
        found[label] = _log_probs(opened, opened.key, subject.key, label, how, subject)
        tick(done / len(labels))
    return found


def total(sides: tuple[np.ndarray, ...], view: View) -> float:
    """The view's quantity from each side's log-probabilities, those of the second taken off the first's."""
    if view.token is None:
        sums = [float(nats.sum()) for nats in sides]
    else:
        sums = [float(nats[view.token]) if view.token < len(nats) else 0.0 for nats in sides]
    return sums[0] - (sums[1] if len(sums) > 1 else 0.0)


def means_at_hand(opened: Opened) -> bool:
    """True if the means of this checkpoint have been computed, so that nothing takes time."""
    return opened.key in _HAVE_MEANS


def means(opened: Opened) -> Replacement:
    """The mean output of every head and MLP over the reference, as on the page Ablate."""
    labels = tuple(part.label for part in list_components(opened.model.config))
    found = ablate.replacements(opened, labels, "mean")[0]
    _HAVE_MEANS.add(opened.key)
    return found


@st.cache_resource(max_entries=1024, show_spinner=False)
def _log_probs(
    _opened: Opened, key: str, subject: str, label: str, how: str, _subject: Subject
) -> tuple[np.ndarray, ...]:
    given = means(_opened) if how == "mean" else Replacement("zero", {})
    with _opened.lock, ready(_opened.model) as network, ablated(network, label, reference=given):
        return tuple(log_probs(network, side) for side in _subject.sides)


@torch.no_grad()
def log_probs(network: Any, text: TextAttribution) -> np.ndarray:
    """Log-probability of each scored token as the network gives it now, [pos] nats, read in the same rows
    and places as the attribution read it."""
    contexts = torch.from_numpy(text.contexts).long().to(network.device)
    rows, places = (torch.from_numpy(index).long() for index in (text.rows, text.places))
    final = network.residual(contexts)[rows, places]
    found = F.log_softmax(network.unembed(final).double(), -1)
    return found[torch.arange(len(rows)), torch.from_numpy(text.ids).long()].cpu().numpy()

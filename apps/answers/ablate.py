"""What a model without some of its parts says about a pair, as plain numbers; no widget in here.

The model is shared by all sessions: parts are taken out only while its lock is held, and are back before the
lock is given away.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from apps.answers.catalogue import Opened
from workbench.data.tokenizer import token_texts
from workbench.errors import InputError
from workbench.evals.protocols import find_protocol
from workbench.evals.scoring import ready
from workbench.interp.ablation import DRAWS, Replacement, ablated
from workbench.interp.ablation import replacements as replacements_of
from workbench.interp.attribution import first_difference
from workbench.interp.components import Component, find_components, list_components
from workbench.interp.pairs import scored_tokens
from workbench.interp.texts import Reference, default_reference

HOWS = {
    "zero": "Zero",
    "mean": "Mean",
    "resample": "Resample",
}


@dataclass(frozen=True)
class Side:
    """One sentence: its scored tokens and their log-probabilities in nats."""

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    log_probs: np.ndarray


@dataclass(frozen=True)
class Said:
    """What a model makes of two sentences."""

    good: Side
    bad: Side
    place: int
    """The first scored token in which they differ."""

    @property
    def difference(self) -> float:
        """log p(good) - log p(bad), nats: the quantity that the first page explains."""
        return float(self.good.log_probs.sum() - self.bad.log_probs.sum())

    @property
    def at_place(self) -> float:
        """The same of the first differing token alone; 0 for a sentence that has ended."""
        return float(sum(sign * side.log_probs[self.place] for sign, side in ((1, self.good), (-1, self.bad))
                         if self.place < len(side.ids)))  # fmt: skip


def reference(opened: Opened) -> Reference:
    """The text behind mean and resampling ablations of this run, on every page: the library's default."""
    return _reference(opened, opened.key)


@st.cache_resource(max_entries=64, show_spinner=False)
def _reference(_opened: Opened, key: str) -> Reference:
    return default_reference(_opened.run)


def meaning(how: str, opened: Opened) -> str:
    """What replaces the output of an ablated component, in words."""
    if how == "zero":
        return "The output of a component is replaced by zeros."
    text = reference(opened).label
    if how == "mean":
        return (
            f"The output of a component is replaced by its mean over the tokens of {text}: the model loses "
            "what the component says about this sentence and keeps what it always writes."
        )
    return (
        "The output of a component is replaced, position by position, by its output in another text: one of "
        f"{text}, drawn {DRAWS} times. All figures are means over these draws."
    )


def switches(config: Any) -> list[str]:
    """Labels of all heads and MLPs, block by block."""
    return [part.label for part in list_components(config)]


def known(config: Any, labels: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    """The labels as the model calls them, in order and each once, and a sentence for each that is none."""
    found: dict[Component, None] = {}
    wrong = []
    for label in labels:
        try:
            found |= dict.fromkeys(find_components(config, label))
        except InputError as error:
            wrong.append(str(error))
    kinds = {"head": 0, "mlp": 1, "neuron": 2}
    ordered = sorted(found, key=lambda part: (part.layer, kinds[part.kind], part.unit))
    return tuple(part.label for part in ordered), wrong


def say(
    opened: Opened, good: str, bad: str, protocol: str, pll: str, off: tuple[str, ...] = (), how: str = "zero"
) -> Said:
    """Token by token what the model makes of a pair without the parts `off`; remembered.

    Raises:
        InputError: equal or empty sentences, one longer than the context or, for `resample`, than every
            donor; a part that is none.
    """
    return _said(opened, opened.key, good, bad, protocol, pll, off, how if off else "zero")


@st.cache_resource(max_entries=256, show_spinner=False)
def _said(
    _opened: Opened, key: str, good: str, bad: str, protocol: str, pll: str, off: tuple[str, ...], how: str
) -> Said:
    if good == bad:
        raise InputError("the two sentences are equal; change a word in one of them.")
    model, tokenizer = _opened.model, _opened.tokenizer
    chosen = find_protocol(protocol, model.config.objective or "clm", pll)
    given = replacements(_opened, off, how)
    with _opened.lock, ready(model) as network:
        read = [
            scored_tokens(network, tokenizer, text, chosen, pll, f"the {name} sentence")
            for text, name in ((good, "first"), (bad, "second"))
        ]
        place = first_difference(read[0][0], read[1][0])
        log_probs = [_log_probs(network, one, off, given) for one in read]
    if model.config.objective == "clm":
        log_probs[1][:place] = log_probs[0][:place]  # the shared beginning was read twice
    sides = [_side(tokenizer, one[0], nats) for one, nats in zip(read, log_probs, strict=True)]
    return Said(sides[0], sides[1], place)


def _side(tokenizer: Any, ids: np.ndarray, nats: np.ndarray) -> Side:
    return Side(tuple(ids.tolist()), tuple(token_texts(tokenizer, ids.tolist())), nats)


def _log_probs(
    network: Any, read: tuple[np.ndarray, ...], off: Sequence[str], given: Sequence[Replacement]
) -> np.ndarray:
    """log p of each scored token, the mean over replacements."""
    import torch

    ids, contexts, rows, places = (torch.from_numpy(part).to(network.device) for part in read)

    def once() -> Any:
        logits = network.unembed(network.residual(contexts)[rows, places])
        return logits.double().log_softmax(-1).gather(-1, ids[:, None])[:, 0]

    with torch.inference_mode():
        if not off:
            return once().cpu().numpy()
        found = []
        for each in given:
            with ablated(network, off, each.how, each):
                found.append(once())
        return torch.stack(found).mean(0).cpu().numpy()


def replacements(opened: Opened, off: tuple[str, ...], how: str) -> list[Replacement]:
    """What goes in for the parts: one for zero and mean, one a draw for resample. Heads and MLPs are measured
    all at once, and so are the neurons of a layer; remembered.

    Do not hold the model's lock: whoever else is measuring the same needs it to come to an end.
    """
    if how == "zero" or not off:
        return [Replacement("zero", {})]
    parts = find_components(opened.model.config, off)
    groups = {part.layer if part.kind == "neuron" else None for part in parts}
    found = [_replacements(opened, opened.key, layer, how, repr(reference(opened))) for layer in groups]
    merged = [
        {part: values for each in draw for part, values in each.values.items()}
        for draw in zip(*found, strict=True)
    ]
    return [Replacement(how, {part: values[part] for part in parts}, reference(opened)) for values in merged]


@st.cache_resource(max_entries=24, show_spinner="Reading stories …")
def _replacements(_opened: Opened, key: str, layer: int | None, how: str, text: str) -> list[Replacement]:
    """Of all heads and MLPs, or of one layer's neurons."""
    config = _opened.model.config
    if layer is None:
        named = list_components(config)
    else:
        named = tuple(Component(layer, "neuron", unit) for unit in range(config.mlp_width))
    with _opened.lock:
        return replacements_of(_opened.model, named, how, reference(_opened))

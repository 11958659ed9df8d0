"""What the page says about a pair or a text, as plain numbers; no widget in here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from apps.answers.catalogue import Opened
from apps.look.tokens import Column, bare, side_by_side, visible
from workbench.data.tokenizer import token_texts

if TYPE_CHECKING:  # the first view's sidebar needs no model, and torch takes two seconds
    from workbench.interp.attribution import PairAttribution, TextAttribution
    from workbench.interp.components import Component

MINIMAL = ("grammatical", "ungrammatical")
"""What the sentences of a minimal pair are called."""
OWN = ("first", "second")
"""What the reader's own are called."""
GROUPS = {
    "embed": "embedding", "pos_embed": "positions", "token_type": "token type", "head": "heads",
    "mlp": "MLPs", "biases": "biases",
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """One quantity and its summands."""

    key: str
    label: str
    total: float
    total_name: str
    values: np.ndarray
    uniform: float
    """What the uniform guess gives; 0 for two predictions at equal length."""
    rest: float
    token: int | None = None
    """The scored token that it is about; None for whole sentences."""


@dataclass(frozen=True)
class Reading:
    """A row of tokens that the model read, for its attention."""

    label: str
    ids: tuple[int, ...]
    place: int
    """Where the shown token was read off."""


@dataclass(frozen=True)
class Subject:
    """What the component map and the attention views are about."""

    key: str
    components: "tuple[Component, ...]"
    views: tuple[View, ...]
    readings: tuple[Reading, ...]
    helps: str
    """What a positive contribution helps."""
    hurts: str
    sides: "tuple[TextAttribution, ...]" = ()
    """The sentence that counts, and the one that is taken off it, if there is one."""
    asked: tuple[str, ...] = ()
    """A pair's sentences, protocol and pseudo-log-likelihood, or a text."""


def explain_pair(opened: Opened, good: str, bad: str, protocol: str, pll: str) -> "PairAttribution":
    """`attribute_pair`, remembered."""
    return _pair(opened, opened.key, good, bad, protocol, pll)


def explain_text(opened: Opened, text: str) -> "TextAttribution":
    """`attribute_text`, remembered."""
    return _text(opened, opened.key, text)


@st.cache_resource(max_entries=64, show_spinner=False)
def _pair(_opened: Opened, key: str, good: str, bad: str, protocol: str, pll: str) -> "PairAttribution":
    from workbench.interp.attribution import attribute_pair

    with _opened.lock:
        return attribute_pair(_opened.model, good, bad, protocol=protocol, pll=pll)


@st.cache_resource(max_entries=64, show_spinner=False)
def _text(_opened: Opened, key: str, text: str) -> "TextAttribution":
    from workbench.interp.attribution import attribute_text

    with _opened.lock:
        return attribute_text(_opened.model, text)


def attention(opened: Opened, ids: tuple[int, ...], layer: int) -> np.ndarray:
    """All heads' attention patterns of one layer on a row of tokens, [head query_pos key_pos]."""
    return _attention(opened, opened.key, ids, layer)


@st.cache_resource(max_entries=64, show_spinner=False)
def _attention(_opened: Opened, key: str, ids: tuple[int, ...], layer: int) -> np.ndarray:
    import torch

    name = f"blocks.{layer}.attn.hook_pattern"
    with _opened.lock, torch.inference_mode():
        _, cache = _opened.model.run_with_cache(torch.tensor([ids]), return_type=None, names_filter=name)
    return cache[name][0].float().numpy()


def columns(pair: "PairAttribution") -> list[Column]:
    """The two sentences, token by token."""
    good, bad = (
        list(zip(side.ids.tolist(), side.tokens, side.log_probs.tolist(), strict=True))
        for side in (pair.good, pair.bad)
    )
    return side_by_side(good, bad, pair.place)


def pair_subject(
    pair: "PairAttribution",
    key: str,
    names: tuple[str, str] = MINIMAL,
    protocol: str = "native",
    pll: str = "original",
) -> Subject:
    """A pair for the component map: at the shown position, and over the whole sentences."""
    kind = "logit difference" if pair.same_context else "log-probability difference"
    here = View(
        "position", f"At {contrast(pair, names)}", pair.difference_at_place, kind, pair.at_place,
        pair.uniform_at_place, pair.rest_at_place, pair.place,
    )  # fmt: skip
    whole = View(
        "sentence", "Whole sentences", pair.difference, "log-probability difference", pair.whole,
        pair.uniform_whole, pair.rest,
    )  # fmt: skip
    readings = tuple(
        reading(side, min(pair.place, len(side.ids) - 1), label)
        for side, label in zip((pair.good, pair.bad), names, strict=True)
    )
    first, second = names
    return Subject(
        key, pair.components, (here, whole), readings, f"the {first} one", f"the {second} one",
        (pair.good, pair.bad), (pair.good.text, pair.bad.text, protocol, pll),
    )  # fmt: skip


def text_subject(text: "TextAttribution", place: int, key: str) -> Subject:
    """One token of a text for the component map."""
    view = View(
        "token", f"‘{bare(text.tokens[place])}’", float(text.log_probs[place]), "log-probability",
        text.contributions[place], text.uniform, float(text.rest[place]), place,
    )  # fmt: skip
    return Subject(
        key, text.components, (view,), (reading(text, place, "text"),), "this token", "other tokens",
        (text,), (text.text,),
    )  # fmt: skip


def reading(text: "TextAttribution", place: int, label: str) -> Reading:
    """The row in which a scored token was read off. A causal model never reads the last token; here it
    is added where the context has room, so that the sentence is seen whole."""
    row = text.contexts[text.rows[place]].tolist()
    if len(text.contexts) == 1 and len(text.ids) >= len(row):
        row = [*row, int(text.ids[-1])]
    return Reading(label, tuple(row), int(text.places[place]))


def contrast(pair: "PairAttribution", names: tuple[str, str] = MINIMAL) -> str:
    """The two tokens at the shown position, in words."""
    good, bad = (None if token is None else f"‘{bare(token)}’" for token in (pair.token_good, pair.token_bad))
    if good is None or bad is None:
        return f"{good or bad}, only in the {names[0] if good else names[1]} one"
    return f"{good} against {bad}"


def groups(subject: Subject, view: View) -> list[tuple[str, float]]:
    """The contributions by kind, with the uniform guess and the rounding where they are not nothing."""
    sums: dict[str, list[float]] = {}
    for component, value in zip(subject.components, view.values, strict=True):
        sums.setdefault(GROUPS[component.kind], []).append(float(value))
    found = [(name, math.fsum(sums[name])) for name in GROUPS.values() if name in sums]
    if view.uniform:
        found.append(("uniform guess", view.uniform))
    if abs(view.rest) >= 0.005:
        found.append(("rounding", view.rest))
    return found


def strongest_head(components: "Sequence[Component]", values: np.ndarray) -> str:
    """The label of the head with the largest contribution of either sign, or of the MLP with it where there
    are no heads; there must be one of them."""
    kinds = {component.kind for component in components}
    kind = "head" if "head" in kinds else "mlp"
    some = [index for index, component in enumerate(components) if component.kind == kind]
    return components[max(some, key=lambda index: (abs(values[index]), -index))].label


def head_labels(components: "Sequence[Component]") -> list[str]:
    """All heads, in order."""
    return [component.label for component in components if component.kind == "head"]


def part_labels(components: "Sequence[Component]") -> list[str]:
    """All heads and MLPs, block by block: what can be chosen on the map and switched off."""
    return [component.label for component in components if component.kind in ("head", "mlp")]


def find(components: "Sequence[Component]", label: str) -> "Component":
    """The component of that label."""
    return next(component for component in components if component.label == label)


def describe(component: "Component") -> str:
    """A component in words."""
    if component.kind == "head":
        return f"head {component.head} of layer {component.layer}"
    if component.kind == "mlp":
        return f"MLP of layer {component.layer}"
    names = {"embed": "token embedding", "pos_embed": "position embedding", "biases": "all biases"}
    return names.get(component.kind, "token-type embedding")


def top(subject: Subject, values: np.ndarray, count: int = 5) -> list[tuple[str, float, str]]:
    """The strongest components: label, nats, in words what they do. `values`: a number for each, or NaN."""
    order = [index for index in np.argsort(-np.abs(values), kind="stable") if not np.isnan(values[index])]
    rows = []
    for index in order[:count]:
        component, value = subject.components[index], float(values[index])
        rows.append((component.label, value, f"helps {subject.helps if value > 0 else subject.hurts}"))
    return rows


def cells(subject: Subject, values: np.ndarray) -> list[dict[str, Any]]:
    """Heads and MLPs as rows of the map: layer, column, component, nats, and words for the tooltip."""
    return [
        {
            "layer": f"L{component.layer}",
            "column": "MLP" if component.head is None else f"H{component.head}",
            "component": component.label,
            "what": describe(component),
            "nats": float(value),
        }
        for component, value in zip(subject.components, values, strict=True)
        if component.layer is not None
    ]


def read_tokens(opened: Opened, ids: Sequence[int]) -> list[str]:
    """Token ids as the reader sees them."""
    return [visible(text) for text in token_texts(opened.tokenizer, ids)]

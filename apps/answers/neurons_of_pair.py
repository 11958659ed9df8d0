"""The neurons of one MLP that decide a pair or a token, with the tokens that each promotes."""

from typing import TYPE_CHECKING

import streamlit as st

from apps.answers.catalogue import Opened
from apps.answers.explain import Subject, View
from apps.look.tokens import visible
from workbench.interp.attribution import PairAttribution, TextAttribution, attribute_pair, attribute_text
from workbench.interp.neurons.tokens import AllNeuronTokens, all_promoted_tokens

if TYPE_CHECKING:
    import pandas as pd

TOKENS = 5
"""Promoted and suppressed ones that are named of a neuron."""


def top_neurons(opened: Opened, subject: Subject, view: View, layer: int, count: int = 10) -> "pd.DataFrame":
    """The neurons of a block with the largest direct contributions of either sign, the largest first:
    neuron, nats, and the tokens that it promotes and suppresses when it is active."""
    import pandas as pd

    found = _attribution(opened, opened.key, subject.key, subject)
    if isinstance(found, PairAttribution):
        values = found.whole if view.token is None else found.at_place
    else:
        assert view.token is not None
        values = found.contributions[view.token]
    mine = [
        (index, part.neuron)
        for index, part in enumerate(found.components)
        if part.kind == "neuron" and part.layer == layer and part.neuron is not None
    ]
    order = sorted(mine, key=lambda each: (-abs(values[each[0]]), each[0]))[:count]
    words = _promoted(opened, opened.key, layer)
    rows = []
    for index, neuron in order:
        named = words.of(layer, neuron)
        rows.append(
            {
                "neuron": f"L{layer}N{neuron}",
                "nats": float(values[index]),
                "promotes": "  ".join(visible(each.text) for each in named.promoted),
                "suppresses": "  ".join(visible(each.text) for each in named.suppressed),
            }
        )
    return pd.DataFrame(rows, columns=["neuron", "nats", "promotes", "suppresses"])


@st.cache_resource(max_entries=16, show_spinner=False)
def _attribution(
    _opened: Opened, key: str, subject: str, _subject: Subject
) -> PairAttribution | TextAttribution:
    model, tokenizer = _opened.model, _opened.tokenizer
    with _opened.lock:
        if len(_subject.sides) == 1:
            return attribute_text(model, _subject.asked[0], tokenizer=tokenizer, neurons=True)
        good, bad, protocol, pll = _subject.asked
        return attribute_pair(model, good, bad, tokenizer=tokenizer, protocol=protocol, pll=pll, neurons=True)


@st.cache_resource(max_entries=16, show_spinner="Reading what the neurons promote …")
def _promoted(_opened: Opened, key: str, layer: int) -> AllNeuronTokens:
    with _opened.lock:
        count = min(TOKENS, _opened.model.config.d_vocab)
        return all_promoted_tokens(_opened.model, [layer], count)

"""Direct attribution: which component makes the model prefer one sentence of a minimal pair.

Direct logit attribution (Elhage et al. 2021, A Mathematical Framework for Transformer Circuits) with all
that lies between writer and readout frozen at its value in the run (`workbench.interp.direct.paths`; in a
pre-norm model it is the final norm's scale), extended to log-probabilities by the path integral of
`workbench.interp.direct.readout`, so that the parts add up to BLiMP's own quantity: the difference of two
sentences' summed log-probabilities. Direct means: what a component writes for the readout, not what it
does to later components. For logits and logit differences see `workbench.interp.direct.logits`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from workbench.errors import InputError
from workbench.evals.encoding import causal_rows, refuse_misfit
from workbench.evals.masked import masked_rows, variants
from workbench.evals.protocols import Protocol, find_protocol
from workbench.evals.scoring import ready
from workbench.interp.direct.contributions import PairAttribution, TextAttribution
from workbench.interp.direct.readout import directions
from workbench.interp.direct.writers import decompose, written

__all__ = ["PairAttribution", "TextAttribution", "attribute_pair", "attribute_text", "first_difference"]


def attribute_text(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    protocol: str = "native",
    pll: str = "original",
    neurons: bool = False,
    biases: bool = False,
) -> TextAttribution:
    """Each token's log-probability as a sum over embedding, positions, heads, MLPs and biases.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        tokenizer: the model's own.
        text: without special tokens; the protocol adds what it wants.
        protocol: a key of `workbench.evals.protocols.PROTOCOLS`; a mean over tokens is taken as a sum.
        pll: `original` or `within_word_l2r`, for masked models.
        neurons: each neuron instead of each MLP.
        biases: each bias for itself.

    Raises:
        InputError: empty text, text longer than the context, a protocol or tokenizer that does not fit.
    """
    chosen = find_protocol(protocol, model.config.objective, pll)
    with ready(model) as network:
        return _attribute(network, tokenizer, text, chosen, pll, "the text", neurons, biases)


def attribute_pair(
    model: Any,
    tokenizer: Any,
    sentence_good: str,
    sentence_bad: str,
    *,
    protocol: str = "native",
    pll: str = "original",
    neurons: bool = False,
    biases: bool = False,
) -> PairAttribution:
    """Which components make the model prefer one sentence of a pair, at the position where the sentences
    first differ and over the whole sentences.

    The sentences may differ in length or in many places; if one is the beginning of the other, the shown
    position is the first token that only the longer one has. Norms between writer and readout are frozen.

    Args:
        model: a `HookedTransformer`, causal or masked; half-precision weights are computed in float32.
        tokenizer: the model's own.
        sentence_good: the grammatical sentence.
        sentence_bad: its ungrammatical twin.
        protocol: a key of `workbench.evals.protocols.PROTOCOLS`; a mean over tokens is taken as a sum.
        pll: `original` or `within_word_l2r`, for masked models.
        neurons: each neuron instead of each MLP; memory is one number a token and neuron.
        biases: each bias for itself instead of their sum.

    Raises:
        InputError: equal or empty sentences, one longer than the context, a protocol or tokenizer that
            does not fit.
    """
    chosen = find_protocol(protocol, model.config.objective, pll)
    if sentence_good == sentence_bad:
        raise InputError("the two sentences are equal; change a word in one of them.")
    with ready(model) as network:
        good = _attribute(
            network, tokenizer, sentence_good, chosen, pll, "the first sentence", neurons, biases
        )
        bad = _attribute(
            network, tokenizer, sentence_bad, chosen, pll, "the second sentence", neurons, biases
        )
    place = first_difference(good.ids, bad.ids)
    causal = model.config.objective == "clm"
    if causal:
        # The shared beginning was read twice; the same numbers on both sides cancel exactly.
        bad.log_probs[:place] = good.log_probs[:place]
        bad.contributions[:place] = good.contributions[:place]
    both = place < min(len(good.ids), len(bad.ids))
    same_context = both and (causal or _same_context(good, bad, place))
    return PairAttribution(good, bad, place, same_context, chosen, None if causal else pll)


def first_difference(a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray) -> int:
    """The first index at which two sequences differ; the shorter length if one begins the other.

    Raises:
        InputError: they are equal.
    """
    for index, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return index
    if len(a) == len(b):
        raise InputError("the two sentences have the same tokens; change a word in one of them.")
    return min(len(a), len(b))


def _same_context(good: TextAttribution, bad: TextAttribution, place: int) -> bool:
    mine, other = (side.contexts[side.rows[place]] for side in (good, bad))
    return np.array_equal(mine, other) and bool(good.places[place] == bad.places[place])


def _attribute(
    model: Any,
    tokenizer: Any,
    text: str,
    protocol: Protocol,
    pll: str,
    name: str,
    neurons: bool,
    biases: bool,
) -> TextAttribution:
    ids, contexts, rows, places = readings(model, tokenizer, text, protocol, pll, name)
    device = model.device
    tokens, where, at = (torch.from_numpy(part).to(device) for part in (contexts, rows, places))
    parts = written(model, tokens, where, at, neurons)
    direction, added, log_probs = directions(model, parts.final, torch.from_numpy(ids).to(device))
    known, contributions = decompose(
        model, parts, direction, None if model.readout_bias is None else added, neurons=neurons, biases=biases
    )
    return TextAttribution(
        text=text,
        ids=ids,
        tokens=tuple(tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids.tolist()),
        log_probs=log_probs.cpu().numpy(),
        contributions=contributions.cpu().numpy(),
        components=known,
        uniform=-math.log(model.config.d_vocab),
        contexts=contexts,
        rows=rows,
        places=places,
    )


def readings(
    model: Any, tokenizer: Any, text: str, protocol: Protocol, pll: str, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scored ids, contexts, and the row and place in them where each is read off; all int64."""
    if tokenizer is None:
        raise InputError("the model has no tokenizer; pass the one it was trained with.")

    def label(_: int) -> str:
        return name

    if model.config.objective == "mlm":
        masked = masked_rows(tokenizer, [text], protocol, label)
        _refuse_long(model, int(masked.rows.lengths[0]), name)
        refuse_misfit(model, masked.rows, label)
        contexts, _, places = variants(
            masked.rows.ids[None], masked.targets[None], masked.words[None], tokenizer.mask_token_id, pll
        )
        ids, rows = masked.rows.ids[places], np.arange(len(places))
    else:
        encoded = causal_rows(tokenizer, [text], protocol, label)
        _refuse_long(model, int(encoded.lengths[0]) - 1, name)
        refuse_misfit(model, encoded, label, unread=1)
        ids, contexts = encoded.ids[1:], encoded.ids[None, :-1]
        places = np.arange(len(ids))
        rows = np.zeros(len(ids))
    return ids.astype(np.int64), contexts.astype(np.int64), rows.astype(np.int64), places.astype(np.int64)


def _refuse_long(model: Any, length: int, name: str) -> None:
    if length > model.config.n_ctx:
        raise InputError(
            f"{name} has {length} tokens, the model's context has {model.config.n_ctx}; shorten it, or use "
            "a model with a longer context."
        )

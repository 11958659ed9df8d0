"""Sentences to scores, under a named protocol, for causal and masked models alike."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from workbench.errors import InputError
from workbench.evals.causal import causal_log_probs
from workbench.evals.encoding import causal_rows, refuse_misfit
from workbench.evals.masked import masked_log_probs, masked_rows
from workbench.evals.protocols import Protocol, find_protocol


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model makes of each sentence."""

    scores: Float[np.ndarray, " sentence"]
    """By the protocol's reduction: the sum of the tokens' log-probabilities, or their mean; nats."""
    log_probs: Float[np.ndarray, " sentence"]
    """The sum, in nats; for a masked model the pseudo-log-likelihood."""
    tokens: Int[np.ndarray, " sentence"]
    """Scored tokens."""
    protocol: Protocol
    pll: str | None
    """Which pseudo-log-likelihood; None for a causal model."""


def score_sentences(
    model: Any,
    tokenizer: Any,
    sentences: Sequence[str],
    protocol: str = "native",
    *,
    pll: str = "original",
    label: Callable[[int], str] | None = None,
    tick: Callable[[float], None] = lambda share: None,
) -> Scores:
    """Score sentences. Common beginnings are read once, however the sentences are ordered.

    Args:
        model: a `HookedTransformer`. Half-precision weights are scored in float32, because rounding
            makes ties; float32 and float64 as they are. Left in the mode it was in.
        tokenizer: a `PreTrainedTokenizerFast`, the model's own.
        sentences: without special tokens or a leading space; the protocol adds what it wants.
        protocol: a key of `workbench.evals.protocols.PROTOCOLS`.
        pll: `original` or `within_word_l2r`, for masked models.
        label: how an error names sentence i.
        tick: told now and then which share of the work is done, 0 to 1.

    Raises:
        InputError: no sentences, an empty one, one longer than the context, a tokenizer with more
            tokens than the model knows, or a protocol that does not exist or does not suit the model.
    """
    objective = model.config.objective
    chosen = find_protocol(protocol, objective, pll)
    if not len(sentences):
        raise InputError("there are no sentences to score.")
    if tokenizer is None:
        raise InputError("the model has no tokenizer; pass the one it was trained with.")
    if len(tokenizer) > model.config.d_vocab:
        raise InputError(
            f"the tokenizer does not fit the model: it has {len(tokenizer):,} tokens, the model's "
            f"vocabulary has {model.config.d_vocab:,}; use the tokenizer of the model's own run."
        )
    named = label or (lambda index: f"sentence {index}")
    with ready(model) as model:
        if objective == "mlm":
            masked = masked_rows(tokenizer, sentences, chosen, named)
            refuse_misfit(model, masked.rows, named)
            tokens = np.add.reduceat(masked.targets.astype(np.int64), masked.rows.starts[:-1])
            log_probs = masked_log_probs(model, masked, tokenizer.mask_token_id, pll, tick)
        else:
            rows = causal_rows(tokenizer, sentences, chosen, named)
            refuse_misfit(model, rows, named, unread=1)
            tokens = rows.lengths - 1
            log_probs = causal_log_probs(model, rows, tick)
    mean = chosen.reduction(objective) == "mean"
    return Scores(
        scores=log_probs / tokens if mean else log_probs,
        log_probs=log_probs,
        tokens=tokens,
        protocol=chosen,
        pll=pll if objective == "mlm" else None,
    )


def opened(model: Any) -> tuple[Any, Any, Any]:
    """The run (or None), the network and the tokenizer of a run or a model."""
    if hasattr(model, "model") and hasattr(model, "step"):
        return model, model.model, model.tokenizer
    return None, model, model.tokenizer


@contextmanager
def ready(model: Any) -> Iterator[Any]:
    """The model in evaluation mode and at least in float32; afterwards as it was."""
    if model.dtype not in (torch.float32, torch.float64):
        yield copy.deepcopy(model).float().eval()
        return
    training = model.training
    model.eval()
    try:
        yield model
    finally:
        model.train(training)

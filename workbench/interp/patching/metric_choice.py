"""The metric that a user names, or the one that answers give."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import InputError, nearest
from workbench.interp.patching.metrics import (
    Divergence,
    Function,
    LogitDifference,
    LogProb,
    Loss,
    Metric,
    SentenceLogProb,
    answers,
    single,
)
from workbench.interp.patching.prompts import hidden_positions, last_positions

METRICS = ("logit_difference", "log_prob", "kl", "sentence", "loss")
"""Metrics that can be chosen by name."""


def choose_metric(
    model: Any,
    metric: Metric | Callable[[Tensor], Tensor] | str | None,
    right: Any,
    wrong: Any,
    tokens: Int[Tensor, "pair pos"],
    mask: Tensor | None,
    clean: tuple[Tensor, Tensor | None] | None = None,
) -> Metric:
    """The metric that was given, or the one of a name.

    Args:
        model: a `HookedTransformer`.
        metric: a metric; a function from logits [pair pos d_vocab] to [pair]; or a name. At the last token
            (the mask token of masked prompts that have one each): `logit_difference` of right and wrong
            answer (the default), `log_prob` of the right one, `kl` from the clean run's distribution to
            this one's. Of the run's own tokens after the first: `sentence`, their summed log-probability,
            or `loss`, their mean cross-entropy. Nats.
        right: the right answers.
        wrong: the wrong answers.
        tokens: of the run that is measured.
        mask: 1 at its tokens.
        clean: tokens and mask of the clean run, if it is not this one.

    Raises:
        InputError: an unknown name, answers that are missing or not one token each, the loss of a masked
            model or of prompts of one token.
    """
    if isinstance(metric, Metric):
        return metric
    if metric is not None and not isinstance(metric, str):
        return Function(metric, len(tokens))
    if metric not in (None, *METRICS):
        raise InputError(f"no metric is called {metric!r}. {nearest(metric, METRICS)}")
    last = last_positions(tokens, mask)
    place = _answer_positions(model, tokens, mask)
    if metric == "kl":
        with torch.no_grad():
            first, real = (tokens, mask) if clean is None else clean
            x = model.residual(first, attention_mask=real)
            x = x[torch.arange(len(first)), _answer_positions(model, first, real)]
            return Divergence(single(model.unembed(x)).log_softmax(-1), place)
    if metric in ("sentence", "loss"):
        if model.config.objective != "clm":
            raise InputError("a masked model has no next-token loss; choose another metric, or a function.")
        if not bool(last.all()):
            raise InputError(f"the metric {metric} needs prompts of two tokens or more.")
        return (Loss if metric == "loss" else SentenceLogProb)(tokens, last + 1)
    one_answer = metric == "log_prob"
    if right is None or (wrong is None and not one_answer):
        missing = "the right answer" if one_answer else "the right and the wrong answer"
        raise InputError(f"there is nothing to measure: give {missing}, or metric=.")
    chosen = answers(model, right, len(tokens), "right").to(tokens.device)
    if one_answer:
        return LogProb(chosen, place)
    return LogitDifference(chosen, answers(model, wrong, len(tokens), "wrong").to(tokens.device), place)


def _answer_positions(model: Any, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """The one mask token of each row, where a masked model's rows have one each; else the last."""
    hidden = getattr(model.tokenizer, "mask_token_id", None)
    masked = model.config.objective == "mlm" and hidden is not None
    if masked and bool(((tokens == hidden).sum(1) == 1).all()):
        return hidden_positions(model, tokens)
    return last_positions(tokens, mask)

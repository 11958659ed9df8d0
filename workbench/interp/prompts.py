"""Pairs of prompts that differ in what matters, and what they are judged by."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.errors import InputError, nearest
from workbench.interp.metrics import (
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


def token_rows(model: Any, given: Any) -> tuple[Int[Tensor, "pair pos"], Bool[Tensor, "pair pos"]]:
    """Token ids of prompts, and where they are no padding.

    Args:
        model: a `HookedTransformer`.
        given: a prompt, prompts, or token ids [pair pos].

    Raises:
        InputError: no prompt, or ids that the model does not know.
    """
    if isinstance(given, Tensor):
        if not given.numel():
            raise InputError("the prompts have no tokens; give some text or ids.")
        tokens = given.reshape(-1, given.shape[-1]).to(model.device)
        low, high = (int(end) for end in tokens.aminmax())
        if low < 0 or high >= model.config.d_vocab:
            raise InputError(
                f"token ids run from {low} to {high}; the vocabulary has {model.config.d_vocab}."
            )
        return tokens, torch.ones_like(tokens, dtype=torch.bool)
    return model._padded(given)


def prompts(model: Any, clean: Any, corrupted: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Clean and corrupted token ids [pair pos], and 1 at tokens where some row is padded.

    Raises:
        InputError: other numbers of prompts, or of tokens in a pair.
    """
    (first, one), (second, other) = paired_rows(model, clean, corrupted)
    lengths = one.sum(1), other.sum(1)
    if not torch.equal(*lengths):
        worst = int((lengths[0] != lengths[1]).int().argmax())
        raise InputError(
            f"pair {worst} has {int(lengths[0][worst])} clean and {int(lengths[1][worst])} corrupted tokens; "
            "patching goes position by position: choose prompts of equal length, or, where it takes one, "
            "pass alignment=align(model, clean, corrupted)."
        )
    return first, second, None if bool(one.all()) else one


def paired_rows(model: Any, clean: Any, corrupted: Any) -> list[tuple[Tensor, Tensor]]:
    """`token_rows` of both.

    Raises:
        InputError: other numbers of prompts.
    """
    rows = [token_rows(model, given) for given in (clean, corrupted)]
    counts = [len(tokens) for tokens, _ in rows]
    if counts[0] != counts[1]:
        raise InputError(f"{counts[0]} clean prompts and {counts[1]} corrupted ones do not make pairs.")
    return rows


def last_positions(tokens: Int[Tensor, "pair pos"], mask: Tensor | None) -> Int[Tensor, " pair"]:
    """The place of each row's last token."""
    if mask is None:
        return torch.full((len(tokens),), tokens.shape[1] - 1, device=tokens.device)
    return mask.sum(1) - 1


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
        metric: a metric; a function from logits [pair pos d_vocab] to [pair]; or, all at the last token,
            `logit_difference` of right and wrong answer (the default) or `log_prob` of the right one, `kl`
            from the clean run's distribution to this one's; or, of the run's own tokens after the first,
            `sentence`, their summed log-probability, or `loss`, their mean cross-entropy. Nats.
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
    if metric == "kl":
        with torch.no_grad():
            first, real = (tokens, mask) if clean is None else clean
            x = model.residual(first, attention_mask=real)[
                torch.arange(len(first)), last_positions(first, real)
            ]
            return Divergence(single(model.unembed(x)).log_softmax(-1), last)
    if metric in ("sentence", "loss"):
        if model.config.objective != "clm":
            raise InputError("a masked model has no next-token loss; choose another metric, or a function.")
        if not bool(last.all()):
            raise InputError(f"the metric {metric} needs prompts of two tokens or more.")
        return (Loss if metric == "loss" else SentenceLogProb)(tokens, last + 1)
    one_answer = metric == "log_prob"
    if right is None or (wrong is None and not one_answer):
        missing = "the right answer" if one_answer else "the right and the wrong answer"
        raise InputError(f"patching needs a metric: {missing}, or metric=.")
    chosen = answers(model, right, len(tokens), "right").to(tokens.device)
    if one_answer:
        return LogProb(chosen, last)
    return LogitDifference(chosen, answers(model, wrong, len(tokens), "wrong").to(tokens.device), last)


def labels(model: Any, tokens: Int[Tensor, "pair pos"]) -> list[str]:
    """The first row's tokens: text if the model has a tokenizer, ids otherwise."""
    if model.tokenizer is None:
        return [str(token) for token in tokens[0].tolist()]
    return model.to_str_tokens(tokens[0])

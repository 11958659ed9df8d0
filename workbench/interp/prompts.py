"""Pairs of prompts that differ in what matters, and what they are judged by."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.errors import InputError
from workbench.interp.metrics import Function, LogitDifference, Metric, answers


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


def choose_metric(
    model: Any,
    metric: Metric | Callable[[Tensor], Tensor] | None,
    right: Any,
    wrong: Any,
    tokens: Int[Tensor, "pair pos"],
    mask: Tensor | None,
) -> Metric:
    """The metric that was given, or the logit difference at the last token.

    Raises:
        InputError: neither a metric nor both answers, or answers that are not one token each.
    """
    if isinstance(metric, Metric):
        return metric
    if metric is not None:
        return Function(metric, len(tokens))
    if right is None or wrong is None:
        raise InputError("patching needs a metric: the right and the wrong answer, or metric=.")
    return LogitDifference(
        answers(model, right, len(tokens), "right").to(tokens.device),
        answers(model, wrong, len(tokens), "wrong").to(tokens.device),
        last_positions(tokens, mask),
    )


def labels(model: Any, tokens: Int[Tensor, "pair pos"]) -> list[str]:
    """The first row's tokens: text if the model has a tokenizer, ids otherwise."""
    if model.tokenizer is None:
        return [str(token) for token in tokens[0].tolist()]
    return model.to_str_tokens(tokens[0])

"""Pairs of prompts that differ in what matters, and what they are judged by."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import InputError
from workbench.interp.metrics import Function, LogitDifference, Metric, answers


def prompts(model: Any, clean: Any, corrupted: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Clean and corrupted token ids [pair pos], and 1 at tokens where some row is padded.

    Raises:
        InputError: other numbers of prompts, or of tokens in a pair.
    """
    rows, masks = [], []
    for given in (clean, corrupted):
        if isinstance(given, Tensor):
            tokens = given.reshape(-1, given.shape[-1]).to(model.device)
            real = torch.ones_like(tokens, dtype=torch.bool)
        else:
            tokens, real = model._padded(given)
        rows.append(tokens)
        masks.append(real)
    first, second = rows
    if first.shape[0] != second.shape[0]:
        raise InputError(f"{len(first)} clean prompts and {len(second)} corrupted ones do not make pairs.")
    lengths = [mask.sum(1) for mask in masks]
    if first.shape != second.shape or not torch.equal(*lengths):
        worst = int((lengths[0] != lengths[1]).int().argmax())
        raise InputError(
            f"pair {worst} has {int(lengths[0][worst])} clean and {int(lengths[1][worst])} corrupted tokens; "
            "patching goes position by position, so choose prompts of equal length."
        )
    return first, second, None if bool(masks[0].all()) else masks[0]


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

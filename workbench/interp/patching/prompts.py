"""Pairs of prompts that differ in what matters, and what they are judged by."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.errors import InputError


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
            "patching goes position by position: choose prompts of equal length, or match their tokens: "
            "alignment=align(model, clean, corrupted), or --align."
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


def hidden_positions(model: Any, tokens: Int[Tensor, "pair pos"]) -> Int[Tensor, " pair"]:
    """The place of each row's one mask token.

    Raises:
        InputError: a tokenizer without one, or a row that has not exactly one.
    """
    hidden = getattr(model.tokenizer, "mask_token_id", None)
    if hidden is None:
        raise InputError("a masked model answers at a mask token; its tokenizer has none: give position=.")
    counts = (tokens == hidden).sum(1)
    if bool((counts != 1).any()):
        worst = int((counts != 1).int().argmax())
        raise InputError(
            f"prompt {worst} has {int(counts[worst])} mask tokens; a masked model answers at exactly one: "
            f"put one {model.tokenizer.mask_token} into each prompt."
        )
    return (tokens == hidden).int().argmax(1)


def read_positions(
    model: Any,
    tokens: Int[Tensor, "pair pos"],
    mask: Tensor | None,
    position: int | Sequence[int] | None = None,
) -> Int[Tensor, " pair"]:
    """Where each row's answer is read off: a given position, counted from the end if negative; else a causal
    model's last token, or the mask token of a masked one.

    Raises:
        InputError: outside the row, another number of positions than rows, or not exactly one mask in a row.
    """
    last = last_positions(tokens, mask)
    if position is None:
        return last if model.config.objective == "clm" else hidden_positions(model, tokens)
    given = [position] * len(tokens) if isinstance(position, int) else list(position)
    if len(given) != len(tokens):
        raise InputError(f"{len(given)} positions were given for {len(tokens)} prompts; give one for each.")
    found = torch.tensor(given, device=tokens.device)
    found = torch.where(found < 0, found + last + 1, found)
    outside = (found < 0) | (found > last)
    if bool(outside.any()):
        row = int(outside.int().argmax())
        size = int(last[row]) + 1
        raise InputError(
            f"position {given[row]} is outside prompt {row}, which has {size} tokens, BOS included."
        )
    return found


def labels(model: Any, tokens: Int[Tensor, "pair pos"]) -> list[str]:
    """The first row's tokens: text if the model has a tokenizer, ids otherwise."""
    if model.tokenizer is None:
        return [str(token) for token in tokens[0].tolist()]
    return model.to_str_tokens(tokens[0])

"""Rows of text as neurons are read on them: numbered, nothing hidden, special tokens not counted."""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.scoring import opened
from workbench.interp.patching.sites import SITES, layers_with
from workbench.interp.texts import IGNORED, TextBatch, text_batches

BLOCK = 256
"""Stories that are sorted by length, so that little padding is read."""


def numbered_batches(model: Any, text: Any, seed: int) -> Iterator[tuple[list[int], TextBatch]]:
    """Batches, and the number in the text of each of their rows; iterators are read as they come.

    Args:
        model: a run or a `HookedTransformer`; to a masked one nothing is hidden.
        text: as `text_batches` takes it.
        seed: of that.

    Raises:
        InputError: no text, or as `text_batches`.
    """
    network = opened(model)[1]
    if text is None or isinstance(text, str | Tensor):
        text = text_batches(model, text, seed)
    items = iter(text)
    first = next(items, None)
    if first is None:
        raise InputError("there is no text; give at least one story.")
    items, done = chain([first], items), 0
    while block := list(islice(items, BLOCK if isinstance(first, str) else 1)):
        order = range(len(block))
        if isinstance(first, str):
            order = sorted(order, key=lambda at: len(block[at]))
        sorted_batches = text_batches(model, [block[at] for at in order], seed)
        n_rows = sum(len(batch.tokens) for batch in sorted_batches)
        numbers = iter(order if n_rows == len(block) else range(n_rows))
        for batch in sorted_batches:
            if network.config.objective == "mlm":
                tokens = torch.where(batch.targets == IGNORED, batch.tokens, batch.targets)
                batch = dataclasses.replace(batch, tokens=tokens)
            yield [done + next(numbers) for _ in batch.tokens], batch
        done += n_rows


def counted_places(batch: TextBatch, tokenizer: Any, left: int | None) -> list[Tensor]:
    """Positions of each row that count, up to the row that reaches `left` of them."""
    counts = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.real is None else batch.real
    if tokenizer is not None:
        specials = torch.tensor(sorted(tokenizer.all_special_ids), device=counts.device)
        counts = counts & ~torch.isin(batch.tokens, specials)
    found = []
    for row in counts.cpu():
        if left is not None and left <= sum(map(len, found)):
            break
        found.append(row.nonzero()[:, 0])
    return found


def as_slice(places: Int[Tensor, " place"]) -> slice | Tensor:
    """The same places as a slice, if no place between them is missing."""
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == len(places) else places


def rows_of(batch: TextBatch, rows: Sequence[int]) -> TextBatch:
    """Some rows of a batch."""
    if len(rows) == len(batch.tokens):
        return batch
    fields = (batch.tokens, batch.targets, batch.segments, batch.real)
    return TextBatch(*(None if field is None else field[list(rows)] for field in fields))  # type: ignore[arg-type]


def neuron_layers(config: Any, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The blocks whose neurons are meant: all that have some, if none is named.

    Raises:
        InputError: one without neurons, or none.
    """
    there = layers_with(config, SITES["neuron"])
    if layers is None:
        return tuple(there)
    for layer in layers:
        if layer not in there:
            raise InputError(f"block {layer} has no neurons; those with some: {', '.join(map(str, there))}.")
    if not len(layers):
        raise InputError("no layer was named; name at least one.")
    return tuple(sorted(set(layers)))

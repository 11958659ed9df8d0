"""Rows of text as neurons are read on them: numbered, nothing hidden, special tokens not counted."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.scoring import opened
from workbench.interp.neurons.examples_result import Row
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


class RowStore:
    """Rows by their number, in one block of memory: many small arrays, made between the large ones of each
    batch and kept, would leave the allocator with holes that grow with the text.

    Args:
        width: the longest row.
        room: rows to make room for; it doubles when it is full.
    """

    def __init__(self, width: int, room: int) -> None:
        self._fields = np.empty((2, room, width), np.int32)  # tokens, segments
        self._lengths = np.zeros(room, np.int64)
        self._segmented = False
        self._slots: dict[int, int] = {}
        self._free = list(range(room))

    def __len__(self) -> int:
        """How many rows are kept."""
        return len(self._slots)

    def put(self, numbers: Sequence[int], batch: TextBatch) -> None:
        """Keep a batch's rows, without their padding."""
        width = batch.tokens.shape[1]
        lengths = [width] * len(numbers) if batch.real is None else batch.real.sum(1).tolist()
        slots = [self._slot(number) for number in numbers]
        self._lengths[slots] = lengths
        self._segmented = batch.segments is not None
        for field, values in enumerate((batch.tokens, batch.segments)):
            if values is not None:
                self._fields[field, slots, :width] = values.to(torch.int32).cpu().numpy()

    def keep(self, numbers: Iterable[int]) -> None:
        """Forget all rows but these."""
        wanted = set(numbers)
        for number in [number for number in self._slots if number not in wanted]:
            self._free.append(self._slots.pop(number))

    def row(self, number: int) -> Row:
        """A row's tokens, and the number of the story that each belongs to if there are several."""
        slot = self._slots[number]
        tokens, segments = self._fields[:, slot, : self._lengths[slot]].copy()
        return Row(tokens, segments if self._segmented else None)

    def _slot(self, number: int) -> int:
        if number not in self._slots:
            if not self._free:
                room = len(self._lengths)
                self._free = list(range(room, 2 * room))
                self._fields = np.concatenate([self._fields, np.empty_like(self._fields)], 1)
                self._lengths = np.concatenate([self._lengths, np.zeros_like(self._lengths)])
            self._slots[number] = self._free.pop()
        return self._slots[number]

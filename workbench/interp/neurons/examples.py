"""Which passages drive each neuron: the best of a corpus, beside random ones and some of every strength.

Top passages alone mislead (Bolukbasi et al. 2021, arXiv:2104.07143), so a uniform sample of tokens and
samples between quantiles stand beside them. All neurons are read in one pass, at little more than the cost
of the forward pass without its unembedding; memory does not grow with the corpus.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from workbench.errors import InputError, shown
from workbench.evals.scoring import opened, ready
from workbench.interp.components import SITES, layers_with
from workbench.interp.texts import IGNORED, TextBatch, text_batches

if TYPE_CHECKING:
    import pandas as pd


# Streaming numbers of many neurons at once: moments, histogram, best passages, a uniform sample of tokens.
#
# Everything is updated row by row, while a row's activations are in the processor's cache, and costs a
# fraction of the forward pass; what is kept does not grow with the text.


LOWEST, OCTAVES = -6, 11
"""The histogram's smallest magnitude is 2 ** LOWEST; it has two bins an octave."""
BINS = 2 * 2 * OCTAVES + 1
_FIRST = 2 * (127 + LOWEST) - 1  # the float's exponent and first bit of its fraction, one bin below
_MAGNITUDES = [2.0 ** (LOWEST + octave) * half for octave in range(OCTAVES) for half in (1.0, 1.5)]
EDGES = np.array([-np.inf, *(-np.array(_MAGNITUDES[::-1])), *_MAGNITUDES, np.inf])
"""Edges of the bins; the middle one holds magnitudes under 2 ** LOWEST."""

ROWS_AT_ONCE = 16

Where = slice | Tensor
"""Which positions of a row count."""


class Tally:
    """What is kept of one layer.

    Args:
        width: neurons.
        count: best passages to keep of each.
        device: where activations are.
    """

    def __init__(self, width: int, count: int, device: torch.device) -> None:
        self.count = count
        self.tokens = 0
        self.value = torch.full((width, count), -torch.inf, dtype=torch.float64, device=device)
        """The best rows' largest activations, [neuron rank], descending."""
        self.row = torch.full((width, count), -1, device=device)
        self.pos = torch.full((width, count), -1, device=device)
        self._key = torch.full((width, count), -1, device=device)
        self.positive = torch.zeros(width, dtype=torch.int64, device=device)
        self.histogram = torch.zeros(width * BINS, dtype=torch.int64, device=device)
        self._shift: Tensor | None = None
        self._sums = torch.zeros(2, width, dtype=torch.float64, device=device)
        self._offsets = torch.arange(width, dtype=torch.int32, device=device) * BINS + BINS // 2

    def add(
        self,
        x: Float[Tensor, "row pos neuron"],
        rows: Int[Tensor, " row"],
        wanted: Sequence[Where],
        keys: Int[Tensor, "row pos"],
    ) -> None:
        """Take in a batch.

        Args:
            x: activations.
            rows: the rows' numbers in the text.
            wanted: the positions that count, one or more a row.
            keys: positions that read alike have the same.
        """
        best = torch.stack([self._row(x[index, where]) for index, where in enumerate(wanted)], 1)
        for first in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            self._merge(x[part], best[:, part], rows[part], wanted[part], keys[part])

    def _row(self, x: Float[Tensor, "pos neuron"]) -> Float[Tensor, " neuron"]:
        if self._shift is None:
            self._shift = x.mean(0)  # sums about it stay exact for a neuron that is always on
        self.tokens += len(x)
        self.positive += (x > 0).sum(0)
        away = x - self._shift
        self._sums[0] += away.sum(0)
        self._sums[1] += away.square_().sum(0)
        bits = x.float().view(torch.int32)
        step = ((bits & 0x7FFFFFFF) >> 22).clamp_(_FIRST, _FIRST + BINS // 2).sub_(_FIRST)
        sign = bits >> 31  # -1 below 0, else 0
        bins = step.bitwise_xor_(sign).sub_(sign).add_(self._offsets)
        self.histogram += torch.bincount(bins.flatten(), minlength=len(self.histogram))
        return x.amax(0)

    def _merge(
        self,
        x: Tensor,
        best: Float[Tensor, "neuron row"],
        rows: Tensor,
        wanted: Sequence[Where],
        keys: Tensor,
    ) -> None:
        """Put rows that beat a neuron's last one into its list: larger first, then the earlier row; of those
        that read alike only the first."""
        better = (best > self.value[:, -1:]) | ((best == self.value[:, -1:]) & (rows < self.row[:, -1:]))
        neurons = better.any(1).nonzero()[:, 0]
        if not len(neurons):
            return
        better = better[neurons]
        pos, key = torch.full((2, *better.shape), -1, device=rows.device)
        for index, where in enumerate(wanted):
            who = better[:, index].nonzero()[:, 0]
            if len(who):
                first = x[index, where][:, neurons[who]].argmax(0)
                pos[who, index] = (
                    first + where.start if isinstance(where, slice) else where.to(first.device)[first]
                )
                key[who, index] = keys[index, pos[who, index]]
        new = torch.where(better, best[neurons].double(), -torch.inf), rows.expand_as(better), pos, key
        old = self.value, self.row, self.pos, self._key
        tables = [torch.cat([kept[neurons], fresh], 1) for kept, fresh in zip(old, new, strict=True)]
        order = tables[1].argsort(dim=1, stable=True)
        order = order.gather(1, tables[0].gather(1, order).argsort(dim=1, descending=True, stable=True))
        sorted_keys = tables[3].gather(1, order)
        alike = (sorted_keys[:, :, None] == sorted_keys[:, None, :]).tril(-1).any(2)
        tables[0].scatter_(1, order, tables[0].gather(1, order).masked_fill(alike, -torch.inf))
        order = order.gather(1, alike.to(torch.uint8).argsort(dim=1, stable=True))[:, : self.count]
        value, row, pos, key = (table.gather(1, order) for table in tables)
        empty = value == -torch.inf
        for table in (row, pos, key):
            table[empty] = -1
        self.value[neurons], self.row[neurons], self.pos[neurons], self._key[neurons] = value, row, pos, key

    @property
    def mean(self) -> Float[Tensor, " neuron"]:
        """Mean activation."""
        assert self._shift is not None
        return self._shift.double() + self._sums[0] / self.tokens

    @property
    def variance(self) -> Float[Tensor, " neuron"]:
        """Population variance."""
        return (self._sums[1] / self.tokens - (self._sums[0] / self.tokens) ** 2).clamp(min=0)


class TokenSample:
    """A uniform sample of token positions without replacement: those whose hashes are smallest.

    A position's hash is a function of the seed, its row and its place, so the sample is that of the text,
    however it is cut into batches, and lies in random order.

    Args:
        size: positions to keep.
        seed: another seed, another sample.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.keys = np.zeros(0, np.uint64)
        self.row, self.pos = np.zeros((2, 0), np.int64)
        self.values: list[Tensor] = []
        """One tensor a layer, [token neuron]; as they stand after `finish`."""
        self._new: tuple[np.ndarray, ...] = ()
        self._pieces: list[Sequence[Tensor]] = []
        self._bound: np.uint64 | None = None

    def choose(self, rows: Int[np.ndarray, " token"], places: Int[np.ndarray, " token"]) -> np.ndarray:
        """Which of these positions may be among the smallest; `keep` must follow with their values."""
        keys = _mixed(np.array([self.seed % 2**64], np.uint64))
        for number in (rows, places):
            keys = _mixed(keys + number.astype(np.uint64))
        chosen = np.arange(len(keys)) if self._bound is None else np.flatnonzero(keys < self._bound)
        self._new = keys[chosen], rows[chosen], places[chosen]
        return chosen

    def keep(self, values: Sequence[Float[Tensor, "token neuron"]]) -> None:
        """Take in the activations at the chosen positions."""
        self.keys, self.row, self.pos = (
            np.concatenate([old, new])
            for old, new in zip((self.keys, self.row, self.pos), self._new, strict=True)
        )
        self._pieces.append(values)
        if len(self.keys) > self.size + self.size // 2:  # seldom, for it copies everything
            self.finish()

    def finish(self) -> None:
        """Drop what is not among the smallest."""
        order = np.argsort(self.keys, kind="stable")[: self.size]
        self.keys, self.row, self.pos = self.keys[order], self.row[order], self.pos[order]
        pieces = [self.values, *self._pieces] if self.values else self._pieces
        self.values = [torch.cat(layer)[order] for layer in zip(*pieces, strict=True)]
        self._pieces = []
        if len(self.keys) == self.size:
            self._bound = self.keys[-1]


def _mixed(x: Shaped[np.ndarray, " token"]) -> Shaped[np.ndarray, " token"]:
    """splitmix64 (Steele et al. 2014): every bit of the result depends on every bit of the number."""
    x = x + np.uint64(0x9E3779B97F4A7C15)  # overflow wraps
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def context_keys(tokens: Int[Tensor, "row pos"], length: int) -> Int[Tensor, "row pos"]:
    """A number for each position, the same where the last `length` tokens, its own included, are the same."""
    keys = torch.zeros_like(tokens)
    for back in range(length):
        before = torch.full_like(tokens, -1)
        before[:, back:] = tokens[:, : tokens.shape[1] - back]
        keys = keys * 6364136223846793005 + before + 2  # overflow wraps: a hash
    return keys & 0x7FFFFFFFFFFFFFFF


# What is known of each neuron over a text: statistics, and the places to look at.


_NAME = re.compile(r"L(\d+)N(\d+)", re.IGNORECASE)


class Example(NamedTuple):
    """A place in the text."""

    kind: str
    """`top`, `random`, or the quantiles that it lies between, such as `75-90 %`."""
    value: float
    """Activation there."""
    row: int
    pos: int


class Row(NamedTuple):
    """A row of the text that some example lies in."""

    tokens: Int[np.ndarray, " pos"]
    segments: Int[np.ndarray, " pos"] | None


@dataclasses.dataclass(frozen=True)
class NeuronExamples:
    """Statistics of neurons over a text, and where in it to look."""

    layers: tuple[int, ...]
    """The blocks whose neurons were read."""
    mean: Float[np.ndarray, "layer neuron"]
    std: Float[np.ndarray, "layer neuron"]
    active: Float[np.ndarray, "layer neuron"]
    """Share of the tokens at which it is above 0."""
    histogram: Int[np.ndarray, "layer neuron bin"]
    """Tokens in each bin of `edges`, two bins an octave."""
    top_value: Float[np.ndarray, "layer neuron rank"]
    """Largest activation in each of the rows that have the largest, descending; -inf where rows ran out."""
    top_row: Int[np.ndarray, "layer neuron rank"]
    """That row's number in the text, -1 where rows ran out; of equals the earlier row."""
    top_pos: Int[np.ndarray, "layer neuron rank"]
    """Its first position with that value."""
    sample_value: Float[np.ndarray, "token layer neuron"]
    """Activations at positions drawn uniformly, without replacement, the same for all neurons."""
    sample_row: Int[np.ndarray, " token"]
    sample_pos: Int[np.ndarray, " token"]
    rows: Mapping[int, Row]
    """The rows that these lie in, by number."""
    tokens: int
    """Positions read; special tokens are not."""
    n_rows: int
    random: int
    quantiles: tuple[float, ...]
    seed: int
    run: str | None = None
    step: int | None = None

    axes = ("layer", "neuron")
    edges = EDGES

    @property
    def max(self) -> Float[np.ndarray, "layer neuron"]:
        """Largest activation."""
        return self.top_value[..., 0]

    def part(self, neuron: Any) -> tuple[int, int]:
        """Where a neuron, `"L2N17"` or a `Component`, stands on the two axes.

        Raises:
            InputError: it was not read.
        """
        label = getattr(neuron, "label", neuron)
        match = (
            re.fullmatch(r"L(\d+)N(\d+)", label.strip(), re.IGNORECASE) if isinstance(label, str) else None
        )
        layer, unit = map(int, match.groups()) if match else (-1, -1)
        width = self.mean.shape[1]
        if layer not in self.layers or not 0 <= unit < width:
            have = ", ".join(f"L{one}N0 to L{one}N{width - 1}" for one in self.layers)
            raise InputError(f"{shown(label)!r} was not read; the neurons read are {have}.")
        return self.layers.index(layer), unit

    def examples(self, neuron: Any, per_bin: int = 2) -> tuple[Example, ...]:
        """The best passages, `random` uniform ones, and `per_bin` between neighbouring quantiles of its
        activation (as the sample has them), the strongest first.

        Args:
            neuron: `"L2N17"` or a `Component`.
            per_bin: examples of each bin.
        """
        where = self.part(neuron)
        best = self.top_value[where], self.top_row[where], self.top_pos[where]
        found = [
            Example("top", float(value), int(row), int(pos))
            for value, row, pos in zip(*best, strict=True)
            if row >= 0
        ]
        values = self.sample_value[:, *where]
        bounds = np.quantile(values, self.quantiles)
        for high in range(len(bounds) - 1, 0, -1):
            last = high == len(bounds) - 1
            below = (values <= bounds[high]) if last else (values < bounds[high])
            inside = (values >= bounds[high - 1]) & below
            name = "-".join(f"{100 * share:g}" for share in self.quantiles[high - 1 : high + 1]) + " %"
            drawn = np.flatnonzero(inside[self.random :]) + self.random  # others than the random ones
            found += [self._sampled(name, int(at), where) for at in drawn[:per_bin]]
        found += [self._sampled("random", at, where) for at in range(min(self.random, len(values)))]
        return tuple(found)

    def to_frame(self) -> "pd.DataFrame":
        """One row a neuron: component, layer, neuron, mean, std, active, max, and quantiles of the sample."""
        import pandas as pd

        width = self.mean.shape[1]
        layers = np.repeat(self.layers, width)
        units = np.tile(np.arange(width), len(self.layers))
        frame = pd.DataFrame(
            {
                "component": [f"L{layer}N{unit}" for layer, unit in zip(layers, units, strict=True)],
                "layer": layers,
                "neuron": units,
                **{name: getattr(self, name).ravel() for name in ("mean", "std", "active", "max")},
            }
        )
        inner = [one for one in self.quantiles if 0 < one < 1]
        for share, values in zip(inner, np.quantile(self.sample_value, inner, axis=0), strict=True):
            frame[f"q{100 * share:g}"] = values.ravel()
        return frame

    def passages(self) -> "pd.DataFrame":
        """One row a neuron and rank: component, rank, activation, row, pos; see `rows` for their tokens."""
        import pandas as pd

        at = np.argwhere(self.top_row >= 0)
        layer, neuron, rank = at.T
        return pd.DataFrame(
            {
                "component": [f"L{self.layers[one]}N{unit}" for one, unit in zip(layer, neuron, strict=True)],
                "rank": rank,
                "activation": self.top_value[*at.T],
                "row": self.top_row[*at.T],
                "pos": self.top_pos[*at.T],
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """Largest activation against the share of tokens at which a neuron is active; needs matplotlib.

        Returns:
            The matplotlib axes.
        """
        from workbench.plots.neurons import plot_neurons

        return plot_neurons(self, ax)

    def _sampled(self, kind: str, at: int, where: tuple[int, int]) -> Example:
        return Example(
            kind, float(self.sample_value[at, *where]), int(self.sample_row[at]), int(self.sample_pos[at])
        )


# Rows of text as neurons are read on them: numbered, nothing hidden, special tokens not counted.


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
        counts = counts & ~torch.isin(
            batch.tokens, torch.tensor(structural_ids(tokenizer), device=counts.device)
        )
    found = []
    for row in counts.cpu():
        if left is not None and left <= sum(map(len, found)):
            break
        found.append(row.nonzero()[:, 0])
    return found


def structural_ids(tokenizer: Any) -> list[int]:
    """Return the ids of special tokens that stand for no text (BOS, EOS, padding, mask, ...).

    The unknown token is not one of them: it stands for a character of the text.
    """
    roles = ("bos", "eos", "pad", "mask", "cls", "sep")
    structural = {getattr(tokenizer, f"{role}_token_id", None) for role in roles}
    return sorted(set(tokenizer.all_special_ids) - ({tokenizer.unk_token_id} - structural))


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


QUANTILES = (0.0, 0.5, 0.75, 0.9, 0.99, 1.0)
SAMPLE = 2048
ALIKE = 8


@torch.no_grad()
def neuron_examples(
    model: Any,
    text: Any = None,
    *,
    layers: Sequence[int] | None = None,
    count: int = 10,
    random: int = 10,
    quantiles: Sequence[float] = QUANTILES,
    sample: int = SAMPLE,
    alike: int = ALIKE,
    tokens: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NeuronExamples:
    """Read a text once and keep, of every neuron, statistics and examples.

    Activations are those of `mlp.hook_post`. Special tokens (BOS, EOS, padding) are read by the model and
    not counted, because what a neuron does there is the same in every row. A masked model reads the text with
    nothing hidden. A passage is a row: a story, or a window of a packed corpus; no neuron has two examples
    of the same among its best.

    Args:
        model: a run or a `HookedTransformer`; half-precision weights are computed in float32.
        text: as `text_batches` takes it. Iterators of stories or of batches are read as they come, so that a
            corpus of any length fits.
        layers: blocks whose neurons are read; all that have an MLP if not set.
        count: best passages to keep of each neuron.
        random: random examples that `examples` shows.
        quantiles: bounds of the bins that `examples` draws from, ascending, 0 to 1.
        sample: positions drawn uniformly, for random examples and quantiles.
        alike: of best passages whose last so many tokens are the same, only the best is kept; 0 keeps them.
        tokens: stop behind the row that reaches so many positions.
        seed: of the sample.
        progress: called with the number of positions read and the limit (0 if there is none).

    Raises:
        InputError: a block without neurons, numbers out of range, no text, activations that are not finite.
    """
    run, network, tokenizer = opened(model)
    chosen = neuron_layers(network.config, layers)
    _check(count, random, quantiles, sample, alike, tokens)
    reader = _Reader(network, chosen, count, TokenSample(sample, seed), alike)
    with ready(network) as network:
        for numbers, batch in numbered_batches(model, text, seed):
            left = None if tokens is None else tokens - reader.tokens
            reader.read(network, batch, numbers, counted_places(batch, tokenizer, left))
            if progress is not None:
                progress(reader.tokens, tokens or 0)
            if tokens is not None and reader.tokens >= tokens:
                break
    if not reader.tokens:
        raise InputError("the text has nothing but special tokens; give stories or token ids.")
    tallies, drawn, rows = reader.tallies, reader.drawn, reader.rows()

    def table(of: Callable[[Tally], Tensor]) -> np.ndarray:
        return np.stack([of(tally).cpu().numpy() for tally in tallies])

    mean = table(lambda tally: tally.mean)
    if not np.isfinite(mean).all():
        layer, neuron = np.argwhere(~np.isfinite(mean))[0]
        raise InputError(f"L{chosen[layer]}N{neuron} gives numbers that are not finite; is the model whole?")
    return NeuronExamples(
        layers=chosen,
        mean=mean,
        std=table(lambda tally: tally.variance.sqrt()),
        active=table(lambda tally: tally.positive.double() / tally.tokens),
        histogram=table(lambda tally: tally.histogram.view(len(tally.value), -1)),
        top_value=table(lambda tally: tally.value),
        top_row=table(lambda tally: tally.row),
        top_pos=table(lambda tally: tally.pos),
        sample_value=torch.stack(drawn.values, 1).cpu().numpy(),
        sample_row=drawn.row,
        sample_pos=drawn.pos,
        rows=rows,
        tokens=reader.tokens,
        n_rows=reader.n_rows,
        random=random,
        quantiles=tuple(quantiles),
        seed=seed,
        run=None if run is None else run.name,
        step=None if run is None else run.step,
    )


class _Reader:
    """Reads batches into a tally of each layer, a sample, and the rows that these speak of."""

    def __init__(
        self, network: Any, layers: Sequence[int], count: int, drawn: TokenSample, alike: int
    ) -> None:
        self.tallies = [Tally(network.config.mlp_width, count, network.device) for _ in layers]
        self.names = [SITES["neuron"].hook_name(layer) for layer in layers]
        self.drawn, self.alike = drawn, alike
        self.n_rows = 0
        self._room = 2 * drawn.size
        self._rows = RowStore(network.config.n_ctx, self._room)

    @property
    def tokens(self) -> int:
        """Positions read."""
        return self.tallies[0].tokens

    def read(self, network: Any, batch: TextBatch, numbers: Sequence[int], wanted: Sequence[Tensor]) -> None:
        """Take in the rows for which there are wanted positions; rows behind the last of `wanted` are not."""
        kept = [index for index, places in enumerate(wanted) if len(places)]
        if not kept:
            return
        batch, numbers = rows_of(batch, kept), [numbers[index] for index in kept]
        places = [wanted[index] for index in kept]
        lengths = [len(each) for each in places]
        rows, flat = np.repeat(np.arange(len(kept)), lengths), torch.cat(places)
        chosen = self.drawn.choose(np.repeat(numbers, lengths), flat.numpy())
        at = torch.from_numpy(rows[chosen]), flat[chosen]
        where = [as_slice(each) for each in places]
        ids = torch.tensor(numbers, device=batch.tokens.device)
        keys = context_keys(batch.tokens, self.alike) if self.alike else ids[:, None].expand_as(batch.tokens)
        values: list[Tensor] = []

        def take(x: Tensor, hook: Any) -> None:
            self.tallies[self.names.index(hook.name)].add(x, ids, where, keys)
            values.append(x[at])

        with network.hooks(fwd_hooks=[(name, take) for name in self.names]):
            network.stream(batch.tokens, attention_mask=batch.real, segments=batch.segments)
        self.drawn.keep(values)
        self._rows.put(numbers, batch)
        self.n_rows += len(numbers)
        if len(self._rows) > self._room:
            self._rows.keep(self._needed())
            self._room = max(self._room, 2 * len(self._rows))

    def rows(self) -> dict[int, Row]:
        """The rows that an example lies in."""
        return {number: self._rows.row(number) for number in self._needed()}

    def _needed(self) -> list[int]:
        self.drawn.finish()
        tables = [tally.row.cpu().numpy().ravel() for tally in self.tallies]
        found = np.unique(np.concatenate([*tables, self.drawn.row]))
        return found[found >= 0].tolist()


def _check(
    count: int, random: int, quantiles: Sequence[float], sample: int, alike: int, tokens: int | None
) -> None:
    least_of = (("count", count, 1), ("random", random, 0), ("sample", sample, 1), ("alike", alike, 0))
    for name, value, least in least_of:
        if value < least:
            raise InputError(f"{name} must be {least} or more; found {value}.")
    if tokens is not None and tokens < 1:
        raise InputError(f"tokens must be 1 or more; found {tokens}.")
    inside = all(0 <= one <= 1 for one in quantiles)
    if len(quantiles) < 2 or not inside or list(quantiles) != sorted(set(quantiles)):
        raise InputError(f"quantiles must ascend from 0 to 1, two or more; found {tuple(quantiles)}.")

"""Maximally activating examples and activation statistics of neurons, from one pass over a text.

`NeuronExamples` is what `neuron_card`, the command `workbench neurons` and the explorer's neuron page show.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from workbench.console import OnProgress, progress_bar
from workbench.errors import InputError, shown
from workbench.evals.scoring import ready
from workbench.interp.components import SITES, Component, layers_with
from workbench.interp.texts import IGNORED, TextBatch, text_batches
from workbench.result import Result
from workbench.runs.run import ModelLike, open_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from transformers import PreTrainedTokenizerFast

    from workbench.model.config import ModelConfig
    from workbench.model.transformer import HookedTransformer

QUANTILES = (0.0, 0.5, 0.75, 0.9, 0.99, 1.0)
SAMPLE = 2048
ALIKE = 8
BLOCK = 256
"""Stories that are sorted by length together, so that batches have little padding."""

LOWEST, OCTAVES = -6, 11
"""The smallest magnitude of the histogram is 2 ** LOWEST; it has two bins an octave."""
BINS = 2 * 2 * OCTAVES + 1
_FIRST = 2 * (127 + LOWEST) - 1  # a float's exponent and the first bit of its fraction, one bin below
_MAGNITUDES = [2.0 ** (LOWEST + octave) * half for octave in range(OCTAVES) for half in (1.0, 1.5)]
EDGES = np.array([-np.inf, *(-np.array(_MAGNITUDES[::-1])), *_MAGNITUDES, np.inf])
"""Edges of the bins; the middle one holds magnitudes under 2 ** LOWEST."""

NeuronName: TypeAlias = str | tuple[int, int] | Component
"""A neuron: `"L2N17"`, `(2, 17)` or a `Component`."""


class Example(NamedTuple):
    """A position of the text and a neuron's activation there."""

    kind: str
    """`top`, `random`, or the quantiles that the activation lies between, such as `75-90 %`."""
    value: float
    row: int
    pos: int


class Row(NamedTuple):
    """A row of the text that an example lies in."""

    tokens: Int[np.ndarray, " pos"]
    segments: Int[np.ndarray, " pos"] | None
    """Number of the story that each token belongs to, if the row holds several."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NeuronExamples(Result):
    """Activation statistics of neurons over a text, and the positions to look at."""

    layers: tuple[int, ...]
    mean: Float[np.ndarray, "layer neuron"]
    std: Float[np.ndarray, "layer neuron"]
    active: Float[np.ndarray, "layer neuron"]
    """Fraction of tokens with an activation above 0."""
    histogram: Int[np.ndarray, "layer neuron bin"]
    """Tokens in each bin of `edges`."""
    top_value: Float[np.ndarray, "layer neuron rank"]
    """Largest activation in each of the rows with the largest ones, descending; -inf if there are fewer."""
    top_row: Int[np.ndarray, "layer neuron rank"]
    """Number of that row in the text, -1 if there are fewer; the earlier row wins a tie."""
    top_pos: Int[np.ndarray, "layer neuron rank"]
    """First position with that value."""
    sample_value: Float[np.ndarray, "token layer neuron"]
    """Activations at positions drawn uniformly without replacement, the same for all neurons."""
    sample_row: Int[np.ndarray, " token"]
    sample_pos: Int[np.ndarray, " token"]
    rows: Mapping[int, Row]
    """The rows of all these positions, by number."""
    tokens: int
    """Positions read, without special tokens."""
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
        """Largest activation of each neuron."""
        return self.top_value[..., 0]

    def part(self, neuron: NeuronName) -> tuple[int, int]:
        """Return the index of a neuron along the axes (layer, neuron).

        Args:
            neuron: `"L2N17"`, `(2, 17)` or a `Component`.

        Raises:
            InputError: the neuron was not read.
        """
        component, width = parse_neuron(neuron), self.mean.shape[1]
        layer, unit = (-1, -1) if component is None else component.place
        if layer not in self.layers or not 0 <= unit < width:
            ranges = ", ".join(f"L{one}N0 to L{one}N{width - 1}" for one in self.layers)
            name = neuron if component is None else component.label
            raise InputError(f"{shown(name)!r} was not read; the neurons read are {ranges}.")
        return self.layers.index(layer), unit

    def examples(self, neuron: NeuronName, per_bin: int = 2) -> tuple[Example, ...]:
        """Return the top examples, `per_bin` from each quantile bin (strongest first) and `random` others.

        Args:
            neuron: `"L2N17"`, `(2, 17)` or a `Component`.
            per_bin: examples from between neighbouring `quantiles` of the sampled activations.
        """
        index = self.part(neuron)
        ranks = zip(self.top_value[index], self.top_row[index], self.top_pos[index], strict=True)
        examples = [Example("top", float(value), int(row), int(pos)) for value, row, pos in ranks if row >= 0]
        values = self.sample_value[:, *index]

        def sampled(kind: str, at: int) -> Example:
            return Example(kind, float(values[at]), int(self.sample_row[at]), int(self.sample_pos[at]))

        bounds = np.quantile(values, self.quantiles)
        for high in range(len(bounds) - 1, 0, -1):
            last = high == len(bounds) - 1
            below = (values <= bounds[high]) if last else (values < bounds[high])
            inside = (values >= bounds[high - 1]) & below
            name = "-".join(f"{100 * quantile:g}" for quantile in self.quantiles[high - 1 : high + 1]) + " %"
            drawn = (
                np.flatnonzero(inside[self.random :]) + self.random
            )  # the first ones are the random examples
            examples += [sampled(name, int(at)) for at in drawn[:per_bin]]
        examples += [sampled("random", at) for at in range(min(self.random, len(values)))]
        return tuple(examples)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per neuron: component, layer, neuron, mean, std, active, max, and a column for each
        inner quantile of the sample (`q50`, `q75`, ...)."""
        frame = neuron_frame(self.layers, self.mean.shape[1])
        frame = frame.assign(
            **{name: getattr(self, name).ravel() for name in ("mean", "std", "active", "max")}
        )
        inner = [quantile for quantile in self.quantiles if 0 < quantile < 1]
        for quantile, values in zip(inner, np.quantile(self.sample_value, inner, axis=0), strict=True):
            frame[f"q{100 * quantile:g}"] = values.ravel()
        return frame

    def passages(self) -> "pd.DataFrame":
        """Return one row per neuron and rank: component, rank, activation, row, pos (tokens: `rows`)."""
        import pandas as pd

        layer, neuron, rank = index = tuple(np.argwhere(self.top_row >= 0).T)
        return pd.DataFrame(
            {
                "component": [f"L{self.layers[at]}N{unit}" for at, unit in zip(layer, neuron, strict=True)],
                "rank": rank,
                "activation": self.top_value[index],
                "row": self.top_row[index],
                "pos": self.top_pos[index],
            }
        )

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw each neuron's largest activation over the fraction of tokens at which it is active, and return
        the matplotlib figure.
        """
        from workbench.plots.neurons import plot_activity

        return plot_activity(self.to_frame(), self.tokens, ax)


@torch.no_grad()
def neuron_examples(
    model: ModelLike,
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
    progress: bool | OnProgress | None = None,
) -> NeuronExamples:
    """Collect the statistics, top examples and a random sample of the activations of every neuron.

    Top examples alone mislead (Bolukbasi et al. 2021, arXiv:2104.07143), so each neuron also gets random
    examples and some from every range of its activation. Activations are those of `mlp.hook_post`. Special
    tokens (BOS, EOS, padding) are read by the model but not counted, because a neuron's activation there is
    the same in every row. A masked model reads the text with nothing masked. All neurons are read in one pass
    at little more than the cost of the forward pass, and memory does not grow with the text.

    Args:
        model: a run, a `HookedTransformer` or the name of a run; half-precision weights are computed in
            float32.
        text: stories, token ids [row pos] or batches, see `text_batches`. Iterators are read lazily. A row
            (a story or a window of a packed corpus) gives a neuron at most one top example.
        layers: blocks to read; all with an MLP if not set.
        count: top examples of each neuron.
        random: random examples that `NeuronExamples.examples` returns.
        quantiles: ascending bin edges, 0 to 1, for the examples of every range.
        sample: positions drawn uniformly, for random examples and quantiles.
        alike: among top examples whose last `alike` tokens agree, only the strongest is kept; 0 keeps all.
        tokens: stop after the row that reaches this many counted positions.
        seed: of the sample.
        progress: see `progress_bar`.

    Raises:
        InputError: a block without neurons, numbers out of range, an empty text, activations that are not
            finite.
    """
    _check_options(count, random, quantiles, sample, alike, tokens)
    run, network, tokenizer = open_model(model)
    layers = neuron_layers(network.config, layers)
    collector = _Collector(network, layers, count, TokenSample(sample, seed), alike)
    stories = len(text) if isinstance(text, Sequence) and not isinstance(text, str) else 0
    with progress_bar(progress, "Reading neurons") as on_progress, ready(network) as network:
        for numbers, batch in numbered_batches(model, text, seed):
            left = None if tokens is None else tokens - collector.tokens
            collector.read(network, batch, numbers, counted_positions(batch, tokenizer, left))
            done, total = (collector.tokens, tokens) if tokens else (collector.n_rows, stories)
            on_progress(min(1.0, done / total) if total else 0.0, f"{collector.tokens:,} tokens")
            if tokens is not None and collector.tokens >= tokens:
                break
    if not collector.tokens:
        raise InputError("The text has nothing but special tokens; give stories or token ids.")
    return NeuronExamples(
        layers=layers,
        **collector.statistics(layers),
        rows=collector.rows(),
        tokens=collector.tokens,
        n_rows=collector.n_rows,
        random=random,
        quantiles=tuple(quantiles),
        seed=seed,
        run=None if run is None else run.name,
        step=None if run is None else run.step,
    )


def parse_neuron(neuron: object) -> Component | None:
    """Return the neuron that `"L2N17"`, `(2, 17)` or a `Component` names, None if it names no neuron."""
    if isinstance(neuron, str):
        neuron = Component.parse(neuron)
    elif isinstance(neuron, tuple) and len(neuron) == 2:
        neuron = Component(neuron[0], "neuron", neuron[1])
    return neuron if isinstance(neuron, Component) and neuron.kind == "neuron" else None


def neuron_layers(config: "ModelConfig", layers: Sequence[int] | None) -> tuple[int, ...]:
    """Return the given blocks in order, or all blocks with an MLP.

    Raises:
        InputError: a block without neurons, or an empty list.
    """
    available = layers_with(config, SITES["neuron"])
    if layers is None:
        return tuple(available)
    for layer in layers:
        if layer not in available:
            raise InputError(
                f"Block {layer} has no neurons; blocks with neurons: {', '.join(map(str, available))}."
            )
    if not len(layers):
        raise InputError("No layer was given; give at least one.")
    return tuple(sorted(set(layers)))


def neuron_frame(layers: Sequence[int], width: int) -> "pd.DataFrame":
    """Return one row per neuron: component, layer, neuron."""
    import pandas as pd

    frame = pd.DataFrame(
        {"layer": np.repeat(layers, width), "neuron": np.tile(np.arange(width), len(layers))}
    )
    names = [f"L{layer}N{unit}" for layer in layers for unit in range(width)]
    frame.insert(0, "component", names)
    return frame


def numbered_batches(model: ModelLike, text: Any, seed: int) -> Iterator[tuple[list[int], TextBatch]]:
    """Yield batches of a text with the number of each of their rows; iterators are read lazily.

    Args:
        model: a run or a `HookedTransformer`; a masked model gets the text with nothing masked.
        text: see `text_batches`.
        seed: passed on to `text_batches`.

    Raises:
        InputError: an empty text, or as `text_batches`.
    """
    masked = open_model(model).model.config.objective == "mlm"
    if text is None or isinstance(text, str | Tensor):
        text = text_batches(model, text, seed)
    items = iter(text)
    first = next(items, None)
    if first is None:
        raise InputError("The text is empty; give at least one story.")
    items, done = chain([first], items), 0
    while block := list(islice(items, BLOCK if isinstance(first, str) else 1)):
        order: Sequence[int] = range(len(block))
        if isinstance(first, str):
            order = sorted(order, key=lambda at: len(block[at]))
        batches = text_batches(model, [block[at] for at in order], seed)
        n_rows = sum(len(batch.tokens) for batch in batches)
        numbers = iter(order if n_rows == len(block) else range(n_rows))
        for batch in batches:
            if masked:
                tokens = torch.where(batch.targets == IGNORED, batch.tokens, batch.targets)
                batch = dataclasses.replace(batch, tokens=tokens)
            yield [done + next(numbers) for _ in batch.tokens], batch
        done += n_rows


def counted_positions(
    batch: TextBatch, tokenizer: "PreTrainedTokenizerFast | None", left: int | None
) -> list[Tensor]:
    """Return the positions of text tokens, row by row, up to the row that reaches `left` of them."""
    counts = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.real is None else batch.real
    if tokenizer is not None:
        ids = torch.tensor(structural_ids(tokenizer), device=counts.device)
        counts = counts & ~torch.isin(batch.tokens, ids)
    positions: list[Tensor] = []
    total = 0
    for row in counts.cpu():
        if left is not None and left <= total:
            break
        positions.append(row.nonzero()[:, 0])
        total += len(positions[-1])
    return positions


def structural_ids(tokenizer: "PreTrainedTokenizerFast") -> list[int]:
    """Return the ids of special tokens without text (BOS, EOS, padding, mask, ...).

    The unknown token is not one of them: it replaces a character of the text.
    """
    roles = ("bos", "eos", "pad", "mask", "cls", "sep")
    structural = [getattr(tokenizer, f"{role}_token_id", None) for role in roles]
    unknown = tokenizer.unk_token_id
    return sorted(id for id in tokenizer.all_special_ids if id != unknown or unknown in structural)


def _check_options(
    count: int, random: int, quantiles: Sequence[float], sample: int, alike: int, tokens: int | None
) -> None:
    minimum = (("count", count, 1), ("random", random, 0), ("sample", sample, 1), ("alike", alike, 0))
    for name, value, least in minimum:
        if value < least:
            raise InputError(f"{name} must be {least} or more; found {value}.")
    if tokens is not None and tokens < 1:
        raise InputError(f"tokens must be 1 or more; found {tokens}.")
    inside = all(0 <= quantile <= 1 for quantile in quantiles)
    if len(quantiles) < 2 or not inside or list(quantiles) != sorted(set(quantiles)):
        raise InputError(f"quantiles must ascend from 0 to 1, two or more; found {tuple(quantiles)}.")


# Streaming statistics. The activations of a row are reduced while they are in the processor's cache, which
# costs a fraction of the forward pass, and nothing that is kept grows with the text:
#
#   Tally        of each layer: moments, histogram, and the best rows of each neuron
#   TokenSample  a uniform sample of positions, the same for all layers
#   RowStore     the tokens of rows that a neuron's best list or the sample points to


class _Collector:
    """Reads batches into a tally for each layer, a sample of positions, and a store of rows."""

    def __init__(
        self,
        model: "HookedTransformer",
        layers: Sequence[int],
        count: int,
        sample: "TokenSample",
        alike: int,
    ) -> None:
        self.tallies = {
            SITES["neuron"].hook_name(layer): Tally(model.config.mlp_width, count, model.device)
            for layer in layers
        }
        self.sample, self.alike = sample, alike
        self.n_rows = 0
        self._room = 2 * sample.size
        self._rows = RowStore(model.config.n_ctx, self._room)

    @property
    def tokens(self) -> int:
        """Positions read."""
        return next(iter(self.tallies.values())).tokens

    def read(
        self,
        model: "HookedTransformer",
        batch: TextBatch,
        numbers: Sequence[int],
        positions: Sequence[Tensor],
    ) -> None:
        """Read the counted `positions` of a batch whose rows have these `numbers`.

        Rows without counted positions, and rows after the last of `positions`, are skipped.
        """
        kept = [index for index, places in enumerate(positions) if len(places)]
        if not kept:
            return
        if len(kept) < len(batch.tokens):
            fields = (batch.tokens, batch.targets, batch.segments, batch.real)
            batch = TextBatch(*(None if field is None else field[kept] for field in fields))  # type: ignore[arg-type]
        numbers, positions = [numbers[index] for index in kept], [positions[index] for index in kept]
        lengths = [len(places) for places in positions]
        rows, flat = np.repeat(np.arange(len(kept)), lengths), torch.cat(positions)
        chosen = self.sample.choose(np.repeat(numbers, lengths), flat.numpy())
        at = torch.from_numpy(rows[chosen]), flat[chosen]
        slices = [_as_slice(places) for places in positions]
        ids = torch.tensor(numbers, device=batch.tokens.device)
        keys = context_keys(batch.tokens, self.alike) if self.alike else ids[:, None].expand_as(batch.tokens)
        sampled: list[Tensor] = []

        def collect(x: Tensor, hook: Any) -> None:
            self.tallies[hook.name].add(x, ids, slices, keys)
            sampled.append(x[at])

        with model.hooks(fwd_hooks=[(name, collect) for name in self.tallies]):
            model.stream(batch.tokens, attention_mask=batch.real, segments=batch.segments)
        self.sample.keep(sampled)
        self._rows.put(numbers, batch)
        self.n_rows += len(numbers)
        if len(self._rows) > self._room:
            self._rows.keep(self._needed())
            self._room = max(self._room, 2 * len(self._rows))

    def statistics(self, layers: Sequence[int]) -> dict[str, np.ndarray]:
        """Return the arrays of `NeuronExamples`.

        Raises:
            InputError: activations that are not finite.
        """
        self.sample.finish()

        def table(of: Callable[[Tally], Tensor]) -> np.ndarray:
            return np.stack([of(tally).cpu().numpy() for tally in self.tallies.values()])

        mean = table(lambda tally: tally.mean)
        if not np.isfinite(mean).all():
            layer, neuron = np.argwhere(~np.isfinite(mean))[0]
            raise InputError(
                f"L{layers[layer]}N{neuron} has activations that are not finite; check the model."
            )
        return {
            "mean": mean,
            "std": table(lambda tally: tally.variance.sqrt()),
            "active": table(lambda tally: tally.positive.double() / tally.tokens),
            "histogram": table(lambda tally: tally.histogram.view(len(tally.value), -1)),
            "top_value": table(lambda tally: tally.value),
            "top_row": table(lambda tally: tally.row),
            "top_pos": table(lambda tally: tally.pos),
            "sample_value": torch.stack(self.sample.values, 1).cpu().numpy(),
            "sample_row": self.sample.row,
            "sample_pos": self.sample.pos,
        }

    def rows(self) -> dict[int, Row]:
        """Return the rows that an example lies in, by number."""
        return {number: self._rows.row(number) for number in self._needed()}

    def _needed(self) -> list[int]:
        self.sample.finish()
        tables = [tally.row.cpu().numpy().ravel() for tally in self.tallies.values()]
        numbers = np.unique(np.concatenate([*tables, self.sample.row]))
        return numbers[numbers >= 0].tolist()


def _as_slice(places: Int[Tensor, " place"]) -> slice | Tensor:
    """Return consecutive positions as a slice, which spares a copy of the activations."""
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == len(places) else places


class Tally:
    """Streaming statistics of one layer's neurons.

    Args:
        width: neurons.
        count: best rows to keep of each.
        device: of the activations.
    """

    ROWS_AT_ONCE = 16

    def __init__(self, width: int, count: int, device: torch.device) -> None:
        self.count = count
        self.tokens = 0
        self.value = torch.full((width, count), -torch.inf, dtype=torch.float64, device=device)
        """Largest activations of the best rows, [neuron rank], descending."""
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
        positions: Sequence[slice | Tensor],
        keys: Int[Tensor, "row pos"],
    ) -> None:
        """Add a batch.

        Args:
            x: activations.
            rows: numbers of the rows in the text.
            positions: counted positions of each row, at least one.
            keys: equal where the context is the same, see `context_keys`.
        """
        best = torch.stack([self._add_row(x[index, where]) for index, where in enumerate(positions)], 1)
        for first in range(0, len(rows), self.ROWS_AT_ONCE):
            part = slice(first, first + self.ROWS_AT_ONCE)
            self._merge(x[part], best[:, part], rows[part], positions[part], keys[part])

    def _add_row(self, x: Float[Tensor, "pos neuron"]) -> Float[Tensor, " neuron"]:
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
        positions: Sequence[slice | Tensor],
        keys: Tensor,
    ) -> None:
        """Merge rows that beat the last one of a neuron's list: larger first, then the earlier row; of rows
        with the same context only the first stays."""
        better = (best > self.value[:, -1:]) | ((best == self.value[:, -1:]) & (rows < self.row[:, -1:]))
        neurons = better.any(1).nonzero()[:, 0]
        if not len(neurons):
            return
        better = better[neurons]
        pos, key = torch.full((2, *better.shape), -1, device=rows.device)
        for index, where in enumerate(positions):
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
    """A uniform sample of positions without replacement: those with the smallest hashes.

    The hash of a position is a function of the seed, its row and its position, so the sample does not depend
    on how the text is cut into batches, and its order is random.

    Args:
        size: positions to keep.
        seed: of the hashes.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.keys = np.zeros(0, np.uint64)
        self.row, self.pos = np.zeros((2, 0), np.int64)
        self.values: list[Tensor] = []
        """One tensor per layer, [token neuron]; complete after `finish`."""
        self._new: tuple[np.ndarray, ...] = ()
        self._pieces: list[Sequence[Tensor]] = []
        self._bound: np.uint64 | None = None

    def choose(self, rows: Int[np.ndarray, " token"], places: Int[np.ndarray, " token"]) -> np.ndarray:
        """Return the indices of positions that may be among the smallest; `keep` must follow."""
        keys = _mix(np.array([self.seed % 2**64], np.uint64))
        for number in (rows, places):
            keys = _mix(keys + number.astype(np.uint64))
        chosen = np.arange(len(keys)) if self._bound is None else np.flatnonzero(keys < self._bound)
        self._new = keys[chosen], rows[chosen], places[chosen]
        return chosen

    def keep(self, values: Sequence[Float[Tensor, "token neuron"]]) -> None:
        """Add the activations at the chosen positions, one tensor per layer."""
        self.keys, self.row, self.pos = (
            np.concatenate([old, new])
            for old, new in zip((self.keys, self.row, self.pos), self._new, strict=True)
        )
        self._pieces.append(values)
        if len(self.keys) > self.size + self.size // 2:  # seldom, because it copies everything
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


def _mix(x: Shaped[np.ndarray, " token"]) -> Shaped[np.ndarray, " token"]:
    """Apply splitmix64 (Steele et al. 2014): every bit of the result depends on every bit of the number."""
    x = x + np.uint64(0x9E3779B97F4A7C15)  # overflow wraps
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def context_keys(tokens: Int[Tensor, "row pos"], length: int) -> Int[Tensor, "row pos"]:
    """Return a number for each position, equal where the last `length` tokens, its own included, agree."""
    keys = torch.zeros_like(tokens)
    for back in range(length):
        before = torch.full_like(tokens, -1)
        before[:, back:] = tokens[:, : tokens.shape[1] - back]
        keys = keys * 6364136223846793005 + before + 2  # overflow wraps: a hash
    return keys & 0x7FFFFFFFFFFFFFFF


class RowStore:
    """Rows by their number, in one block of memory.

    Small arrays that are allocated between the large ones of each batch and kept would fragment the heap, so
    that memory grows with the text.

    Args:
        width: length of the longest row.
        room: rows to make room for; it doubles when it is full.
    """

    def __init__(self, width: int, room: int) -> None:
        self._fields = np.empty((2, room, width), np.int32)  # tokens, segments
        self._lengths = np.zeros(room, np.int64)
        self._segmented = False
        self._slots: dict[int, int] = {}
        self._free = list(range(room))

    def __len__(self) -> int:
        return len(self._slots)

    def put(self, numbers: Sequence[int], batch: TextBatch) -> None:
        """Store the rows of a batch without their padding."""
        width = batch.tokens.shape[1]
        lengths = [width] * len(numbers) if batch.real is None else batch.real.sum(1).tolist()
        slots = [self._slot(number) for number in numbers]
        self._lengths[slots] = lengths
        self._segmented = batch.segments is not None
        for field, values in enumerate((batch.tokens, batch.segments)):
            if values is not None:
                self._fields[field, slots, :width] = values.to(torch.int32).cpu().numpy()

    def keep(self, numbers: Iterable[int]) -> None:
        """Forget all other rows."""
        kept = set(numbers)
        for number in [number for number in self._slots if number not in kept]:
            self._free.append(self._slots.pop(number))

    def row(self, number: int) -> Row:
        """Return a copy of a row."""
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

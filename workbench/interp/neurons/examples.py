"""Which passages drive each neuron: the best of a corpus, beside random ones and some of every strength.

Top passages alone mislead (Bolukbasi et al. 2021, arXiv:2104.07143), so a uniform sample of tokens and
samples between quantiles stand beside them. All neurons are read in one pass, at little more than the cost
of the forward pass without its unembedding; memory does not grow with the corpus.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.scoring import opened, ready
from workbench.interp.neurons.examples_result import NeuronExamples, Row
from workbench.interp.neurons.rows import (
    RowStore,
    as_slice,
    counted_places,
    neuron_layers,
    numbered_batches,
    rows_of,
)
from workbench.interp.neurons.tally import Tally, TokenSample, context_keys
from workbench.interp.patching.sites import SITES
from workbench.interp.texts import TextBatch

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

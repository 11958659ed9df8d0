"""Runs that differ from a base run in one activation, without computing again what they share with it.

A cell is one patch: a layer, perhaps a position, perhaps a head or neuron. Its run equals the base run in
every block before its layer and, in a causal model, at every position before its own; and behind what the
metric reads nothing matters. What is left are a few tokens of each block. Those of all cells, whatever
their layer and position, are computed as one list of tokens; only attention lays them out in rows, beside
the base run's keys and values. A patch that stays at its position (a head's output, a neuron) computes in
its own block that position alone; the last block computes only the positions that are read.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.interp.patching.base_run import Base
from workbench.interp.patching.metrics import Metric
from workbench.interp.patching.packing import Packed, Shown, Tokens
from workbench.interp.patching.sites import Site
from workbench.model.sight import Sight

TOKENS_PER_BATCH = {"cpu": 8192}
"""Tokens that go through a block at once; more do not make a CPU faster. A GPU takes 32 times as many."""
LOGITS_AT_ONCE = 2048
"""Positions unembedded at once, where a metric reads whole rows."""

Tick = Callable[[float], None]


class Cells(NamedTuple):
    """The patches of a sweep."""

    layer: Int[np.ndarray, " cell"]
    pos: Int[np.ndarray, " cell"]
    """-1 for all positions."""
    unit: Int[np.ndarray, " cell"]
    """Head or neuron; -1 for the whole activation."""

    def __len__(self) -> int:  # type: ignore[override]
        return len(self.layer)

    def pick(self, which: np.ndarray) -> "Cells":
        """Some of them."""
        return Cells(self.layer[which], self.pos[which], self.unit[which])


def run_cells(
    base: Base,
    site: Site,
    cells: Cells,
    source: Mapping[str, Tensor],
    metric: Metric,
    unpatched: Float[np.ndarray, " pair"],
    tick: Tick,
) -> Float[np.ndarray, "cell pair"]:
    """The metric of every cell and pair.

    Args:
        base: the run that is patched.
        site: what is replaced.
        cells: where.
        source: by hook name, the values that go in, of the activation's own shape.
        metric: what is measured.
        unpatched: the metric of the base run.
        tick: told now and then which share of the cells is done.
    """
    found = np.tile(unpatched, (len(cells), 1))
    seen = _seen(base, site, cells, metric)
    # Neighbours in position share what attention need not compute.
    order = seen[np.lexsort((cells.layer[seen], cells.pos[seen]))]
    done = len(cells) - len(order)
    for some in _chunks(base, cells, order):
        some = some[np.argsort(cells.layer[some], kind="stable")]
        sweep = _Sweep(base, site, cells.pick(some), source, metric)
        found[some] = sweep.run(found[some])
        done += len(some)
        tick(done / len(cells))
    return found


def _seen(base: Base, site: Site, cells: Cells, metric: Metric) -> np.ndarray:
    """Indices of the cells that the metric can see at all."""
    if metric.reads is None:
        return np.arange(len(cells))
    reads = metric.reads.cpu().numpy()
    seen = np.ones(len(cells), dtype=bool)
    if base.causal:
        seen &= cells.pos <= reads.max()
    if not site.spreads:  # behind the last block's attention only what is read matters
        seen &= (cells.layer < base.model.config.n_layers - 1) | (cells.pos < 0) | np.isin(cells.pos, reads)
    return np.flatnonzero(seen)


def _chunks(base: Base, cells: Cells, order: np.ndarray) -> Iterator[np.ndarray]:
    """Cells whose tokens fit into a batch."""
    pairs, length = base.tokens.shape
    budget = TOKENS_PER_BATCH.get(base.tokens.device.type, 32 * 8192)
    starts = np.maximum(cells.pos[order], 0) if base.causal else np.zeros(len(order), dtype=int)
    first, tokens = 0, 0
    for index, start in enumerate(starts):
        tokens += pairs * (length - int(start))
        if tokens > budget and index > first:
            yield order[first:index]
            first, tokens = index, pairs * (length - int(start))
    if first < len(order):
        yield order[first:]


class _Sweep:
    """One batch of cells, sorted by layer, on its way through the blocks."""

    def __init__(
        self, base: Base, site: Site, cells: Cells, source: Mapping[str, Tensor], metric: Metric
    ) -> None:
        self.base, self.site, self.cells, self.source, self.metric = base, site, cells, source, metric
        self.pairs, length = base.tokens.shape
        device = base.tokens.device
        self.reads = None if metric.reads is None else metric.reads.to(device)
        pos = torch.from_numpy(cells.pos).to(device).repeat_interleave(self.pairs)
        pair = torch.arange(self.pairs, device=device).repeat(len(cells))
        stop = torch.full_like(pair, length)
        if base.causal and self.reads is not None:
            stop = self.reads[pair] + 1
        start = pos.clamp(min=0) if base.causal else torch.zeros_like(pos)
        self.tokens = Tokens(pair, start.minimum(stop), stop)

    def run(self, unpatched: Float[np.ndarray, "cell pair"]) -> Float[np.ndarray, "cell pair"]:
        """The metric of each cell and pair."""
        base, layers = self.base, range(int(self.cells.layer[0]), self.base.model.config.n_layers)
        x, written, rows = base.streams[0].new_empty(1, 0, base.streams[0].shape[-1]), [], 0
        for layer in layers:
            mine = self.cells.pick(np.flatnonzero(self.cells.layer == layer))
            joined = rows + len(mine) * self.pairs
            short = layer == layers[-1] and self.reads is not None
            if len(mine) and self.site.spreads:
                x, written = self._join(x, written, rows, joined, layer)
                x, written = self._block(layer, x, written, joined, short, self._edits(layer, mine, rows, x))
            else:
                if rows:
                    x, written = self._block(layer, x, written, rows, short)
                if len(mine):
                    x, written = self._alone(layer, mine, x, written, rows, joined, short)
            rows = joined
        return self._measure(x, unpatched)

    def _join(
        self, x: Tensor, written: list[Tensor], rows: int, joined: int, layer: int
    ) -> tuple[Tensor, list[Tensor]]:
        """The tokens of new rows behind the others, as the base run has them in front of block `layer`."""
        new = self.tokens.between(rows, joined)
        base = self.base
        more = [torch.cat([old, new.of(part)], 1) for old, part in zip(written, base.written, strict=False)]
        if not written:
            more = [new.of(part) for part in base.written[: layer + 1]]
        return torch.cat([x, new.of(base.streams[layer])], 1), more

    def _edits(self, layer: int, cells: Cells, rows: int, x: Tensor) -> Callable[[Tensor], None]:
        """Puts the source's values into an activation [1 token ...] of a site that spreads, in place."""
        new = self.tokens.between(rows, rows + len(cells) * self.pairs)
        values = self.source[self.site.hook_name(layer)]
        pos = torch.from_numpy(cells.pos).to(values.device).repeat_interleave(self.pairs)[new.row]
        patched = (pos < 0) | (pos == new.pos)
        at = torch.arange(x.shape[1] - len(new.row), x.shape[1], device=values.device)[patched]
        pair, place = new.pair[new.row][patched], new.pos[patched]
        unit = torch.from_numpy(cells.unit).to(values.device).repeat_interleave(self.pairs)[new.row][patched]

        def put(activation: Tensor) -> None:
            if self.site.unit is None:
                activation[0, at] = values[pair, place]
            else:
                activation[0, at, unit] = values[pair, place, unit]

        return put

    def _block(
        self,
        layer: int,
        x: Tensor,
        written: list[Tensor],
        rows: int,
        short: bool,
        put: Callable[[Tensor], None] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Behind a block: all tokens of the first `rows` rows, or, if `short`, each row's read one."""
        base, block = self.base, self.base.model.blocks[layer]
        tokens = self.tokens.between(0, rows)
        hook = None
        if put is not None and self.site.name == "resid_pre":
            put(x)  # what a block reads is changed before it does
        elif put is not None:
            hook = self.site.hook_name(layer)
        low = int(tokens.start.min()) if base.causal and not short else 0
        packed = None
        if layer in base.keys:
            packed = Packed(base.keys[layer], base.values[layer], tokens, low)
        near = base.near(layer, tokens.pair[tokens.row][None], tokens.pos[None])
        with _listening(base.model, hook, put):
            if not short:
                places = torch.arange(low, base.tokens.shape[1], device=x.device)[None]
                with near:
                    x = block(x, base.sight(places, tokens.pair, tokens.pos[None]), packed, written)
                return x, written
            if packed is not None:
                sight = Sight(tokens.pos[None], tokens.pos[None], None, base.causal, in_order=True)
                with near:
                    packed = Shown(*packed.append(*block.keys_values(x, sight)))
        assert self.reads is not None
        reads = self.reads[tokens.pair]
        x = _at_reads(x, base.streams[layer], tokens, reads)
        written = [_at_reads(part, base.written[i], tokens, reads) for i, part in enumerate(written)]
        with base.near(layer, tokens.pair[:, None], reads[:, None]):
            x = block(x, base.sight(reads[:, None], tokens.pair), packed, written)
        return x, written

    def _alone(
        self,
        layer: int,
        cells: Cells,
        x: Tensor,
        written: list[Tensor],
        rows: int,
        joined: int,
        short: bool,
    ) -> tuple[Tensor, list[Tensor]]:
        """Patches that stay at their position: the block's work there, for all cells beside each other; then
        their rows join behind the block."""
        base, length, device = self.base, self.base.tokens.shape[1], x.device
        count = 1 if (cells.pos >= 0).all() else length
        first = torch.from_numpy(cells.pos).to(device).clamp(min=0)
        place = (first[:, None] + torch.arange(count, device=device)).flatten()
        unit = torch.from_numpy(cells.unit).to(device).repeat_interleave(count)
        shown = None
        if layer in base.keys:
            shown = Shown(*(part[layer].transpose(1, 2) for part in (base.keys, base.values)))
        parts = [part[:, place] for part in base.written[: layer + 1]]
        hook = self.site.hook_name(layer)
        put = _replacement(self.site, self.source[hook], place, unit)
        near = base.near(layer, torch.arange(self.pairs, device=device)[:, None], place[None])
        with _listening(base.model, hook, put), near:
            sight = base.sight(place[None])
            out = base.model.blocks[layer](base.streams[layer][:, place], sight, shown, parts)
        # [pair cell*place ...] to rows: cell by cell its pairs
        new, *more = (
            part.unflatten(1, (len(cells), count)).transpose(0, 1).flatten(0, 1)
            for part in (out, *parts[-1:])
        )
        tokens, first = self.tokens.between(rows, joined), first.repeat_interleave(self.pairs)
        if short:
            assert self.reads is not None
            reads = self.reads[tokens.pair]
            spot = reads - first
            mine = new[torch.arange(len(new), device=device), spot.clamp(0, count - 1)]
            touched = ((spot >= 0) & (spot < count))[:, None]
            new = torch.where(touched, mine, base.streams[-1][tokens.pair, reads])[:, None]
            return (torch.cat([x, new]) if rows else new), written
        spot = tokens.pos - first[tokens.row]
        touched = (spot >= 0) & (spot < count)

        def behind(before: Tensor, computed: Tensor) -> Tensor:
            """The base run's tokens, and in them what was computed."""
            found = tokens.of(before)
            found[0, touched] = computed[tokens.row[touched], spot[touched]]
            return found

        columns = [tokens.of(part) for part in base.written[: layer + 1]]
        columns += [behind(base.written[layer + 1], part) for part in more]
        if rows:
            columns = [torch.cat(pair, 1) for pair in zip(written, columns, strict=True)]
        return torch.cat([x, behind(base.streams[layer + 1], new)], 1), columns

    def _measure(
        self, x: Tensor, unpatched: Float[np.ndarray, "cell pair"]
    ) -> Float[np.ndarray, "cell pair"]:
        base, metric, pair = self.base, self.metric, self.tokens.pair
        if self.reads is not None:
            value = _numbers(metric(base.model, base.model.final(x), pair))
            reached = (self.tokens.stop > self.tokens.start).cpu().numpy()
            return np.where(reached, value, unpatched.ravel()).reshape(unpatched.shape)
        step = max(1, LOGITS_AT_ONCE // base.tokens.numel()) * self.pairs
        found = []
        for first in range(0, len(pair), step):
            some = self.tokens.between(first, min(first + step, len(pair)))
            whole = base.streams[-1][some.pair]
            whole[some.row, some.pos] = x[0, some.at]
            found.append(_numbers(metric(base.model, base.model.final(whole), some.pair)))
        return np.concatenate(found).reshape(unpatched.shape)


def _numbers(value: Tensor) -> np.ndarray:
    return value.double().cpu().numpy()


def _at_reads(x: Tensor, base: Tensor, tokens: Tokens, reads: Tensor) -> Float[Tensor, "row 1 d_model"]:
    """Of tokens [1 token d_model], each row's read one; the base run's where the row does not reach it."""
    there = (tokens.stop > tokens.start)[:, None]
    index = (tokens.first + reads - tokens.start).clamp(0, max(x.shape[1] - 1, 0))
    return torch.where(there, x[0, index], base[tokens.pair, reads])[:, None]


def _replacement(site: Site, values: Tensor, place: Tensor, unit: Tensor) -> Callable[[Tensor], None]:
    """Puts values into an activation whose tokens, [pair token ...], stand at `place`."""
    at = torch.arange(len(place), device=values.device)

    def put(activation: Tensor) -> None:
        if site.is_pattern:
            activation[:, unit, at] = values[:, unit, place]
        elif site.unit is None:
            activation[:] = values[:, place]
        else:
            activation[:, at, unit] = values[:, place, unit]

    return put


@contextmanager
def _listening(model: Any, name: str | None, put: Callable[[Tensor], None] | None) -> Iterator[None]:
    """One hook that changes an activation, on one hook point; the model's other hooks stay as they are."""
    if name is None or put is None:
        yield
        return

    def replace(module: Any, given: Any, x: Tensor) -> Tensor:
        x = x.clone()
        put(x)
        return x

    handle = model.hook_dict[name].register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()

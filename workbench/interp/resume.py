"""Runs that differ from a base run in one activation, without computing again what they share with it.

A cell is one patch: a layer, perhaps a position, perhaps a head or neuron. Its run equals the base run in
every block before its layer and, in a causal model, at every position before its own. So it starts from
the base run's residual stream at that block, with the base run's keys and values for the positions before.
Cells that start at the same position run through a block as one batch, which those of the next layer join;
a patch that stays at its position (a head's output, a neuron) computes only that position of its own block.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.interp.metrics import Metric
from workbench.interp.sites import Site
from workbench.model.cache import LayerCache
from workbench.model.sight import Sight

TOKENS_PER_BATCH = {"cpu": 8192}
"""Tokens that go through a block at once; more do not make a CPU faster. A GPU takes 32 times as many."""

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


class Rows(NamedTuple):
    """Cells on their way through the blocks, [cell x pair, pos, d_model]."""

    x: Float[Tensor, "row pos d_model"]
    """The residual stream."""
    written: tuple[Float[Tensor, "row pos d_model"], ...] = ()
    """What the embedding and each block so far wrote, where the model weighs them (ELC-BERT)."""

    def join(self, others: "Rows") -> "Rows":
        """These rows, and the others behind them."""
        if not len(self.x):
            return others
        both = zip(self.written, others.written, strict=True)
        return Rows(torch.cat([self.x, others.x]), tuple(torch.cat(pair) for pair in both))

    def at(self, place: slice) -> "Rows":
        """Some positions."""
        return Rows(self.x[:, place], tuple(part[:, place] for part in self.written))


class Base:
    """A run whose residual streams, keys and values are kept.

    Args:
        model: a `HookedTransformer` in eval mode.
        tokens: one row a pair, padded on the right.
        attention_mask: 1 at tokens; needed by masked models whose rows differ in length.
        also: further hook points whose activations are kept.
    """

    def __init__(
        self,
        model: Any,
        tokens: Int[Tensor, "pair pos"],
        attention_mask: Tensor | None = None,
        also: Sequence[str] = (),
    ) -> None:
        self.model, self.tokens, self.attention_mask = model, tokens, attention_mask
        self.causal = model.config.attention == "causal"
        names = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.config.n_layers)]
        last = "hook_normalized_resid_post" if model.config.norm_place == "post" else "hook_resid_post"
        names.append(f"blocks.{model.config.n_layers - 1}.{last}")
        self.cache = model.new_cache(len(tokens)) if self.causal else None
        weighted = model.config.residual == "weighted"
        outs = [f"blocks.{layer}.hook_{part}_out" for layer in range(model.config.n_layers)
                for part in ("attn", "mlp") if weighted]  # fmt: skip
        listened = {*names, *also, *(name for name in outs if name in model.hook_dict)}
        kept: dict[str, Tensor] = {}
        with model.hooks(fwd_hooks=[(n, lambda x, hook: kept.update({hook.name: x})) for n in listened]):
            model.stream(tokens, attention_mask=attention_mask, cache=self.cache)
        self.kept = {name: kept[name] for name in also}
        """The further activations, by hook name."""
        self.streams = [kept[name] for name in names]
        """What each block read, [pair pos d_model], and what the last one left."""
        self.written = [self.streams[0]] if weighted else []
        """What the embedding and each block wrote, where the model weighs them."""
        for layer in range(model.config.n_layers if weighted else 0):
            parts = [kept[name] for name in outs if name.startswith(f"blocks.{layer}.") and name in kept]
            self.written.append(parts[0] if len(parts) == 1 else parts[0] + parts[1])
        mask = model._mask(tokens, attention_mask, None)
        self._mask = mask if mask is None or mask.shape[0] > 1 else mask.expand(len(tokens), -1, -1, -1)

    def rows(self, layer: int, start: int, stop: int, cells: int) -> Rows:
        """Unpatched rows in front of block `layer`, one a pair for each cell."""
        return Rows(
            self.streams[layer][:, start:stop].repeat(cells, 1, 1),
            tuple(part[:, start:stop].repeat(cells, 1, 1) for part in self.written[: layer + 1]),
        )

    def sight(self, start: int, stop: int, cells: int) -> Sight:
        """What the positions from `start` to before `stop` see."""
        device = self.tokens.device
        places = torch.arange(start, stop, device=device)[None]
        keys = torch.arange(stop if self.causal else self.tokens.shape[1], device=device)[None]
        mask = None if self._mask is None else self._mask[:, :, start:stop].repeat(cells, 1, 1, 1)
        sight = Sight(places, keys, mask, self.causal, in_order=True)
        if self.model.position_bias is not None:
            sight.bias = self.model.position_bias(sight.distance, self.streams[0])
        return sight

    def prefix(self, layer: int, start: int, stop: int, cells: int) -> LayerCache | None:
        """The keys and values before `start`, for as many cells, with room up to `stop`; None in a model or
        block that keeps none."""
        kept = None if self.cache is None else self.cache.layers[layer]
        if kept is None:
            return None
        made = LayerCache(*(part[:, :, :stop].repeat(cells, 1, 1, 1) for part in (kept.keys, kept.values)))
        made.length = start
        return made


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
    pairs = len(base.tokens)
    stop = base.tokens.shape[1] if metric.reads is None or not base.causal else int(metric.reads.max()) + 1
    starts = np.maximum(cells.pos, 0) if base.causal else np.zeros_like(cells.pos)
    found = np.tile(unpatched, (len(cells), 1))
    done = int((starts >= stop).sum())  # behind all that is read: no effect
    for start in np.unique(starts[starts < stop]):
        here = np.flatnonzero(starts == start)
        here = here[np.argsort(cells.layer[here], kind="stable")]
        for some in _chunks(here, pairs * (stop - int(start)), base.tokens.device.type):
            found[some] = _run(base, site, cells.pick(some), source, metric, int(start), stop)
            done += len(some)
            tick(done / len(cells))
    return found


def _chunks(here: np.ndarray, tokens: int, device: str) -> Iterator[np.ndarray]:
    size = max(1, TOKENS_PER_BATCH.get(device, 32 * 8192) // tokens)
    yield from np.split(here, range(size, len(here), size))


def _run(
    base: Base,
    site: Site,
    cells: Cells,
    source: Mapping[str, Tensor],
    metric: Metric,
    start: int,
    stop: int,
) -> Float[np.ndarray, "cell pair"]:
    """All of `cells`, which start at `start` and are sorted by layer; up to position `stop`."""
    pairs, last = len(base.tokens), base.model.config.n_layers - 1
    local = base.causal and not site.spreads and cells.pos[0] >= 0
    one_place = base.causal and metric.reads is not None and bool((metric.reads == stop - 1).all())
    active = Rows(base.streams[0].new_empty(0))
    for layer in range(int(cells.layer[0]), last + 1):
        mine = cells.pick(np.flatnonzero(cells.layer == layer))
        shortened = one_place and layer == last
        if len(mine) and local:
            joining = _alone(base, layer, site, mine, source[site.hook_name(layer)], start, stop)
            if len(active.x):
                active = _block(base, layer, active, start, stop, shortened=shortened)
            active = active.join(joining.at(slice(-1, None)) if shortened else joining)
            continue
        hook = None
        if len(mine):
            values = source[site.hook_name(layer)]
            values = values[:, :, start:stop] if site.is_pattern else values[:, start:stop]
            edit = _edit(site, mine, values, len(active.x), start)
            active = active.join(base.rows(layer, start, stop, len(mine)))
            if site.name == "resid_pre":  # what a block reads can be changed before it does
                active = active._replace(x=edit(active.x, None))
            else:
                hook = (site.hook_name(layer), edit)
        active = _block(base, layer, active, start, stop, hook, shortened and hook is None)
    rows = torch.arange(pairs, device=active.x.device).repeat(len(cells))
    at = stop - active.x.shape[1]
    return _measure(base, active.x, at, rows, metric).view(len(cells), pairs).double().cpu().numpy()


def _alone(base: Base, layer: int, site: Site, cells: Cells, values: Tensor, at: int, stop: int) -> Rows:
    """Rows behind a block, from position `at`, after patches of the block that stay at this position."""
    values = values[:, :, at : at + 1] if site.is_pattern else values[:, at : at + 1]
    hook = (site.hook_name(layer), _edit(site, cells, values, 0, at))
    changed = _block(base, layer, base.rows(layer, at, at + 1, len(cells)), at, at + 1, hook)
    rows = base.rows(layer + 1, at, stop, len(cells))
    rows.x[:, :1] = changed.x
    for part, new in zip(rows.written[-1:], changed.written[-1:], strict=True):
        part[:, :1] = new
    return rows


def _block(
    base: Base,
    layer: int,
    rows: Rows,
    start: int,
    stop: int,
    hook: tuple[str, Callable] | None = None,
    shortened: bool = False,
) -> Rows:
    """The rows behind a block; only their last position if `shortened`."""
    block, cells = base.model.blocks[layer], len(rows.x) // len(base.tokens)
    prefix = base.prefix(layer, start, stop, cells)
    if shortened:
        if block.attn is not None and stop - 1 > start:
            assert prefix is not None
            prefix.append(*block.keys_values(rows.x[:, :-1], base.sight(start, stop - 1, cells)))
        rows, start = rows.at(slice(-1, None)), stop - 1
    written = list(rows.written)
    with base.model.hooks(fwd_hooks=[] if hook is None else [hook]):
        x = block(rows.x, base.sight(start, stop, cells), prefix, written)
    return Rows(x, tuple(written))


def _edit(site: Site, cells: Cells, values: Tensor, before: int, start: int) -> Callable[..., Tensor]:
    """A hook that puts `values` [pair ...] into the rows of `cells`, which come after `before` others."""
    pairs = len(values)

    def replace(x: Tensor, hook: Any) -> Tensor:
        x = x.clone()
        rows = x[before:].unflatten(0, (-1, pairs))
        given = values[..., : x.shape[-1]] if site.is_pattern else values
        for index, (pos, unit) in enumerate(zip(cells.pos, cells.unit, strict=True)):
            place = slice(None) if pos < 0 else int(pos) - start
            which = slice(None) if unit < 0 else int(unit)
            if site.is_pattern:
                rows[index, :, which, place] = given[:, which, place]
            elif site.unit is None:
                rows[index, :, place] = given[:, place]
            else:
                rows[index, :, place, which] = given[:, place, which]
        return x

    return replace


def _measure(base: Base, active: Tensor, start: int, rows: Tensor, metric: Metric) -> Float[Tensor, " row"]:
    """The metric of rows of which only the positions from `start` were computed."""
    final, model = base.streams[-1], base.model
    if metric.reads is None:
        whole = torch.cat([final[:, :start].repeat(len(active) // len(final), 1, 1), active], 1)
        return metric(model, model.final(whole), rows)
    places = metric.reads.to(rows.device)[rows]
    later = (places >= start)[:, None]
    mine = active[torch.arange(len(active)), (places - start).clamp(min=0)]
    read = torch.where(later, mine, final[rows, places])
    return metric(model, model.final(read)[:, None], rows)

"""Runs that differ from a base run in one activation, without computing again what they share with it.

A cell is one patch: a layer, perhaps a position, perhaps a head or neuron. Its run equals the base run in
every block before its layer and, in a causal model, at every position before its own; and behind what the
metric reads nothing matters. What is left are a few tokens of each block. Those of all cells, whatever
their layer and position, are computed as one list of tokens; only attention lays them out in rows, beside
the base run's keys and values. A patch that stays at its position (a head's output, a neuron) computes in
its own block that position alone; the last block computes only the positions that are read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.overrides import TorchFunctionMode

from workbench.interp.components import Site
from workbench.interp.metrics import Metric
from workbench.model.mask import AttentionMask, LayerCache

# Rows of different lengths as one list of tokens, laid out in rows only where attention needs it.


class Tokens:
    """The tokens of rows that each run from a start to before a stop, row by row.

    Args:
        pair: which pair each row belongs to.
        start: its first position.
        stop: the position behind its last.
        at: where the first row's tokens stand in a list that these are part of.
    """

    def __init__(
        self,
        pair: Int[Tensor, " row"],
        start: Int[Tensor, " row"],
        stop: Int[Tensor, " row"],
        at: int = 0,
    ) -> None:
        self.pair, self.start, self.stop = pair, start, stop
        counts = stop - start
        self.first = counts.cumsum(0) - counts
        """Index of each row's first token."""
        self.row = torch.arange(len(pair), device=pair.device).repeat_interleave(counts)
        """Of each token."""
        self.pos = torch.arange(len(self.row), device=pair.device) - (self.first - start)[self.row]
        """Of each token."""
        self.at = slice(at, at + len(self.row))
        """These tokens' places in the list that they are part of."""

    def between(self, first: int, last: int) -> "Tokens":
        """The rows from `first` to before `last`."""
        if first == 0 and last == len(self.pair):
            return self
        some = slice(first, last)
        before = int(self.first[first]) if first < len(self.pair) else len(self.row)
        return Tokens(self.pair[some], self.start[some], self.stop[some], before)

    @cached_property
    def is_whole(self) -> bool:
        """Whether all rows are alike and start at 0."""
        return not bool(self.start.any()) and bool((self.stop == self.stop[0]).all())

    def of(self, x: Float[Tensor, "pair pos *rest"]) -> Float[Tensor, "1 token *rest"]:
        """Each pair's values at these tokens."""
        return x[self.pair[self.row], self.pos][None]


class Shown(LayerCache):
    """Keys and values that are all there already: nothing new is added.

    Args:
        keys: [row kv_head key_pos d_head].
        values: [row kv_head key_pos d_value].
    """

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """What is there."""
        return self.keys, self.values


class Packed(LayerCache):
    """A base run's keys and values in each row, and the rows' own tokens in their places.

    Args:
        keys: of the base run, [pair pos kv_head d_head].
        values: the same.
        tokens: of the rows.
        low: the first position that has queries.
    """

    def __init__(self, keys: Tensor, values: Tensor, tokens: Tokens, low: int) -> None:
        super().__init__(keys, values)
        self.tokens, self.low = tokens, low
        self.whole = tokens.is_whole and int(tokens.stop[0]) == keys.shape[1] and low == 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of each row, [row kv_head key_pos d], from the tokens', [1 kv_head token d]."""
        keys, values = (self._laid(new, old) for new, old in ((k, self.keys), (v, self.values)))
        return keys.transpose(1, 2), values.transpose(1, 2)

    def join(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries too in rows; 0 where a row has no token."""
        mine = q[0].transpose(0, 1)
        if self.whole:
            laid = mine.unflatten(0, (len(self.tokens.pair), -1))
        else:
            laid = q.new_zeros(len(self.tokens.pair), self.keys.shape[1] - self.low, *mine.shape[1:])
            laid[self.tokens.row, self.tokens.pos - self.low] = mine
        return laid.transpose(1, 2), *self.append(k, v)

    def part(self, z: Float[Tensor, "row query_pos head d_value"]) -> Float[Tensor, "1 token head d_value"]:
        """The tokens' results."""
        if self.whole:
            return z.flatten(0, 1)[None]
        return z[self.tokens.row, self.tokens.pos - self.low][None]

    def _laid(self, new: Tensor, old: Tensor) -> Tensor:
        mine = new[0].transpose(0, 1)
        if self.whole:
            return mine.unflatten(0, (len(self.tokens.pair), -1))
        laid = old[self.tokens.pair]
        laid[self.tokens.row, self.tokens.pos] = mine
        return laid


# Matrix products of a run that differs little from another, in bfloat16 without losing the difference.
#
# Where a patched run reads x and the base run x0, `W x + b = (W x0 + b) + W (x - x0)`. The first term is
# known; only the second is multiplied, in bfloat16, so that its three digits are of the difference itself
# and not of two large numbers that nearly cancel.


Product = tuple[Float[Tensor, "pair pos d_in"], Float[Tensor, "pair pos d_out"]]
"""What a linear map of the base run read and gave."""


class Products(TorchFunctionMode):
    """Keeps what every linear map of every block reads and gives, while a model runs inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = -1
        self.kept: dict[tuple[int, int], tuple[Tensor, Product]] = {}
        """By layer and the weight's place in memory: the weight, and its product."""
        self.rounded: dict[tuple[int, tuple[int, ...]], Tensor] = {}
        """Weights in bfloat16."""

    @contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Record the runs of a model inside."""

        def note(block: Any, given: Any) -> None:
            self.layer += 1

        handles = [block.register_forward_pre_hook(note) for block in model.blocks]
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run it; keep it if it is a linear map."""
        found = func(*args, **(kwargs or {}))
        if func is F.linear:
            weight = args[1]
            self.kept[self.layer, weight.data_ptr()] = weight, (args[0], found)
        return found

    def find(self, layer: int, weight: Tensor) -> Product | None:
        """The product of a weight, or of some rows of one."""
        whole = self.kept.get((layer, weight.data_ptr()))
        if whole is not None and whole[0].shape == weight.shape:
            return whole[1]
        for (mine, place), (kept, (read, given)) in self.kept.items():
            first, left = divmod(weight.data_ptr() - place, kept.stride(0) * kept.element_size())
            if mine == layer and not left and 0 <= first <= len(kept) - len(weight):
                return read, given[..., first : first + len(weight)]
        return None

    def round(self, weight: Tensor) -> Tensor:
        """A weight in bfloat16, made once."""
        key = weight.data_ptr(), tuple(weight.shape)
        if key not in self.rounded:
            self.rounded[key] = weight.detach().bfloat16()
        return self.rounded[key]


class Differences(TorchFunctionMode):
    """Inside it, a block's linear maps of tokens [row token d] add to the base run's products.

    Args:
        products: of the base run.
        layer: the block.
        pair: whose row of the base run each token belongs to.
        pos: its position there.
    """

    def __init__(
        self,
        products: Products,
        layer: int,
        pair: Int[Tensor, "#row #token"],
        pos: Int[Tensor, "#row #token"],
    ) -> None:
        super().__init__()
        self.products, self.layer, self.pair, self.pos = products, layer, pair, pos

    def __torch_function__(
        self,
        func: Callable,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run it; a linear map by the difference."""
        product = self.products.find(self.layer, args[1]) if func is F.linear else None
        if product is None:
            return func(*args, **(kwargs or {}))
        read, given = product
        change = (args[0] - read[self.pair, self.pos]).bfloat16()
        return given[self.pair, self.pos].add_(func(change, self.products.round(args[1])))


# A run whose residual streams, keys and values are kept, for others to start from.


class Base:
    """A run whose residual streams, keys and values are kept.

    Args:
        model: a `HookedTransformer` in eval mode.
        tokens: one row a pair, padded on the right.
        attention_mask: 1 at tokens; needed by masked models whose rows differ in length.
        also: further hook points whose activations are kept.
        rounded: keep linear maps' products too, so that runs near this one can be computed in bfloat16.
    """

    def __init__(
        self,
        model: Any,
        tokens: Int[Tensor, "pair pos"],
        attention_mask: Tensor | None = None,
        also: Sequence[str] = (),
        rounded: bool = False,
    ) -> None:
        self.model, self.tokens, self.attention_mask = model, tokens, attention_mask
        self.causal = model.config.attention == "causal"
        kept: dict[str, Tensor] = {}
        listened = {*base_hooks(model), *also}
        self._products = Products() if rounded else None
        watching = nullcontext() if self._products is None else self._products.watching(model)
        hooks = [(n, lambda x, hook: kept.update({hook.name: x})) for n in listened]
        with model.hooks(fwd_hooks=hooks), watching:
            model.stream(tokens, attention_mask=attention_mask)
        self.kept = {name: kept[name] for name in also}
        """The further activations, by hook name."""
        layers = range(model.config.n_layers)
        last = "hook_normalized_resid_post" if model.config.norm_place == "post" else "hook_resid_post"
        names = [f"blocks.{layer}.hook_resid_pre" for layer in layers] + [f"blocks.{layers[-1]}.{last}"]
        self.streams = [kept[name] for name in names]
        """What each block read, [pair pos d_model], and what the last one left."""
        weighted = model.config.residual == "weighted"
        self.written = [self.streams[0]] if weighted else []
        """What the embedding and each block wrote, where the model weighs them."""
        for layer in layers if weighted else ():
            outs = [f"blocks.{layer}.hook_{part}_out" for part in ("attn", "mlp")]
            parts = [kept[name] for name in outs if name in kept]
            self.written.append(parts[0] if len(parts) == 1 else parts[0] + parts[1])
        turned = "rot_k" if model.config.positions == "rotary" else "k"
        attends = {layer for layer in layers if model.blocks[layer].attn is not None}
        self.keys = {layer: kept[f"blocks.{layer}.attn.hook_{turned}"] for layer in attends}
        """Of each block that attends, [pair pos kv_head d_head]; turned, where positions are rotary."""
        self.values = {layer: kept[f"blocks.{layer}.attn.hook_v"] for layer in attends}
        mask = model._mask(tokens, attention_mask, None)
        self.mask = mask if mask is None or len(mask) > 1 else mask.expand(len(tokens), -1, -1, -1)

    def near(
        self, layer: int, pair: Int[Tensor, "#row #token"], pos: Int[Tensor, "#row #token"]
    ) -> AbstractContextManager[Any]:
        """Inside it, a block's linear maps of these tokens are by differences, if this run is `rounded`.

        Args:
            layer: the block.
            pair: each token's row in this run.
            pos: its position.
        """
        return nullcontext() if self._products is None else Differences(self._products, layer, pair, pos)

    def sight(
        self,
        places: Int[Tensor, "#row query_pos"],
        pair: Int[Tensor, " row"] | None = None,
        tokens: Int[Tensor, "1 token"] | None = None,
    ) -> AttentionMask:
        """What queries at `places` see, in rows of some pairs or of all.

        Args:
            places: of the queries.
            pair: whose row; None for each pair's own.
            tokens: places of the tokens, where they are not laid out as the queries are.
        """
        keys = torch.arange(self.tokens.shape[1], device=places.device)[None]
        whole = tokens is not None and places.shape == keys.shape
        mask = None
        if self.mask is not None:
            mask = self.mask if pair is None else self.mask[pair]
            if not whole:
                at = places[:, None, :, None].expand(len(mask), 1, -1, mask.shape[-1])
                mask = mask.gather(2, at)
        elif self.causal and not whole:
            mask = keys[:, None, None] <= places[:, None, :, None]
        sight = AttentionMask(places if tokens is None else tokens, keys, mask, self.causal, True, places)
        if self.model.position_bias is not None:
            sight.bias = self.model.position_bias(sight.distance, self.streams[0])
        return sight


def base_hooks(model: Any) -> list[str]:
    """The hook points of what a `Base` keeps."""
    config = model.config
    wanted = [
        "hook_resid_pre",
        "attn.hook_v",
        f"attn.hook_{'rot_k' if config.positions == 'rotary' else 'k'}",
    ]
    if config.residual == "weighted":
        wanted += ["hook_attn_out", "hook_mlp_out"]
    names = [f"blocks.{layer}.{name}" for layer in range(config.n_layers) for name in wanted]
    last = "hook_normalized_resid_post" if config.norm_place == "post" else "hook_resid_post"
    return [name for name in (*names, f"blocks.{config.n_layers - 1}.{last}") if name in model.hook_dict]


# A base run gone through again from some block on, for many variants of it at once.
#
# The variants equal the base run before that block and, in a causal model, before some position, whose keys
# and values are taken from it.


class Rerun:
    """Variants of a base run, rows [variant x pair], the pair fastest, at positions `start` to before `stop`.

    Args:
        base: the run.
        layer: the block from which the variants may differ; the number of blocks for the end alone.
        start: the first position at which they may; 0 if the model is not causal.
        stop: positions from here on are not computed.
        count: how many variants.
    """

    def __init__(self, base: Base, layer: int, start: int, stop: int, count: int) -> None:
        self.base, self.layer, self.start, self.stop, self.count = base, layer, start, stop, count
        self.x, self.written = before(base, layer, start, stop, count)

    def run(self) -> Float[Tensor, "row pos d_model"]:
        """Through all blocks from `layer` on; the model's hooks see the rows."""
        model, x, sight = self.base.model, self.x, self._sight()
        for layer in range(self.layer, model.config.n_layers):
            x = model.blocks[layer](x, sight, self._prefix(layer), self.written)
        return x

    def measure(self, x: Float[Tensor, "row pos d_model"], metric: Metric) -> Float[Tensor, "variant pair"]:
        """The metric of what `run` gave, in float64."""
        base, model, pairs = self.base, self.base.model, len(self.base.tokens)
        pair = torch.arange(pairs, device=x.device).repeat(self.count)
        final = base.streams[-1]
        if metric.reads is None:
            x = torch.cat([final[:, : self.start].repeat(self.count, 1, 1), x], 1)
        else:
            places = metric.reads.to(x.device)[pair]
            mine = x[torch.arange(len(x), device=x.device), (places - self.start).clamp(min=0)]
            x = torch.where((places >= self.start)[:, None], mine, final[pair, places])[:, None]
        return metric(model, model.final(x), pair).view(self.count, pairs).double()

    def _sight(self) -> AttentionMask:
        base, device = self.base, self.x.device
        model, length = base.model, base.tokens.shape[1]
        places = torch.arange(self.start, self.stop, device=device)[None]
        keys = torch.arange(self.stop if base.causal else length, device=device)[None]
        mask = base.mask
        if mask is not None:
            mask = mask[:, :, self.start : self.stop].repeat(self.count, 1, 1, 1)
        sight = AttentionMask(places, keys, mask, base.causal, in_order=True)
        if model.position_bias is not None:
            sight.bias = model.position_bias(sight.distance, self.x)
        return sight

    def _prefix(self, layer: int) -> LayerCache | None:
        base = self.base
        if not base.causal or not self.start or layer not in base.keys:
            return None
        kept = (part[layer][:, : self.stop].transpose(1, 2) for part in (base.keys, base.values))
        made = LayerCache(*(part.repeat(self.count, 1, 1, 1) for part in kept))
        made.length = self.start
        return made


def before(base: Base, layer: int, start: int, stop: int, count: int) -> tuple[Tensor, list[Tensor]]:
    """Copies of what block `layer` reads, [copy x pair, pos, d_model], and of what was written before it
    where the model weighs that."""
    x = base.streams[layer][:, start:stop].repeat(count, 1, 1)
    return x, [part[:, start:stop].repeat(count, 1, 1) for part in base.written[: layer + 1]]


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
                sight = AttentionMask(tokens.pos[None], tokens.pos[None], None, base.causal, in_order=True)
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

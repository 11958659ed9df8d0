"""Re-run a model with edited activations, recomputing only the activations that the edits can change.

`CachedRun` serves patching, path patching, attribution patching, ablation, component matrices and neurons.

How a replay works. A variant is a list of edits. Its run equals the cached run in every block before its
first edit and, in a causal model, at every position before its first edited position; positions after those
that the metric reads do not matter. The remaining tokens of all variants, whatever their layer and position,
are computed as one list [1 token d]: each block is called once. Only attention lays the tokens out in rows,
next to the keys and values of the cached run. With 1 pair of 4 tokens, edits of layer 0 at position 2 and of
layer 1 at position 1, and a metric that reads position 3:

    block 0   [v0p2 v0p3]                      variant 0 starts: 2 tokens
    block 1   [v0p2 v0p3 v1p1 v1p2 v1p3]       variant 1 joins: 5 tokens, attention rows of 4 keys
    last      [v0p3 v1p3]                      the last block computes the positions that are read

An edit that stays at its position within its block (a head's z, an MLP's output) needs only that position
there: the block runs once at these positions of the cached run, for all such variants side by side, and the
variants join behind the block.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from workbench.console import OnProgress, ignore_progress
from workbench.errors import InputError
from workbench.interp.components import Component, Site, find_site, hook_layer
from workbench.interp.metrics import Metric
from workbench.model.layers import normed
from workbench.model.mask import AttentionMask, LayerCache
from workbench.model.transformer import HookedTransformer

TOKENS_PER_BATCH = {"cpu": 8192}
"""Tokens per call of a block; larger batches are not faster on a CPU. A GPU uses 32 times as many."""
LOGITS_AT_ONCE = 2048
"""Positions unembedded at once by metrics that read whole rows."""


def tokens_per_batch(device: torch.device) -> int:
    """Return the number of tokens per batch on a device."""
    return TOKENS_PER_BATCH.get(device.type, 32 * 8192)


class Edit(NamedTuple):
    """One change of an activation."""

    hook: str
    """Hook point of a site: `blocks.2.attn.hook_z` (see `workbench.interp.components.SITES`)."""
    value: float | Tensor | Callable[[Tensor], Tensor]
    """The replacement: a constant; a tensor of the shape of the activation in the cached run,
    [pair pos ...], or of the edited unit in it; or a function from [token ...] to the same shape."""
    pos: int | None = None
    """The position (of patterns: the query); all if None."""
    unit: int | None = None
    """The head or neuron; all if None."""


Variant = Sequence[Edit]
"""Edits that apply together, in one run."""


class Cells(NamedTuple):
    """The patches of a sweep as arrays."""

    layer: Int[np.ndarray, " cell"]
    pos: Int[np.ndarray, " cell"]
    """-1 for all positions."""
    unit: Int[np.ndarray, " cell"]
    """Head or neuron; -1 for the whole activation."""

    def __len__(self) -> int:  # type: ignore[override]
        return len(self.layer)

    def pick(self, indices: np.ndarray) -> "Cells":
        """Return some of the cells."""
        return Cells(self.layer[indices], self.pos[indices], self.unit[indices])


class Sweep(NamedTuple):
    """Variants of one edit each, all of one site: the compact form of many thousand edits."""

    site: Site
    cells: Cells
    values: Mapping[str, Tensor]
    """By hook point, as in `Edit.value`, of the whole activation."""


class CachedRun:
    """A run of a model with cached residual streams, keys and values, from which edited runs start.

    Patch two heads separately, then together, and read the metric of each pair of prompts:

        run = CachedRun(model, corrupted, keep=["blocks.1.attn.hook_z"])
        donor = CachedRun(model, clean, keep=["blocks.1.attn.hook_z"])
        z = donor.kept["blocks.1.attn.hook_z"]                    # [pair pos head d_head]
        edits = [Edit("blocks.1.attn.hook_z", z, unit=head) for head in (0, 3)]
        values = run.measure([[edits[0]], [edits[1]], edits], metric)          # [variant pair]
        streams = run.replay([[Edit("blocks.0.hook_mlp_out", 0.0)]])           # [variant pair pos d_model]

    `measure` runs any number of variants in batches; `replay` runs them at once and returns the residual
    stream behind the last block. Both are differentiable in the values of the edits. `frozen` propagates
    changes along direct paths only, with all other heads and MLPs frozen. Several threads may use one model.

    Args:
        model: in eval mode.
        tokens: one row per pair, padded on the right.
        attention_mask: 1 at tokens; needed by masked models whose rows differ in length.
        keep: additional hook points to cache.
        positions: of each token in its text, if not 0, 1, 2, ...
        mask: True where a query may attend to a key; replaces the causal or full pattern. In a causal model
            no query may see a key of a later index.
    """

    def __init__(
        self,
        model: HookedTransformer,
        tokens: Int[Tensor, "pair pos"],
        attention_mask: Tensor | None = None,
        keep: Sequence[str] = (),
        *,
        positions: Int[Tensor, "pair pos"] | None = None,
        mask: Bool[Tensor, "pair 1 pos pos"] | None = None,
    ) -> None:
        self.model, self.tokens, self.attention_mask = model, tokens, attention_mask
        self.causal = model.config.attention == "causal"
        self.in_order = positions is None
        kept: dict[str, Tensor] = {}
        names = dict.fromkeys((*cached_hooks(model), *keep))
        with replaced(model, {name: lambda x, name=name: kept.update({name: x}) for name in names}):
            model.stream(tokens, attention_mask=attention_mask, positions=positions, mask=mask)
        self.kept = {name: kept[name] for name in keep}
        """Activations of the hook points in `keep`."""
        layers = range(model.config.n_layers)
        last = "hook_normalized_resid_post" if model.config.norm_place == "post" else "hook_resid_post"
        streams = [f"blocks.{layer}.hook_resid_pre" for layer in layers] + [f"blocks.{layers[-1]}.{last}"]
        self.streams = [kept[name] for name in streams]
        """The input of each block, [pair pos d_model], and the output of the last."""
        weighted = model.config.residual == "weighted"
        self.written = [self.streams[0]] if weighted else []
        """The outputs of the embedding and of each block, if the model weights them."""
        for layer in layers if weighted else ():
            outputs = [f"blocks.{layer}.hook_{part}_out" for part in ("attn", "mlp")]
            parts = [kept[name] for name in outputs if name in kept]
            self.written.append(parts[0] if len(parts) == 1 else parts[0] + parts[1])
        rotated = "rot_k" if model.config.positions == "rotary" else "k"
        attending = [layer for layer in layers if model.blocks[layer].attn is not None]
        self.keys = {layer: kept[f"blocks.{layer}.attn.hook_{rotated}"] for layer in attending}
        """Keys of each block with attention, [pair pos kv_head d_head], after any rotary embedding."""
        self.values = {layer: kept[f"blocks.{layer}.attn.hook_v"] for layer in attending}
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        self.positions = positions.expand(tokens.shape)
        mask = model._mask(tokens, attention_mask, None) if mask is None else mask
        self.mask = None if mask is None else mask.expand(len(tokens), -1, -1, -1)

    def replay(
        self, variants: Sequence[Variant], reads: Int[Tensor, " pair"] | None = None
    ) -> Float[Tensor, "variant pair read d_model"]:
        """Run all variants at once and return the residual stream behind the last block.

        Args:
            variants: the edits of each run.
            reads: the one position of each pair to return; all positions if None.
        """
        table = _Table.of_variants(variants, self.model.config.n_layers)
        rows = _Replay(self, table.pick(np.arange(len(variants))), reads).run()
        stream = rows.whole(0, len(rows.tokens.pair)) if reads is None else rows.x
        stream = stream.unflatten(0, (len(variants), -1))
        order = rows.table.picked
        return stream if (np.diff(order) > 0).all() else stream[torch.from_numpy(np.argsort(order))]

    def measure(
        self,
        variants: Sequence[Variant] | Sweep,
        metric: Metric,
        on_progress: OnProgress = ignore_progress,
        unpatched: Float[Tensor, " pair"] | None = None,
    ) -> Float[Tensor, "variant pair"]:
        """Return the metric of every variant and pair, in float64.

        Args:
            variants: the edits of each run.
            metric: the metric. Variants that cannot change the position that it reads are not run.
            on_progress: called after each batch.
            unpatched: the metric of this run, in float64; computed if None.
        """
        if isinstance(variants, Sweep):
            table = _Table.of_sweep(variants)
        else:
            table = _Table.of_variants(variants, self.model.config.n_layers)
        if unpatched is None:
            unpatched = metric.of_stream(self.model, self.streams[-1]).double()
        values = unpatched.repeat(len(table.first), 1)
        reaching = table.reaching(self, metric)
        # Variants with similar start positions share the queries that attention can skip.
        order = reaching[np.lexsort((table.first[reaching], table.start[reaching]))]
        done = len(values) - len(order)
        for batch in self._batches(table, order):
            rows = _Replay(self, table.pick(batch), metric.reads).run()
            values[torch.from_numpy(rows.table.picked).to(values.device)] = rows.measure(metric, unpatched)
            done += len(batch)
            on_progress(done / len(values), "")
        return values

    def _batches(self, table: "_Table", order: np.ndarray) -> Iterator[np.ndarray]:
        """Yield batches of variants, each with at most `tokens_per_batch` tokens or one variant."""
        pairs, length = self.tokens.shape
        budget = tokens_per_batch(self.tokens.device)
        starts = table.start[order] if self.causal else np.zeros(len(order), dtype=int)
        ends = np.cumsum(pairs * (length - starts))
        first = 0
        while first < len(order):
            before = ends[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + budget, "right")))
            yield order[first:last]
            first = last

    def attention_at(
        self,
        places: Int[Tensor, "#row query"],
        pair: Int[Tensor, " row"] | None = None,
        tokens: Int[Tensor, "1 token"] | None = None,
    ) -> AttentionMask:
        """Return the attention mask for queries at the given places of the given pairs.

        Args:
            places: index of each query in its row.
            pair: pair of each row; None if row i is pair i.
            tokens: positions of the tokens, if their layout differs from that of the queries.
        """
        length = self.tokens.shape[1]
        keys = (
            self.positions[:1] if self.in_order else self.positions if pair is None else self.positions[pair]
        )
        queries = places
        if not self.in_order:
            queries = keys.gather(1, places.expand(len(keys), -1))
        whole = tokens is not None and places.shape[1] == length
        mask = None
        if self.mask is not None:
            mask = self.mask if pair is None else self.mask[pair]
            if not whole:
                mask = mask.gather(2, places[:, None, :, None].expand(len(mask), 1, -1, length))
        elif self.causal and not whole:
            index = torch.arange(length, device=places.device)
            mask = index <= places[:, None, :, None]
        attention = AttentionMask(
            queries if tokens is None else tokens, keys, mask, self.causal, self.in_order, queries
        )
        if self.model.position_bias is not None:
            attention.bias = self.model.position_bias(attention.distance, self.streams[0])
        return attention

    def frozen(
        self,
        donor: "CachedRun",
        senders: Sequence[Component | None],
        stop: int | None = None,
        through_mlps: bool = False,
    ) -> Iterator[tuple[tuple[int, str], Float[Tensor, "row pos d_model"]]]:
        """Yield the input of each reader of the residual stream with one sender's output at a time taken from
        the donor's run and all other heads and MLPs frozen as in this run.

        Only norms are recomputed, so the change stays at its position and is cheap compared with a forward
        pass. Both runs must keep `frozen_hooks`.

        Args:
            donor: another run.
            senders: the embedding, heads or MLPs; None changes nothing.
            stop: only positions before this one; all if None.
            through_mlps: recompute the MLPs, as in Wang et al. 2022; else they are frozen.

        Yields:
            (layer, "attn"), (layer, "mlp") and finally (n_layers, "logits"), each with the input stream, rows
            [sender x pair] with the pair varying fastest, from the earliest sender's block on.
        """
        model, count, pairs = self.model, len(senders), len(self.tokens)
        rows_of: dict[int, list[tuple[slice, Component]]] = {}
        for index, sender in enumerate(senders):
            if sender is not None:
                layer = -1 if sender.layer is None else sender.layer
                rows_of.setdefault(layer, []).append((slice(index * pairs, (index + 1) * pairs), sender))
        first = max(0, min(rows_of, default=0))
        x = self.streams[first][:, :stop].repeat(count, 1, 1)
        written = [part[:, :stop].repeat(count, 1, 1) for part in self.written[: first + 1]]
        for rows, _ in rows_of.get(-1, []):
            for part in (x, *written[:1]):
                part[rows] = donor.streams[0][:, :stop]
        for layer in range(first, model.config.n_layers):
            block: Any = model.blocks[layer]
            changed, name = rows_of.get(layer, []), f"blocks.{layer}"
            yield (layer, "attn"), x
            parts: list[Tensor] = []
            if block.attn is not None:
                out = self.kept[f"{name}.hook_attn_out"][:, :stop].repeat(count, 1, 1)
                for rows, sender in changed:
                    if sender.kind == "head":
                        out[rows] = self._with_head_of(donor, layer, sender.head)[:, :stop]
                parts.append(out)
            if block.kind == "am":
                x = x + parts[0]
                x = normed(block.ln1, x) if block.post_norm else x
            if block.mlp is not None:
                yield (layer, "mlp"), x
                frozen = self.kept[f"{name}.hook_mlp_out"][:, :stop]
                out = mlp_output(block, x) if through_mlps else frozen.repeat(count, 1, 1)
                for rows, sender in changed:
                    if sender.kind == "mlp":
                        out[rows] = donor.kept[f"{name}.hook_mlp_out"][:, :stop]
                parts.append(out)
            total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
            x = x + (parts[1] if block.kind == "am" else total)
            if block.mix is not None:
                written.append(total)
                x = block.mix(written, block.hook_mix)
            if block.post_norm:
                x = normed(block.ln1 if block.ln2 is None else block.ln2, x)
        yield (model.config.n_layers, "logits"), x

    def _with_head_of(self, donor: "CachedRun", layer: int, head: int | None) -> Tensor:
        """Return the attention's output with one head's z from the donor."""
        block: Any = self.model.blocks[layer]
        name = f"blocks.{layer}"
        z, other = (run.kept[f"{name}.attn.hook_z"] for run in (self, donor))
        change = (other - z)[:, :, head] @ block.attn.W_O[head]
        if block.ln1_post is None:
            return self.kept[f"{name}.hook_attn_out"] + change
        out = F.linear(z.flatten(-2), block.attn.out_weight, block.attn.out_bias)
        return normed(block.ln1_post, out + change)


def cached_hooks(model: HookedTransformer) -> list[str]:
    """Return the hook points that every `CachedRun` caches."""
    config = model.config
    points = ["hook_resid_pre", "attn.hook_v"]
    points.append("attn.hook_rot_k" if config.positions == "rotary" else "attn.hook_k")
    if config.residual == "weighted":
        points += ["hook_attn_out", "hook_mlp_out"]
    names = [f"blocks.{layer}.{name}" for layer in range(config.n_layers) for name in points]
    last = "hook_normalized_resid_post" if config.norm_place == "post" else "hook_resid_post"
    return [name for name in (*names, f"blocks.{config.n_layers - 1}.{last}") if name in model.hook_dict]


def frozen_hooks(model: HookedTransformer) -> list[str]:
    """Return the hook points that a `CachedRun` must keep for `frozen`."""
    names = []
    for layer, kind in enumerate(model.config.blocks):
        names += [f"blocks.{layer}.attn.hook_z", f"blocks.{layer}.hook_attn_out"] if "a" in kind else []
        names += [f"blocks.{layer}.hook_mlp_out"] if "m" in kind else []
    return names


def mlp_output(block: Any, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
    """Return the output of the block's MLP for the input `x`."""
    return block.mlp(x if block.post_norm else normed(block.ln2, x))


@contextmanager
def replaced(
    model: HookedTransformer, edits: Mapping[str, Callable[[Tensor], Tensor | None]]
) -> Iterator[None]:
    """Call functions at hook points, in this thread only; their return values replace the activations.

    The model's own hooks stay as they are: `model.hooks` would remove those of other threads.
    """
    thread = threading.get_ident()

    def hook(function: Callable[[Tensor], Tensor | None]) -> Callable[..., Tensor | None]:
        return lambda module, given, x: function(x) if threading.get_ident() == thread else None

    with ExitStack() as handles:
        for name, function in edits.items():
            handle = model.hook_dict[name].register_forward_hook(hook(function))
            handles.callback(handle.remove)
        yield


class Gradients(NamedTuple):
    """Activations and the gradients of a sum of values there."""

    value: Tensor
    """The differentiated value, before the sum."""
    activations: dict[str, Tensor]
    """By hook point."""
    gradients: dict[str, Tensor]
    """By hook point; zeros where the value does not depend on the activation."""


def activation_gradients(
    model: HookedTransformer,
    names: Sequence[str],
    value: Callable[[Float[Tensor, "row pos d_model"]], Tensor],
    tokens: Int[Tensor, "row pos"],
    embedded: Float[Tensor, "row pos d_model"] | None = None,
    **inputs: Any,
) -> Gradients:
    """Return the gradients of a value with respect to hook points, from one forward and backward pass.

    Args:
        model: in eval mode.
        names: hook points; `embedding_hook` for the embeddings.
        value: function of the residual stream behind the last block; its sum is differentiated. Rows are
            independent, so each row has its own gradient.
        tokens: ids.
        embedded: embeddings to run with instead of those of the tokens.
        inputs: further arguments of `HookedTransformer.stream`.
    """
    kept: dict[str, Tensor] = {}
    entry = embedding_hook(model)

    def keep(x: Tensor, name: str) -> Tensor:
        # A copy, so that the gradient is of this hook point and not of all that reads the tensor.
        x = x.clone() if embedded is None or name != entry else embedded.clone()
        kept[name] = x if x.requires_grad else x.requires_grad_()
        return x

    functions = {name: lambda x, name=name: keep(x, name) for name in dict.fromkeys((entry, *names))}
    with torch.enable_grad(), replaced(model, functions):
        values = value(model.stream(tokens, **inputs))
        points = [kept[name] for name in names]
        slopes = torch.autograd.grad(values.sum(), points, allow_unused=True)
    gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(points, slopes, strict=True)]
    activations = {name: kept[name].detach() for name in names}
    return Gradients(values.detach(), activations, dict(zip(names, gradients, strict=True)))


def embedding_hook(model: HookedTransformer) -> str:
    """Return the hook point of the sum of all embeddings, which the first block reads."""
    return "hook_full_embed" if "hook_full_embed" in model.hook_dict else "hook_embed"


class _Group(NamedTuple):
    """Edits of one value at one hook point."""

    hook: str
    value: float | Tensor | Callable[[Tensor], Tensor]
    variant: Int[np.ndarray, " edit"]
    pos: Int[np.ndarray, " edit"] | None
    unit: Int[np.ndarray, " edit"] | None


class _Table:
    """The edits of many variants as arrays, sorted by variant.

    Args:
        hooks: hook points.
        values: see `Edit.value`.
        columns: of each edit: variant, index of its hook, index of its value, position and unit (-1: all),
            and its turn among edits of one hook point, whose order matters where they overlap.
        first: the first block that each variant touches.
        start: the first position that each variant touches.
        kind: `JOINS`, `ALONE_AT` or `ALONE` for each variant.
        place: the position of those that are `ALONE_AT`.
        picked: the number of each variant in the table that these were picked from.
    """

    JOINS, ALONE_AT, ALONE = 0, 1, 2
    """How a variant begins: it joins in front of its first block; or that block computes its one position, or
    all positions, alone, and the variant joins behind."""

    def __init__(
        self,
        hooks: list[str],
        values: Sequence[Any],
        columns: Int[np.ndarray, "6 edit"],
        first: Int[np.ndarray, " variant"],
        start: Int[np.ndarray, " variant"],
        kind: Int[np.ndarray, " variant"],
        place: Int[np.ndarray, " variant"],
        picked: Int[np.ndarray, " variant"],
    ) -> None:
        self.hooks, self.values, self.columns = hooks, values, columns
        self.first, self.start, self.kind, self.place, self.picked = first, start, kind, place, picked
        self.layers = np.array([hook_layer(hook) for hook in hooks], dtype=int)

    @classmethod
    def of_variants(cls, variants: Sequence[Variant], n_layers: int) -> "_Table":
        """Return the table of lists of edits."""
        hooks: dict[str, int] = {}
        values: dict[int, int] = {}
        each, rows = [], []
        for variant, edits in enumerate(variants):
            turns: dict[str, tuple[int, int]] = {}
            for hook, value, pos, unit in edits:
                if id(value) not in values:
                    values[id(value)] = len(each)
                    each.append(value)
                index = values[id(value)]
                last, turn = turns.get(hook, (index, 0))
                turns[hook] = index, turn + (index != last)
                place = (-1 if pos is None else pos, -1 if unit is None else unit)
                rows.append((variant, hooks.setdefault(hook, len(hooks)), index, *place, turns[hook][1]))
        columns = np.array(rows, dtype=int).reshape(-1, 6).T
        variant, hook, _, pos, *_ = columns
        layer = np.array([hook_layer(name) for name in hooks], dtype=int)[hook]
        spreads = np.array([find_site(name).spreads for name in hooks], dtype=bool)[hook]
        count = len(variants)
        first = np.full(count, n_layers - 1)
        np.minimum.at(first, variant, layer)
        start = np.full(count, np.iinfo(int).max)
        np.minimum.at(start, variant, np.maximum(pos, 0))
        begins = layer == first[variant]
        low, high = np.full(count, np.iinfo(int).max), np.full(count, -1)
        np.minimum.at(low, variant[begins], pos[begins])
        np.maximum.at(high, variant[begins], pos[begins])
        kind = np.where(low != high, cls.JOINS, np.where(low < 0, cls.ALONE, cls.ALONE_AT))
        kind[variant[begins & spreads]] = cls.JOINS
        return cls(list(hooks), each, columns, first, start, kind, low, np.arange(count))

    @classmethod
    def of_sweep(cls, sweep: Sweep) -> "_Table":
        """Return the table of a sweep."""
        site, (layer, pos, unit) = sweep.site, sweep.cells
        layers, index = np.unique(layer, return_inverse=True)
        hooks = [site.hook_name(layer) for layer in layers.tolist()]
        count = np.arange(len(layer))
        kind = np.where(pos < 0, cls.ALONE, cls.ALONE_AT)
        kind = np.full_like(kind, cls.JOINS) if site.spreads else kind
        columns = np.stack([count, index, index, pos, unit, np.zeros_like(count)])
        values = [sweep.values[hook] for hook in hooks]
        return cls(hooks, values, columns, layer, np.maximum(pos, 0), kind, pos, count)

    def pick(self, indices: np.ndarray) -> "_Table":
        """Return some variants, in the order in which they join."""
        order = indices[np.lexsort((self.kind[indices], self.first[indices]))]
        number = np.full(len(self.first), -1)
        number[order] = np.arange(len(order))
        variant = number[self.columns[0]]
        columns = np.concatenate([variant[None], self.columns[1:]])[:, variant >= 0]
        first, start, kind, place = (
            array[order] for array in (self.first, self.start, self.kind, self.place)
        )
        return _Table(self.hooks, self.values, columns, first, start, kind, place, order)

    def reaching(self, run: CachedRun, metric: Metric) -> np.ndarray:
        """Return the variants that can change the metric."""
        reaching = np.zeros(len(self.first), dtype=bool)
        reaching[self.columns[0]] = True
        if metric.reads is not None:
            reads = metric.reads.cpu().numpy()
            if run.causal:
                reaching &= self.start <= reads.max()
            # Behind the attention of the last block only the positions that are read matter.
            last = (self.first == run.model.config.n_layers - 1) & (self.kind == self.ALONE_AT)
            reaching &= ~last | np.isin(self.place, reads)
        return np.flatnonzero(reaching)

    def groups(self, layer: int, variants: range) -> list[_Group]:
        """Return the edits of some variants in one block; variants are counted from the first of them."""
        variant, hook = self.columns[:2]
        here = (self.layers[hook] == layer) & (variant >= variants.start) & (variant < variants.stop)
        if not here.any():
            return []
        variant, hook, value, pos, unit, turn = self.columns[:, here]
        key = ((turn * len(self.hooks) + hook) * len(self.values) + value) * 4 + (pos < 0) * 2 + (unit < 0)
        groups = []
        for each in key[:1] if (key == key[0]).all() else np.unique(key):
            edits = np.flatnonzero(key == each)
            first = edits[0]
            groups.append(
                _Group(
                    self.hooks[hook[first]],
                    self.values[value[first]],
                    variant[edits] - variants.start,
                    None if pos[first] < 0 else pos[edits],
                    None if unit[first] < 0 else unit[edits],
                )
            )
        return groups


class RowTokens:
    """The tokens of rows that each run from a start to before a stop, as one list, row by row.

    Args:
        pair: which pair each row belongs to.
        start: the first position of each row.
        stop: the position behind the last.
        at: where the tokens of the first row are in a list that these are part of.
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
        """Index of the first token of each row."""
        self.row = torch.arange(len(pair), device=pair.device).repeat_interleave(counts)
        """Of each token."""
        self.pos = torch.arange(len(self.row), device=pair.device) - (self.first - start)[self.row]
        """Of each token."""
        self.at = slice(at, at + len(self.row))
        """Where these tokens are in the list that they are part of."""

    def between(self, first: int, last: int) -> "RowTokens":
        """Return the rows from `first` to before `last`."""
        if first == 0 and last == len(self.pair):
            return self
        rows = slice(first, last)
        before = int(self.first[first]) if first < len(self.pair) else len(self.row)
        return RowTokens(self.pair[rows], self.start[rows], self.stop[rows], before)

    @cached_property
    def is_whole(self) -> bool:
        """True if all rows have the same positions, from 0 on."""
        return not bool(self.start.any()) and bool((self.stop == self.stop[0]).all())

    def of(self, x: Shaped[Tensor, "pair pos *rest"]) -> Shaped[Tensor, "1 token *rest"]:
        """Return the values of each pair at these tokens."""
        return x[self.pair[self.row], self.pos][None]


class FixedCache(LayerCache):
    """Keys and values that are complete already: nothing is added.

    Args:
        keys: [row kv_head key_pos d_head].
        values: [row kv_head key_pos d_value].
    """

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cached keys and values."""
        return self.keys, self.values


class RaggedBatch(LayerCache):
    """Rows of attention made of the cached run's keys and values and, in their places, those of the tokens.

    Args:
        keys: of the cached run, [pair pos kv_head d_head].
        values: of the cached run, [pair pos kv_head d_value].
        tokens: of the rows.
        low: the first position that has queries.
    """

    def __init__(self, keys: Tensor, values: Tensor, tokens: RowTokens, low: int) -> None:
        super().__init__(keys, values)
        self.tokens, self.low = tokens, low
        self.whole = tokens.is_whole and int(tokens.stop[0]) == keys.shape[1] and low == 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return all keys and values of each row, [row kv_head key_pos d]; given are those of the tokens."""
        keys, values = (self._rows(new, old) for new, old in ((k, self.keys), (v, self.values)))
        return keys.transpose(1, 2), values.transpose(1, 2)

    def join(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lay out the queries in rows too; 0 where a row has no token."""
        queries = q[0].transpose(0, 1)
        if self.whole:
            rows = queries.unflatten(0, (len(self.tokens.pair), -1))
        else:
            rows = q.new_zeros(len(self.tokens.pair), self.keys.shape[1] - self.low, *queries.shape[1:])
            rows[self.tokens.row, self.tokens.pos - self.low] = queries
        return rows.transpose(1, 2), *self.append(k, v)

    def part(self, z: Float[Tensor, "row query_pos head d_value"]) -> Float[Tensor, "1 token head d_value"]:
        """Return the results of the tokens."""
        if self.whole:
            return z.flatten(0, 1)[None]
        return z[self.tokens.row, self.tokens.pos - self.low][None]

    def _rows(self, new: Tensor, old: Tensor) -> Tensor:
        values = new[0].transpose(0, 1)
        if self.whole:
            return values.unflatten(0, (len(self.tokens.pair), -1))
        rows = old[self.tokens.pair]
        rows[self.tokens.row, self.tokens.pos] = values
        return rows


class _Layout(NamedTuple):
    """The places of the tokens of rows in an activation [outer inner ...]: those of row i at `outer[i]`, from
    `first[i]` on, positions `start[i]` to before `stop[i]`. Rows are [variant x pair], the pair fastest."""

    outer: Int[Tensor, " row"]
    first: Int[Tensor, " row"]
    start: Int[Tensor, " row"]
    stop: Int[Tensor, " row"]
    pairs: int

    def find(self, group: _Group) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return outer and inner index, pair, position and index of the edit of every token to be edited."""
        device = self.first.device
        pair = torch.arange(self.pairs, device=device)
        variant = torch.from_numpy(group.variant).to(device)
        rows = (variant[:, None] * self.pairs + pair).flatten()
        start, stop = self.start[rows], self.stop[rows]
        if group.pos is None:
            counts = stop - start
            of = torch.arange(len(rows), device=device).repeat_interleave(counts)
            place = torch.arange(len(of), device=device) - (counts.cumsum(0) - counts - start)[of]
        else:
            pos = torch.from_numpy(group.pos).to(device).repeat_interleave(self.pairs)
            of = ((pos >= start) & (pos < stop)).nonzero()[:, 0]
            place = pos[of]
        row = rows[of]
        inner = self.first[row] + place - self.start[row]
        return self.outer[row], inner, row % self.pairs, place, of // self.pairs


class _Replay:
    """One batch of variants, run block by block.

    Args:
        run: the cached run that they start from.
        table: the variants, in the order in which they join.
        reads: the position of each pair to return; all if None.
    """

    def __init__(self, run: CachedRun, table: _Table, reads: Int[Tensor, " pair"] | None) -> None:
        self.cached, self.table = run, table
        self.pairs, length = run.tokens.shape
        device = run.tokens.device
        self.reads = None if reads is None else reads.to(device)
        start = torch.from_numpy(table.start).to(device).repeat_interleave(self.pairs)
        pair = torch.arange(self.pairs, device=device).repeat(len(table.first))
        stop = torch.full_like(pair, length)
        if run.causal and self.reads is not None:
            stop = self.reads[pair] + 1
        if not run.causal:
            start = torch.zeros_like(start)
        self.tokens = RowTokens(pair, start.minimum(stop), stop)
        self.x = run.streams[0].new_empty(1, 0, run.streams[0].shape[-1])
        """The tokens of the variants that have joined, [1 token d_model]; at the end, with `reads`, the
        position of each row that is read, [row 1 d_model]."""
        self.written: list[Tensor] = []

    def run(self) -> "_Replay":
        """Run all blocks from the first that a variant touches."""
        first = self.table.first
        last, joined = self.cached.model.config.n_layers - 1, 0
        counts = np.zeros((last + 1, 3), dtype=int)
        np.add.at(counts, (first, self.table.kind), 1)
        for layer in range(int(first.min()) if len(first) else last, last + 1):
            short = layer == last and self.reads is not None
            for begins, count in enumerate(counts[layer].tolist()):
                variants = range(joined, joined + count)
                joined += count
                if begins == _Table.JOINS:
                    if count:
                        self._join(layer, variants)
                    if joined:
                        self._block(layer, joined, short)
                elif count:
                    self._alone(layer, variants, short)
        return self

    def _rows(self, variants: range) -> RowTokens:
        return self.tokens.between(variants.start * self.pairs, variants.stop * self.pairs)

    def _join(self, layer: int, variants: range) -> None:
        """Append the tokens of new rows, as the cached run has them in front of a block."""
        run, new = self.cached, self._rows(variants)
        before = [new.of(part) for part in run.written[: layer + 1]]
        if self.written:
            before = [torch.cat(parts, 1) for parts in zip(self.written, before, strict=True)]
        self.written = before
        self.x = torch.cat([self.x, new.of(run.streams[layer])], 1)

    def _block(self, layer: int, joined: int, short: bool) -> None:
        """Run a block on all tokens of the joined variants, or, if `short`, on the one read of each row."""
        run, name = self.cached, f"blocks.{layer}"
        block: Any = run.model.blocks[layer]
        tokens = self._rows(range(joined))
        groups = self.table.groups(layer, range(joined))
        listed = _Layout(torch.zeros_like(tokens.first), tokens.first, tokens.start, tokens.stop, self.pairs)
        edits = self._functions(groups, listed)
        if f"{name}.attn.hook_pattern" in edits:
            raise InputError(
                "A pattern can be edited only in the first edited block of a variant, at its only position."
            )
        change = edits.pop(
            f"{name}.hook_resid_pre", None
        )  # a block also reads its input outside its hook point
        x = self.x if change is None else change(self.x)
        low = int(tokens.start.min()) if run.causal and not short else 0
        cache = None
        if layer in run.keys:
            cache = RaggedBatch(run.keys[layer], run.values[layer], tokens, low)
        positions = tokens.pos[None] if run.in_order else tokens.of(run.positions)
        if not short:
            places = torch.arange(low, run.tokens.shape[1], device=x.device)[None]
            with replaced(run.model, edits):
                self.x = block(x, run.attention_at(places, tokens.pair, positions), cache, self.written)
            return
        if cache is not None:
            own = AttentionMask(positions, positions, None, run.causal, run.in_order)
            with replaced(run.model, edits):
                cache = FixedCache(*cache.append(*block.keys_values(x, own)))
        assert self.reads is not None
        reads = self.reads[tokens.pair]
        index = torch.arange(len(reads), device=x.device)
        single = _Layout(index, torch.zeros_like(index), reads, reads + 1, self.pairs)
        x = _at_reads(x, run.streams[layer], tokens, reads)
        self.written = [_at_reads(x, run.written[i], tokens, reads) for i, x in enumerate(self.written)]
        groups = [group for group in groups if not find_site(group.hook).spreads]
        with replaced(run.model, self._functions(groups, single)):
            self.x = block(x, run.attention_at(reads[:, None], tokens.pair), cache, self.written)

    def _alone(self, layer: int, variants: range, short: bool) -> None:
        """Run a block at the edited positions of the cached run, for all variants side by side; their rows
        join behind the block."""
        run, (pairs, length), device = self.cached, self.cached.tokens.shape, self.x.device
        tokens = self._rows(variants)
        count = length if self.table.kind[variants.start] == _Table.ALONE else 1
        first = torch.from_numpy(self.table.place[variants.start : variants.stop]).to(device)
        first = torch.zeros_like(first) if count > 1 else first
        place = (first[:, None] + torch.arange(count, device=device)).flatten()
        cache = None
        if layer in run.keys:
            cache = FixedCache(*(part[layer].transpose(1, 2) for part in (run.keys, run.values)))
        written = [part[:, place] for part in run.written[: layer + 1]]
        variant = torch.arange(len(variants), device=device).repeat_interleave(pairs)
        pair = torch.arange(pairs, device=device).repeat(len(variants))
        first = first.repeat_interleave(pairs)
        layout = _Layout(pair, variant * count, first, first + count, pairs)
        with replaced(run.model, self._functions(self.table.groups(layer, variants), layout)):
            mask = run.attention_at(place[None])
            out = run.model.blocks[layer](run.streams[layer][:, place], mask, cache, written)
        # [pair variant*place ...] to rows: of each variant its pairs
        new, *more = (
            part.unflatten(1, (len(variants), count)).transpose(0, 1).flatten(0, 1)
            for part in (out, *written[-1:])
        )
        if short:
            assert self.reads is not None
            reads = self.reads[tokens.pair]
            spot = reads - first
            computed = new[torch.arange(len(new), device=device), spot.clamp(0, count - 1)]
            touched = ((spot >= 0) & (spot < count))[:, None]
            new = torch.where(touched, computed, run.streams[-1][tokens.pair, reads])[:, None]
            self.x = torch.cat([self.x, new]) if variants.start else new
            return
        spot = tokens.pos - first[tokens.row]
        touched = (spot >= 0) & (spot < count)

        def behind(before: Tensor, computed: Tensor) -> Tensor:
            """Return the tokens of the cached run, and in them what was computed."""
            if count == length and tokens.is_whole:
                return computed[:, : int(tokens.stop[0])].flatten(0, 1)[None]
            joined = tokens.of(before)
            joined[0, touched] = computed[tokens.row[touched], spot[touched]]
            return joined

        columns = [tokens.of(part) for part in run.written[: layer + 1]]
        columns += [behind(run.written[layer + 1], part) for part in more]
        if variants.start:
            columns = [torch.cat(parts, 1) for parts in zip(self.written, columns, strict=True)]
        self.x, self.written = torch.cat([self.x, behind(run.streams[layer + 1], new)], 1), columns

    def _functions(self, groups: Sequence[_Group], layout: _Layout) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return a function for each hook point that makes the edits in a copy of the activation."""
        edits: dict[str, list[_Group]] = {}
        for group in groups:
            edits.setdefault(group.hook, []).append(group)

        def function(edits: list[_Group]) -> Callable[[Tensor], Tensor]:
            def change(x: Tensor) -> Tensor:
                x = x.clone()
                for group in edits:
                    self._edit(x, group, *layout.find(group))
                return x

            return change

        return {hook: function(each) for hook, each in edits.items()}

    def _edit(
        self, x: Tensor, group: _Group, outer: Tensor, inner: Tensor, pair: Tensor, pos: Tensor, edit: Tensor
    ) -> None:
        """Change an activation in place."""
        pattern = find_site(group.hook).is_pattern
        view = x.transpose(1, 2) if pattern else x
        unit = () if group.unit is None else (torch.from_numpy(group.unit).to(x.device)[edit],)
        value = group.value
        if isinstance(value, Tensor):
            whole = value.ndim == x.ndim
            value = value.transpose(1, 2) if pattern and whole else value
            value = value.expand(*self.cached.tokens.shape, *value.shape[2:])
            value = value[pair, pos, *unit] if whole else value[pair, pos]
            view[outer, inner, *unit] = value.to(x.dtype)
        elif callable(value):
            view[outer, inner, *unit] = value(view[outer, inner, *unit])
        else:
            view[outer, inner, *unit] = value

    def whole(self, first: int, last: int) -> Float[Tensor, "row pos d_model"]:
        """Return the residual stream of rows `first` to before `last` at all positions."""
        rows = self.tokens.between(first, last)
        if rows.is_whole and int(rows.stop[0]) == self.cached.tokens.shape[1]:
            return self.x[0, rows.at].unflatten(0, (last - first, -1))
        stream = self.cached.streams[-1][rows.pair]
        stream[rows.row, rows.pos] = self.x[0, rows.at]
        return stream

    def measure(self, metric: Metric, unpatched: Float[Tensor, " pair"]) -> Float[Tensor, "variant pair"]:
        """Return the metric of the rows; that of the cached run where a row does not reach what is read."""
        model, pair = self.cached.model, self.tokens.pair
        if self.reads is not None:
            value = metric(model, model.final(self.x), pair).double()
            reached = self.tokens.stop > self.tokens.start
            return torch.where(reached, value, unpatched[pair]).view(-1, self.pairs)
        step = max(1, LOGITS_AT_ONCE // self.cached.tokens.numel()) * self.pairs
        values = []
        for first in range(0, len(pair), step):
            last = min(first + step, len(pair))
            values.append(metric(model, model.final(self.whole(first, last)), pair[first:last]).double())
        return torch.cat(values).view(-1, self.pairs)


def _at_reads(x: Tensor, cached: Tensor, tokens: RowTokens, reads: Tensor) -> Float[Tensor, "row 1 d_model"]:
    """Return each row's read token of a list [1 token d_model]; the cached run's if the row lacks it."""
    reached = (tokens.stop > tokens.start)[:, None]
    index = (tokens.first + reads - tokens.start).clamp(0, max(x.shape[1] - 1, 0))
    return torch.where(reached, x[0, index], cached[tokens.pair, reads])[:, None]

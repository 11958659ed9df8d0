"""Read a corpus once and keep what every wanted hook point computes at its rows.

One forward pass gives all layers. Windows are sorted by length inside a block of about 8,000 tokens, only
the rows' own positions are kept, and each block becomes one shard on the disk before the next but one begins:
memory is that of two blocks, however long the corpus is.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from probes.activations.blocks import Block, Blocks
from probes.activations.features import Features
from probes.activations.gather import Gatherer, need_choice, padded
from probes.activations.hooks import EMBEDDING, find_hooks, place_of
from probes.activations.keys import corpus_key, model_key
from probes.activations.shards import BUDGET, Shards, activations_folder
from workbench.data.cache import disk_errors, locked
from workbench.errors import InputError

if TYPE_CHECKING:
    from probes.align import Aligned

Progress = Callable[[int, int], None]


def extract(
    run: Any,
    aligned: "Aligned",
    hooks: str | Sequence[str] = "resid_post",
    *,
    token: str = "last",
    untrained: bool = False,
    budget: int = BUDGET,
    folder: Path | str | None = None,
    progress: Progress | None = None,
) -> Features:
    """Activations of a corpus' rows, read from the model or, so far as they are there, from the disk.

    Args:
        run: a run (`workbench.load`) or a `HookedTransformer`.
        aligned: what `probes.align.align` gave for the run's tokenizer.
        hooks: hook points, see `probes.activations.hooks.find_hooks`.
        token: which of a word's tokens stand for it: `first`, `last`, or the `mean` of all.
        untrained: of an untrained copy of the model in its place.
        budget: bytes on the disk for all activations together; what was not used for longest makes room.
        folder: where they lie; by default in the cache.
        progress: called with (tokens read, tokens in all).

    Raises:
        InputError: no such hook point, token ids or windows that the model cannot take, or numbers that are
            none in the activations.
        DataError: they do not fit into the budget or onto the disk.
    """
    need_choice(token)
    network = run.model if hasattr(run, "checkpoint") else run
    names = find_hooks(network, hooks)
    blocks = Blocks(aligned)
    _check(network, blocks)
    shards = Shards(
        activations_folder(folder),
        model_key(run, untrained),
        corpus_key(blocks, token),
        [len(block.rows) for block in blocks.blocks],
        blocks.n_spans,
    )
    if untrained:
        from workbench.interp.texts import untrained_copy

        network = untrained_copy(network)
    with disk_errors(shards.root, "keep activations"), locked(shards.lock):
        return _Extraction(network, blocks, shards, token, progress).run(names, budget, str(run))


def widths_of(model: Any, hooks: Sequence[str], spans: int = 1) -> tuple[dict[str, int], dict[str, int]]:
    """Numbers of a row, and heads, of each hook point: found with one token."""
    widths: dict[str, int] = {}
    heads: dict[str, int] = {}

    def note(x: torch.Tensor, hook: Any) -> None:
        widths[hook.name] = spans * x[0, 0].numel()
        if place_of(hook.name).is_per_head:
            heads[hook.name] = x.shape[2]

    tokens = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.no_grad(), model.hooks(fwd_hooks=[(name, note) for name in hooks]):
        _forward(model, hooks)(tokens, attention_mask=torch.ones_like(tokens))
    missing = [name for name in hooks if name not in widths]
    if missing:
        raise InputError(
            f"{missing[0]} is not computed by this model when it reads; name another hook point."
        )
    return {name: widths[name] for name in hooks}, heads


class _Extraction:
    """One call of `extract`, with the lock held."""

    def __init__(
        self, model: Any, blocks: Blocks, shards: Shards, token: str, progress: Progress | None
    ) -> None:
        self._model, self._blocks, self._shards, self._token = model, blocks, shards, token
        self._progress = progress
        self._clipped = 0
        self._done = 0

    def run(self, names: tuple[str, ...], budget: int, about: str) -> Features:
        widths, heads = widths_of(self._model, names, self._blocks.n_spans)
        homes = self._homes(names, widths)
        new = [name for name in names if name not in homes]
        if new:
            needed = 2 * self._blocks.n_rows * sum(widths[name] for name in new)
            self._shards.make_room(needed, budget)
            card = {
                "of": about, "token": self._token, "rows": self._blocks.n_rows, "spans": self._blocks.n_spans,
                "tokens": self._blocks.tokens,
            }  # fmt: skip
            folder = self._shards.new_pass({name: widths[name] for name in new}, card)
            homes |= dict.fromkeys(new, folder)
        passes = {folder: self._shards.passes()[folder] for folder in dict.fromkeys(homes.values())}
        found = {folder: self._found(folder, hooks) for folder, hooks in passes.items()}
        missing = {folder: [i for i, one in enumerate(have) if one is None] for folder, have in found.items()}
        total = sum(self._blocks.blocks[i].tokens for absent in missing.values() for i in absent)
        began = time.perf_counter()
        for folder, absent in missing.items():
            self._fill(folder, passes[folder], [self._blocks.blocks[i] for i in absent], total)
            for index in absent:
                found[folder][index] = self._again(folder, index, passes[folder])
        self._shards.used()
        by_block = [
            {name: found[homes[name]][block.index][name] for name in names}  # type: ignore[index]
            for block in self._blocks.blocks
        ]
        return Features(
            model=self._shards.folder.parent.name,
            corpus=self._shards.folder.name,
            n_rows=self._blocks.n_rows,
            n_spans=self._blocks.n_spans,
            widths=widths,
            folder=self._shards.folder,
            heads=heads,
            seconds=time.perf_counter() - began if total else 0.0,
            read=total,
            clipped=self._clipped,
            _rows=tuple(block.rows for block in self._blocks.blocks),
            _shards=tuple(by_block),
        )

    def _homes(self, names: Sequence[str], widths: Mapping[str, int]) -> dict[str, Path]:
        """Which pass on the disk has a hook point: the one that has most of what is wanted."""
        passes = self._shards.passes()
        homes: dict[str, Path] = {}
        for folder, hooks in sorted(passes.items(), key=lambda item: -len(set(item[1]) & set(names))):
            for name in names:
                if hooks.get(name) == widths[name]:
                    homes.setdefault(name, folder)
        return homes

    def _found(self, folder: Path, hooks: Mapping[str, int]) -> list[dict[str, np.ndarray] | None]:
        return [self._shards.read(folder, block.index, hooks) for block in self._blocks.blocks]

    def _again(self, folder: Path, index: int, hooks: Mapping[str, int]) -> dict[str, np.ndarray]:
        arrays = self._shards.read(folder, index, hooks)
        if arrays is None:
            raise InputError(
                f"shard {index} in {folder} was damaged as soon as it was written; have the disk mended."
            )
        return arrays

    def _fill(self, folder: Path, hooks: Mapping[str, int], blocks: Sequence[Block], total: int) -> None:
        """Read blocks; the last one is written while the next is read."""
        written: Future[None] | None = None
        with ThreadPoolExecutor(1) as writer:
            for block in blocks:
                arrays = self._read(block, hooks, total)
                if written is not None:
                    written.result()
                written = writer.submit(self._shards.write, folder, block.index, arrays)
            if written is not None:
                written.result()

    @torch.no_grad()
    def _read(self, block: Block, hooks: Mapping[str, int], total: int) -> dict[str, np.ndarray]:
        arrays = {name: np.empty((len(block.rows), width), np.float16) for name, width in hooks.items()}
        pad = None if self._model.tokenizer is None else self._model.tokenizer.pad_token_id
        forward = _forward(self._model, list(hooks))
        for batch in self._blocks.batches(block):
            windows = [self._blocks.window(index) for index in batch.windows.tolist()]
            tokens, real = padded(windows, pad, self._model.device)
            pick = Gatherer(batch, tokens.shape[1], self._token, self._model.device)

            def keep(x: torch.Tensor, hook: Any, pick: Gatherer = pick, rows: Any = batch.row) -> None:
                half, large = pick(x)
                if large < 0:
                    raise InputError(
                        f"{hook.name} has numbers that are none (NaN) on this corpus; the model is ill."
                    )
                self._clipped += large
                arrays[hook.name][rows] = half.cpu().numpy()

            with self._model.hooks(fwd_hooks=[(name, keep) for name in hooks]):
                forward(tokens, attention_mask=real)
            self._done += int(self._blocks.lengths[batch.windows].sum())
            if self._progress is not None:
                self._progress(self._done, total)
        return arrays


def _forward(model: Any, hooks: Sequence[str]) -> Callable[..., Any]:
    """The shortest way that passes all of the hook points: the stream, unless one lies behind it."""
    inside = all(name.startswith("blocks.") or "embed" in name for name in hooks)
    return model.stream if inside else model.residual


def _check(model: Any, blocks: Blocks) -> None:
    longest = int(blocks.lengths.max())
    if longest > model.config.n_ctx:
        raise InputError(
            f"a window has {longest} tokens, the context is {model.config.n_ctx}; "
            "align the corpus for this model."
        )
    low, high = blocks.range_of_ids()
    if low < 0 or high >= model.config.d_vocab:
        raise InputError(
            f"token ids run from {low} to {high}; the vocabulary has {model.config.d_vocab}: "
            "align the corpus with this run's tokenizer."
        )


__all__ = ["BUDGET", "EMBEDDING", "Features", "extract", "widths_of"]

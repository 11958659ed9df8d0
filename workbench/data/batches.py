"""Batches as a pure function of (seed, step), and a fixed iteration over a split for evaluation.

Nothing here has state to save: a run that is killed and resumed asks for the batch of its step. As in Pythia
(Biderman et al. 2023, arXiv:2304.01373), the data seen at any step can be rebuilt at any time.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from workbench.data.packing import PackedSplit
from workbench.errors import ConfigError, DataError, nearest
from workbench.stats import derive, generator

MASK_RATE = 0.15
MASKED, RANDOM = 0.8, 0.1
"""Of the tokens to predict, 80 % become the mask token, 10 % a random token, 10 % stay."""
IGNORED = -100
"""Target where nothing is scored."""

OBJECTIVES = ("clm", "mlm")
ALIGNMENTS = ("stream", "story")


def mask_tokens(
    tokens: Int64[np.ndarray, "batch pos"],
    rng: np.random.Generator,
    *,
    mask_id: int,
    d_vocab: int,
    special_ids: tuple[int, ...],
) -> tuple[Int64[np.ndarray, "batch pos"], Int64[np.ndarray, "batch pos"]]:
    """Mask tokens for masked language modelling (Devlin et al. 2019, arXiv:1810.04805).

    Masks are drawn anew at each step, as in RoBERTa (Liu et al. 2019, arXiv:1907.11692). Special tokens are
    neither chosen nor drawn as random replacements. A row with any ordinary token has at least one chosen, so
    that a loss over the row is never an empty mean.

    Returns:
        The model's input, and the targets: the original id where a token was chosen, else -100.
    """
    chance = rng.random(tokens.shape, dtype=np.float32)
    fate = rng.random(tokens.shape, dtype=np.float32)
    ordinary = np.ones(d_vocab, dtype=bool)
    ordinary[list(special_ids)] = False
    chance[~ordinary[tokens]] = 2.0
    chosen = chance < MASK_RATE
    for row in np.flatnonzero(~chosen.any(axis=1)):
        column = int(chance[row].argmin())
        chosen[row, column] = chance[row, column] < 1.0
    targets = np.where(chosen, tokens, IGNORED)
    shown = np.where(chosen & (fate < MASKED), mask_id, tokens)
    randomised = chosen & (fate >= MASKED) & (fate < MASKED + RANDOM)
    pool = np.flatnonzero(ordinary)
    shown[randomised] = pool[rng.integers(len(pool), size=int(randomised.sum()))]
    return shown, targets


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        tokens: the model's input, int64 `[batch pos]`.
        targets: what is scored at each position, int64 `[batch pos]`: the next token (clm) or the original
            of a masked one (mlm); -100 where nothing is scored.
        segments: index of the story within the row that each position belongs to, int64 `[batch pos]`; None
            if attention may cross stories.
        target_bytes: UTF-8 bytes of text of each target, int64 `[batch pos]`; -100 where the
            target is BOS, EOS or not scored. None outside evaluation, for mlm, or if unknown.
    """

    tokens: Int64[Tensor, "batch pos"]
    targets: Int64[Tensor, "batch pos"]
    segments: Int64[Tensor, "batch pos"] | None = None
    target_bytes: Int64[Tensor, "batch pos"] | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch on `device`."""
        if device.type == "cpu":
            return self
        return Batch(*(None if part is None else part.to(device) for part in self._tensors()))  # type: ignore[arg-type]

    def rows(self, rows: slice) -> "Batch":
        """Return some of its rows."""
        return Batch(*(None if part is None else part[rows] for part in self._tensors()))  # type: ignore[arg-type]

    def _tensors(self) -> tuple[Tensor | None, ...]:
        return self.tokens, self.targets, self.segments, self.target_bytes


@dataclass(frozen=True, eq=False)
class Batches:
    """The training batches of a split: `batches.batch(step)` depends only on the seed and the step.

    An epoch is a seeded permutation of the split's windows; each step takes the next `batch_size` of them,
    continuing into the next epoch. The stream is read as a ring: with `align="stream"` the windows of an
    epoch are adjacent, from a seeded start, so that an epoch reads no token twice, omits fewer than `n_ctx`,
    and cuts the stream at other places than the previous epoch. With `align="story"` every window starts with
    a story's BOS, or continues a story longer than `n_ctx`; a story that is cut by the end of a window is
    repeated from its start in the next, so every token is read at least once.

    Args:
        split: a packed split.
        seed: of permutations, starts and masks.
        batch_size: rows.
        n_ctx: positions per row; need not be the length that the split was packed for.
        cross_story: if False, stories are numbered in `Batch.segments`, and a story's start is not scored
            from the end of the one before.
        objective: `"clm"` or `"mlm"`.
        mask_id: the mask token; by default the split's.
        d_vocab: ids that random replacements are drawn from; by default the split's vocabulary.
        align: `"stream"` or `"story"`.

    Raises:
        ConfigError: a size under 1, an unknown objective or alignment, a `d_vocab` under the tokenizer's.
        DataError: the split is shorter than one window; a masked objective without a mask token.
    """

    split: PackedSplit
    seed: int
    batch_size: int
    n_ctx: int
    cross_story: bool = True
    objective: str = "clm"
    mask_id: int | None = None
    d_vocab: int | None = None
    align: str = "stream"

    def __post_init__(self) -> None:
        for name in ("batch_size", "n_ctx"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}.")
        _check_choice("objective", self.objective, OBJECTIVES)
        _check_choice("align", self.align, ALIGNMENTS)
        needed = self.n_ctx + (self.objective == "clm")
        if self.split.n_tokens < needed:
            raise DataError(
                f"the {self.split.name} split has {self.split.n_tokens:,} tokens, fewer than one window of "
                f"n_ctx = {self.n_ctx} needs ({needed:,}): choose n_ctx up to "
                f"{max(1, self.split.n_tokens - 1):,}, or give more stories."
            )
        object.__setattr__(self, "mask_id", _mask_id(self.split, self.objective, self.mask_id))
        d_vocab = self.split.d_vocab if self.d_vocab is None else self.d_vocab
        if d_vocab < self.split.d_vocab:
            raise ConfigError(
                f"d_vocab = {d_vocab} does not hold the tokenizer's {self.split.d_vocab} tokens."
            )
        object.__setattr__(self, "d_vocab", d_vocab)
        if self.align == "story":
            grid = _story_starts(self.split.offsets, self.n_ctx)
        else:
            grid = np.arange(self.split.n_tokens // self.n_ctx, dtype=np.int64) * self.n_ctx
        object.__setattr__(self, "_grid", grid)
        # Two epochs are enough: a batch seldom spans more.
        object.__setattr__(self, "_order", lru_cache(maxsize=2)(self._epoch_starts))

    def __len__(self) -> int:
        """Return the number of windows in an epoch."""
        return len(self._grid)  # type: ignore[attr-defined]

    @property
    def steps_per_epoch(self) -> float:
        """Steps per epoch."""
        return len(self) / self.batch_size

    @property
    def tokens_per_step(self) -> int:
        """Positions per batch."""
        return self.batch_size * self.n_ctx

    def _epoch_starts(self, epoch: int) -> np.ndarray:
        grid: np.ndarray = self._grid  # type: ignore[attr-defined]
        starts = grid[generator(self.seed, "epoch", epoch).permutation(len(grid))]
        if self.align == "stream":
            starts = (
                starts + derive(self.seed, "epoch start", epoch) % self.split.n_tokens
            ) % self.split.n_tokens
        return starts

    def starts(self, step: int) -> Int64[np.ndarray, " batch"]:
        """Return where in the split's stream each row of this step's batch starts."""
        if step < 0:
            raise ConfigError(f"a step is 0 or more, not {step}.")
        first = step * self.batch_size
        pieces, needed = [], self.batch_size
        while needed:
            epoch, place = divmod(first, len(self))
            piece = self._order(epoch)[place : place + needed]  # type: ignore[attr-defined]
            pieces.append(piece)
            first += len(piece)
            needed -= len(piece)
        return np.concatenate(pieces)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0: the same in any order and in any process.

        Raises:
            ConfigError: `step` is negative.
        """
        clm = self.objective == "clm"
        starts = self.starts(step)
        rows = self.split.windows(starts, self.n_ctx + clm)
        marks = None if self.cross_story else self.split.story_starts(starts, self.n_ctx + clm)
        if clm:
            return _to_torch(*_shifted(rows, marks))
        rng = generator(self.seed, "mlm masks", step)
        tokens, targets = mask_tokens(
            rows,
            rng,
            mask_id=self.mask_id,  # type: ignore[arg-type]
            d_vocab=self.d_vocab,  # type: ignore[arg-type]
            special_ids=self.split.special_ids,
        )
        return _to_torch(tokens, targets, _numbered(marks))


def eval_batches(
    split: PackedSplit,
    batch_size: int,
    n_ctx: int,
    *,
    objective: str = "clm",
    cross_story: bool = True,
    mask_id: int | None = None,
    max_tokens: int | None = None,
) -> Iterator[Batch]:
    """Iterate over a split once, in order, in windows of `n_ctx`; always the same batches.

    Every token but the stream's first is scored once (clm), or masked with the probability of training, by
    masks that depend on the window alone and not on `batch_size` (mlm). The last window is padded on the
    right with the pad token and -100; in a masked batch with padding, `segments` keeps attention off it.

    Args:
        split: a packed split.
        batch_size: rows of a batch; the last one may have fewer.
        n_ctx: positions per row.
        objective: `"clm"` or `"mlm"`.
        cross_story: as in `Batches`.
        mask_id: the mask token; by default the split's.
        max_tokens: stop after the windows that cover this many tokens.

    Raises:
        ConfigError: a size under 1, an unknown objective.
        DataError: fewer than two tokens; a masked objective without a mask token.
    """
    for name, number in (("batch_size", batch_size), ("n_ctx", n_ctx)):
        if number < 1:
            raise ConfigError(f"{name} must be 1 or more, not {number}.")
    _check_choice("objective", objective, OBJECTIVES)
    mask_id = _mask_id(split, objective, mask_id)
    clm = objective == "clm"
    scored = split.n_tokens - clm
    if scored < 1:
        raise DataError(
            f"the {split.name} split has {split.n_tokens} tokens; there is nothing to evaluate on."
        )
    return _eval_batches(split, batch_size, n_ctx, scored, clm, cross_story, mask_id, max_tokens)


def _eval_batches(
    split: PackedSplit,
    batch_size: int,
    n_ctx: int,
    scored: int,
    clm: bool,
    cross_story: bool,
    mask_id: int | None,
    max_tokens: int | None,
) -> Iterator[Batch]:
    starts = np.arange(0, min(scored, max_tokens or scored), n_ctx, dtype=np.int64)
    pad = split.pad_id if split.pad_id is not None else split.eos_id
    for first in range(0, len(starts), batch_size):
        chosen = starts[first : first + batch_size]
        rows = split.windows(chosen, n_ctx + clm)
        marks = None if cross_story else split.story_starts(chosen, n_ctx + clm)
        over = int(chosen[-1]) + n_ctx - scored  # positions of the last row that lie past the end
        if over > 0:
            rows[-1, n_ctx + clm - over :] = pad
        if clm:
            tokens, targets, segments = _shifted(rows, marks)
        else:
            masked = [
                mask_tokens(
                    rows[row : row + 1],
                    generator(0, "mlm evaluation masks", int(start)),
                    mask_id=mask_id,  # type: ignore[arg-type]
                    d_vocab=split.d_vocab,
                    special_ids=split.special_ids,
                )
                for row, start in enumerate(chosen)
            ]
            tokens, targets = (np.concatenate(parts) for parts in zip(*masked, strict=True))
            segments = _numbered(marks)
        sizes = split.text_bytes(chosen + 1, rows[:, 1:]) if clm else None
        if sizes is not None:
            sizes[targets == IGNORED] = IGNORED
        if over > 0:
            if sizes is not None:
                sizes[-1, n_ctx - over :] = IGNORED
            tokens[-1, n_ctx - over :] = pad
            targets[-1, n_ctx - over :] = IGNORED
            if segments is None and not clm:
                segments = np.zeros_like(rows)
            if segments is not None:
                segments[-1, n_ctx - over :] = segments[-1, : n_ctx - over].max(initial=0) + 1
        batch = _to_torch(tokens, targets, segments)
        yield batch if sizes is None else replace(batch, target_bytes=torch.from_numpy(sizes))


def _shifted(rows: np.ndarray, marks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return rows of `n_ctx + 1` as inputs, next tokens to predict, and the story index of each input."""
    tokens, targets = rows[:, :-1].copy(), rows[:, 1:].copy()
    if marks is None:
        return tokens, targets, None
    targets[marks[:, 1:]] = IGNORED
    return tokens, targets, _numbered(marks[:, :-1])


def _to_torch(tokens: np.ndarray, targets: np.ndarray, segments: np.ndarray | None) -> Batch:
    return Batch(
        torch.from_numpy(tokens),
        torch.from_numpy(targets),
        None if segments is None else torch.from_numpy(segments),
    )


def _numbered(marks: np.ndarray | None) -> np.ndarray | None:
    """Return the index of the story within the row, from marks at story starts."""
    if marks is None:
        return None
    counted = np.cumsum(marks, axis=1, dtype=np.int64)
    return counted - counted[:, :1]


def _story_starts(offsets: np.ndarray, n_ctx: int) -> np.ndarray:
    """Return window starts: each at the last story start that the previous window reaches, or at its end."""
    places, end = offsets.tolist(), int(offsets[-1])
    starts, place = [], 0
    while place < end:
        starts.append(place)
        if place + n_ctx >= end:
            break
        reached = places[bisect_right(places, place + n_ctx) - 1]
        place = reached if reached > place else place + n_ctx
    return np.asarray(starts, dtype=np.int64)


def _mask_id(split: PackedSplit, objective: str, mask_id: int | None) -> int | None:
    mask_id = split.mask_id if mask_id is None else mask_id
    if objective == "mlm" and mask_id is None:
        raise DataError("the tokenizer has no mask token, so objective 'mlm' cannot be trained; use 'clm'.")
    return mask_id


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}. {nearest(value, choices)}")

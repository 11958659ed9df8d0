"""Head scores of a model, streamed: each layer's pattern is reduced where it arises and never kept.

Intervals are Poisson bootstraps over sequences (Hanley & MacGibbon 2006), which need one pass: in each of
`REPLICATES` replicates a sequence counts as often as a Poisson(1) draw of its own says.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Sequence, Sized
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.scoring import ready
from workbench.interp.heads.circuits import copying_scores
from workbench.interp.heads.copies import CopyLoss, copy_loss
from workbench.interp.heads.patterns import REPEATED, TEXT, Rows, choose, impossible, length_of_repeats
from workbench.interp.heads.result import HeadScores, Measured
from workbench.interp.heads.sequences import batches, given_rows, member, repeated_rows
from workbench.interp.patching.sites import find_site, layers_with
from workbench.interp.untrained import untrained_copy
from workbench.seeds import generator

REPLICATES = 500


@torch.no_grad()
def head_scores(
    model: Any,
    sequences: Int[Tensor, "sequence pos"] | Iterable[Any],
    *,
    mask: Bool[Tensor, "sequence pos"] | None = None,
    scores: Sequence[str] | None = None,
    punctuation: Collection[int] = (),
    names: Collection[int] = (),
    unigram: Float[np.ndarray, " d_vocab"] | Int[np.ndarray, " d_vocab"] | None = None,
    bos: int | None = None,
    repeats: int = 32,
    repeat_length: int | None = None,
    farthest: int = 8,
    untrained: bool = True,
    seed: int = 0,
    batch: int | None = None,
    tick: Callable[[float], None] = lambda share: None,
) -> HeadScores:
    """Score every head on sequences and on repeated random tokens.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        sequences: token ids [sequence pos], or any number of ids or texts one after the other (read once);
            BOS included, as the model was trained. Memory does not grow with their number.
        mask: True at tokens, False at the padding on the right; only beside [sequence pos].
        scores: names of `SCORES`; all that this model and these arguments allow if not set.
        punctuation: ids of punctuation marks.
        names: ids of the protagonist's or other names.
        unigram: how often each token occurs; the `_unigram` scores draw from it.
        bos: id of BOS; the tokenizer's if not set, and none if there is no tokenizer.
        repeats: how many random `[BOS] r r`.
        repeat_length: tokens in r; if not set 32, or less where the context or a window is short.
        farthest: the offset profile reaches so far.
        untrained: compare with an untrained copy; twice the work.
        seed: of the random tokens and the bootstrap.
        batch: sequences at a time; by size if not set.
        tick: told now and then which share of the work is done, if the number of sequences is known.

    Raises:
        InputError: no attention, no sequences, ids or lengths that the model cannot take, unknown scores,
            or scores that make no sense here.
    """
    config = model.config
    layers = layers_with(config, find_site("pattern"))
    length = length_of_repeats(config, repeat_length)
    omitted = impossible(config, punctuation, names, unigram, length, repeats)
    chosen = choose(scores, omitted)
    first = 0 if config.attention == "causal" else -farthest
    offsets = np.array([d for d in range(first, farthest + 1) if abs(d) < config.n_ctx])
    with ready(model) as network:
        networks = [network, *([untrained_copy(network)] if untrained else [])]
        sets = {
            name: member(config.d_vocab, ids, name, network.device)
            for name, ids in (("punctuation", punctuation), ("name", names))
        }
        given = len(sequences) if isinstance(sequences, Sized) else None
        kinds = [kind for kind in ("", "_unigram") if any(name + kind in chosen for name in REPEATED)]
        total = None if given is None else given + repeats * len(kinds)
        done = 0

        def run(stream: Iterable[Tensor], targets: list[Any], what: str, repeat: int = 0) -> list[Any]:
            nonlocal done
            tallies = [_Tally(net, layers, len(targets), config.n_heads) for net in networks]
            for rows in batches(stream, batch, len(targets) + config.n_heads, sets, repeat):
                wanted = _Wanted(rows, targets)
                weights = _weights(seed, what, tallies[0].sequences, len(rows.tokens))
                for tally in tallies:
                    tally.add(wanted, weights)
                done += len(rows.tokens)
                if total:
                    tick(min(1.0, done / total))
            return tallies

        text = [name for name in TEXT if name in chosen]
        at = [(lambda rows, d=int(d): rows.distance == d) for d in offsets]
        tallies = run(given_rows(network, sequences, mask), [*(TEXT[n] for n in text), *at], "text")
        if not tallies[0].sequences:
            raise InputError("there are no sequences to score heads on.")
        measured = _measured(tallies)
        parts, found = [_rows_of(measured, slice(len(text)))], list(text)
        copies: dict[str, CopyLoss] = {}
        for kind in kinds:
            wanted = [name for name in REPEATED if name + kind in chosen]
            drawn = list(repeated_rows(network, length, repeats, unigram if kind else None, bos, seed, kind))
            parts.append(_measured(run(drawn, [REPEATED[n] for n in wanted], f"repeated{kind}", length)))
            if config.attention == "causal":
                copies["unigram" if kind else "uniform"] = copy_loss(networks, drawn, length, seed)
            found += [name + kind for name in wanted]
        copying = [copying_scores(net) for net in networks]
    return HeadScores(
        names=tuple(found),
        layers=np.array(layers),
        scores=_joined(parts),
        offsets=offsets,
        profile=_rows_of(measured, slice(len(text), None)),
        copying=copying[0],
        copying_untrained=copying[1] if untrained else np.full_like(copying[0], np.nan),
        exchangeable=config.positions != "alibi",
        omitted=omitted,
        copies=copies,
        sequences=tallies[0].sequences,
        tokens=tallies[0].tokens,
        seed=seed,
    )


class _Wanted:
    """The patterns of a batch under each mask that its layers have: one for each window."""

    def __init__(self, rows: Rows, targets: Sequence[Callable[[Rows], Tensor]]) -> None:
        self.rows = rows
        count, length = rows.tokens.shape
        self.targets = torch.stack([target(rows).expand(count, length, length) for target in targets], 1)
        self.found: dict[int, tuple[Tensor, np.ndarray, np.ndarray]] = {}

    def under(
        self, window: int, scores: Float[Tensor, "batch head query key"]
    ) -> tuple[Float[Tensor, "batch score cell"], np.ndarray, np.ndarray]:
        """Keys that count, for queries that are no padding; for each sequence and pattern the queries
        for which it is possible, and the sum over them of what uniform attention gives."""
        if window not in self.found:
            allowed = (scores[:, 0] > -math.inf) & self.rows.real[:, :, None]
            wanted = (self.targets & allowed[:, None]).to(scores.dtype)
            hits = wanted.sum(-1).double()
            uniform = (hits / allowed.sum(-1).clamp(min=1)[:, None]).sum(-1)
            counts = (hits > 0).sum(-1).double()
            self.found[window] = wanted.flatten(2), counts.cpu().numpy(), uniform.cpu().numpy()
        return self.found[window]


class _Tally:
    """Attention to each pattern, summed over sequences: once as they are, and once for each replicate."""

    def __init__(self, model: Any, layers: list[int], scores: int, heads: int) -> None:
        self.model, self.layers = model, layers
        self.sequences = self.tokens = 0
        self.attended = np.zeros((1 + REPLICATES, len(layers), scores, heads))
        self.possible = np.zeros((1 + REPLICATES, len(layers), scores))
        self.uniform = np.zeros((len(layers), scores))
        self.having = np.zeros((len(layers), scores), dtype=np.int64)
        """Sequences in which some query could have attended so."""

    def add(self, wanted: _Wanted, weights: Float[np.ndarray, "replicate batch"]) -> None:
        """Run a batch and add what its heads look at."""
        rows = wanted.rows
        now: list[Any] = []

        def reduce_at(index: int, window: int) -> list[Callable[[Tensor, Any], None]]:
            def find(scores: Tensor, hook: Any) -> None:
                now[:] = wanted.under(window, scores)

            def reduce(pattern: Tensor, hook: Any) -> None:
                matrix, counts, uniform = now
                sums = (matrix @ pattern.flatten(2).mT).double().cpu().numpy()
                self.attended[:, index] += np.tensordot(weights, sums, 1)
                self.possible[:, index] += weights @ counts
                self.uniform[index] += uniform.sum(0)
                self.having[index] += (counts > 0).sum(0)

            return [find, reduce]

        hooks = []
        for index, layer in enumerate(self.layers):
            names = [f"blocks.{layer}.attn.hook_{point}" for point in ("attn_scores", "pattern")]
            hooks += zip(names, reduce_at(index, self.model.blocks[layer].attn.window), strict=True)
        with self.model.hooks(fwd_hooks=hooks):
            self.model.stream(rows.tokens, attention_mask=None if bool(rows.real.all()) else rows.real)
        self.sequences += len(rows.tokens)
        self.tokens += int(rows.real.sum())

    def estimate(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean attention and the ends of its interval, [score layer head] each."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = self.attended / self.possible[..., None]
        value = ratios[0]
        resampled = np.where(np.isnan(ratios[1:]), value, ratios[1:])  # a replicate without the pattern
        low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
        few = np.where(np.isnan(value), False, (self.having < 2)[..., None])
        low = np.where(few, 0.0, np.fmin(low, value))
        high = np.where(few, 1.0, np.fmax(high, value))
        return tuple(part.transpose(1, 0, 2) for part in (value, low, high))  # type: ignore[return-value]


def _measured(tallies: list[_Tally]) -> Measured:
    """The model's tally, and an untrained copy's if there is one."""
    own = tallies[0]
    value, low, high = own.estimate()
    copy, _, copy_high = tallies[1].estimate() if len(tallies) > 1 else (np.full_like(value, np.nan),) * 3
    with np.errstate(invalid="ignore"):
        uniform = own.uniform / own.possible[0]
    queries = own.possible[0].round().astype(np.int64)
    return Measured(value, low, high, uniform.T, copy, copy_high, queries.T)


def _rows_of(measured: Measured, rows: slice) -> Measured:
    return Measured(**{name: part[rows] for name, part in vars(measured).items()})


def _joined(parts: list[Measured]) -> Measured:
    return Measured(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts])
           for field in dataclasses.fields(Measured)}
    )  # fmt: skip


def _weights(seed: int, what: str, start: int, count: int) -> Float[np.ndarray, "replicate batch"]:
    """How often each sequence counts: once, then by its own draws, whatever batch it is in."""
    drawn = [
        generator(seed, f"bootstrap {what}", start + index).poisson(1.0, REPLICATES) for index in range(count)
    ]
    return np.concatenate([np.ones((1, count)), np.stack(drawn, 1)])

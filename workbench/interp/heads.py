"""Attention pattern scores of heads (previous token, duplicate, induction, ...), compared with uniform
attention and an untrained copy. Related: `head_kinds` (distance or content), `head_circuits` (weights)."""

import dataclasses
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.console import OnProgress, make_table, progress_bar, stack
from workbench.data.tokenizer import token_text, vocabulary_size
from workbench.errors import InputError, nearest
from workbench.evals.scoring import ready
from workbench.interp.components import Component, find_site, layers_with, split_names
from workbench.interp.head_circuits import Composition, copying_scores
from workbench.interp.texts import IGNORED, TextBatch, row_nats, story_rows, untrained_copy
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model
from workbench.stats import Estimate, bootstrap_mean, generator

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from transformers import PreTrainedTokenizerFast

    from workbench.model.config import ModelConfig
    from workbench.model.transformer import HookedTransformer

LEAST_EXCESS = 0.1
"""Minimum `HeadScores.excess` for a head to be classed by a pattern."""
OTHER = "other"
REPLICATES = 500
"""Bootstrap replicates."""
CELLS = 2**24
"""Maximum number of entries of a batch's patterns and targets."""
Unigram = Float[np.ndarray, " d_vocab"] | Int[np.ndarray, " d_vocab"]


SHORT = {
    "same_word": "same", "punctuation": "punct", "duplicate": "dup", "duplicate_unigram": "dup-u",
    "induction": "ind", "induction_unigram": "ind-u", "previous": "prev",
}  # fmt: skip
"""Column headings that leave room for all scores."""


def _score(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"


@dataclass(frozen=True, eq=False, repr=False)
class PatternScores:
    """Mean attention to each of several patterns; NaN where a pattern is possible for no query."""

    value: Float[np.ndarray, "score layer head"]
    low: Float[np.ndarray, "score layer head"]
    """Limit of the 95 % bootstrap interval over sequences; 0 to 1 if fewer than two have the pattern."""
    high: Float[np.ndarray, "score layer head"]
    uniform: Float[np.ndarray, "score layer"]
    """The exact score of equal attention to all keys that the mask allows."""
    untrained: Float[np.ndarray, "score layer head"]
    """The score of an untrained copy: same configuration, another seed. NaN if there was none."""
    untrained_high: Float[np.ndarray, "score layer head"]
    """Upper limit of the copy's interval."""
    queries: Int[np.ndarray, "score layer"]
    """Number of queries for which the pattern is possible."""

    def __repr__(self) -> str:
        scores, layers, heads = self.value.shape
        return f"PatternScores({scores} scores, {layers} layers, {heads} heads)"

    def __getitem__(self, rows: slice) -> "PatternScores":
        return PatternScores(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True, eq=False, repr=False)
class CopyLoss(Result):
    """Mean loss on the same random tokens in the first and in the second copy, nats a token.

    Olsson et al. 2022 (arXiv:2209.11895) see induction heads form where this falls. On `[BOS] r r` the tokens
    of r after its first are predicted twice: from unrelated tokens, and with r in the context.
    """

    first: Float[np.ndarray, " sequence"]
    second: Float[np.ndarray, " sequence"]
    untrained: Estimate
    """`change` of an untrained copy; NaN if there was none."""
    seed: int = 0

    @property
    def change(self) -> Estimate:
        """Second minus first, with its 95 % interval over sequences; below 0 if the model copies."""
        return bootstrap_mean(self.second - self.first, seed=self.seed)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row a sequence: sequence, first, second."""
        import pandas as pd

        return pd.DataFrame(
            {"sequence": np.arange(len(self.first)), "first": self.first, "second": self.second}
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the means and intervals as plain values."""
        return {
            "first": float(self.first.mean()),
            "second": float(self.second.mean()),
            **self.change._asdict(),
            **{f"untrained_{name}": value for name, value in self.untrained._asdict().items()},
            "sequences": len(self.first),
        }


@dataclass(frozen=True, eq=False, repr=False)
class HeadScores(Result):
    """Scores of all heads of a model; `layers` are the blocks that have attention."""

    axes = ("score", "layer", "head")

    names: tuple[str, ...]
    """Of the scores: patterns such as `previous`; `_unigram` is the same on tokens drawn from the corpus."""
    layers: Int[np.ndarray, " layer"]
    scores: PatternScores
    offsets: Int[np.ndarray, " offset"]
    """Distances query - key of `profile`; below 0 for later keys."""
    profile: PatternScores
    """Mean attention at each distance, along its first axis."""
    copying: Float[np.ndarray, "layer head"]
    """See `workbench.interp.head_circuits.copying_scores`."""
    copying_untrained: Float[np.ndarray, "layer head"]
    exchangeable: bool
    """True if the heads of an untrained layer differ by chance only; ALiBi's differ by their slopes."""
    omitted: dict[str, str]
    """Scores that were not measured, and why."""
    copies: dict[str, CopyLoss]
    """Loss on the second minus the first copy in `[BOS] r r`, r drawn `uniform` or `unigram`; empty for
    bidirectional models and without repeated tokens."""
    sequences: int
    tokens: int
    seed: int

    def of(self, name: str) -> Float[np.ndarray, "layer head"]:
        """Return one score of all heads; `copying` too.

        Raises:
            InputError: unknown score, with the nearest one, or one that was omitted, with the reason.
        """
        return self.copying if name == "copying" else self.scores.value[self.index(name)]

    def index(self, name: str) -> int:
        """Return the row of `scores` of a name.

        Raises:
            InputError: unknown score, with the nearest one, or one that was omitted, with the reason.
        """
        if name in self.omitted:
            raise InputError(f"the score {name} was not measured: {self.omitted[name]}.")
        if name not in self.names:
            raise InputError(f"no score is called {name!r}. {nearest(name, self.names)}")
        return self.names.index(name)

    @property
    def baseline(self) -> Float[np.ndarray, "score layer head"]:
        """The larger of uniform attention and the upper limit of the untrained copy's interval.

        Head 3 of the copy has nothing in common with head 3 of the model, so where heads are `exchangeable`
        the largest of a layer is the baseline of all its heads.
        """
        copy = self.scores.untrained_high
        if self.exchangeable:
            copy = np.broadcast_to(copy.max(-1, keepdims=True), copy.shape)
        return np.fmax(self.scores.uniform[:, :, None], copy)

    @property
    def excess(self) -> Float[np.ndarray, "score layer head"]:
        """(score - baseline) / (1 - baseline): the fraction of the possible excess over the baseline.

        0 where the score's own interval reaches down to the baseline, or the baseline is 1.
        """
        base, scores = self.baseline, self.scores
        above = (scores.low > base) & (base < 1)
        return np.where(above, (scores.value - base) / np.where(above, 1 - base, 1.0), 0.0)

    @cached_property
    def classes(self) -> np.ndarray:
        """The pattern with the greatest `excess` of each head, [layer head]; `other` if it is under 0.1.

        A `_unigram` score counts for its pattern.
        """
        labels = np.array([*(name.removesuffix("_unigram") for name in self.names), OTHER], dtype=object)
        if not self.names:
            return np.full(self.copying.shape, OTHER, dtype=object)
        best = self.excess.argmax(0)
        return labels[np.where(self.excess.max(0) >= LEAST_EXCESS, best, len(self.names))]

    def to_frame(self) -> "pd.DataFrame":
        """Return one row a head and score: layer, head, score, value, low, high, uniform, untrained,
        untrained_high, queries, excess, class. Copying is the last score; it has no interval."""
        import pandas as pd

        frame = self._frame(self.scores, "score", np.array(self.names, dtype=object)).assign(
            excess=self.excess.ravel(), **{"class": np.tile(self.classes.ravel(), len(self.names))}
        )
        copying = {
            **self._heads(),
            "score": "copying",
            "value": self.copying.ravel(),
            "untrained": self.copying_untrained.ravel(),
            "class": self.classes.ravel(),
        }
        return pd.concat([frame, pd.DataFrame(copying)], ignore_index=True)

    def profile_frame(self) -> "pd.DataFrame":
        """Return one row a head and distance: layer, head, offset, value, low, high, uniform, untrained,
        untrained_high, queries."""
        return self._frame(self.profile, "offset", self.offsets.astype(np.int64))

    def _heads(self) -> dict[str, np.ndarray]:
        heads = self.copying.shape[1]
        return {
            "layer": self.layers.repeat(heads), "head": np.tile(np.arange(heads), len(self.layers)),
        }  # fmt: skip

    def _frame(self, scores: PatternScores, name: str, keys: np.ndarray) -> "pd.DataFrame":
        import pandas as pd

        count, layers, heads = scores.value.shape
        columns = {key: np.tile(values, count) for key, values in self._heads().items()}
        columns[name] = keys.repeat(layers * heads)
        for field in ("value", "low", "high", "uniform", "untrained", "untrained_high", "queries"):
            values = getattr(scores, field)
            columns[field] = values.ravel() if values.ndim == 3 else values.repeat(heads)
        return pd.DataFrame(columns)

    def summary(self, rows: int | None = None) -> "RenderableType":
        """Return a row for each head, with scores above the baseline in bold, and the baselines.

        Args:
            rows: heads to show; all if not set.
        """
        from rich.text import Text

        table: list[list[object]] = []
        for at, layer in enumerate(self.layers):
            for head, kind in enumerate(self.classes[at]):
                values = zip(self.scores.value[:, at, head], self.excess[:, at, head], strict=True)
                cells = [Text(_score(value), style="bold" if above > 0 else "dim") for value, above in values]
                name = Text(kind, style="dim" if kind == OTHER else "green")
                table.append([f"L{layer}H{head}", name, *cells, f"{self.copying[at, head]:+.2f}"])
        table = [*table[:rows], []]
        scores = self.scores
        for label, values, copying in (
            ("uniform", scores.uniform, ""),
            ("untrained, mean", scores.untrained.mean(-1), f"{self.copying_untrained.mean():+.2f}"),
            ("untrained, max", scores.untrained_high.max(-1), f"{self.copying_untrained.max():+.2f}"),
        ):
            table.append([label, "", *map(_score, values.max(-1)), copying])
        notes = [
            f"second - first copy, {kind} tokens: {copy.change.mean:+.2f} nats per token "
            f"[{copy.change.low:+.2f}, {copy.change.high:+.2f}]; untrained {copy.untrained.mean:+.2f}"
            for kind, copy in self.copies.items()
        ]
        notes += [f"{name} not measured: {reason}." for name, reason in self.omitted.items()]
        header = ["head", "class", *(SHORT.get(name, name) for name in self.names), "copying"]
        return stack(
            f"{self.sequences:,} sequences, {self.tokens:,} tokens\n", make_table(header, table, 2), *notes
        )

    def plot(self, score: str | None = None, ax: "Axes | None" = None) -> "Figure":
        """Draw one score as layer x head, or all of them on one page, and return the figure.

        Args:
            score: one of `names`, or `copying`; all if not set.
            ax: axes to draw one score into; a new figure if not set.

        Raises:
            InputError: no such score.
        """
        from workbench.plots.heads import plot_head_score, plot_heads

        frame = self.to_frame()
        if score is not None:
            if score != "copying":
                self.index(score)
            return plot_head_score(frame, score, ax=ax)
        title = (
            f"attention heads on {self.sequences:,} sequences, {self.tokens:,} tokens "
            "(framed: the heads that are named after the score)"
        )
        return plot_heads(frame, self.profile_frame(), title=title)


@torch.no_grad()
def head_scores(
    model: ModelLike,
    sequences: Int[Tensor, "sequence pos"] | Iterable[Any],
    *,
    mask: Bool[Tensor, "sequence pos"] | None = None,
    scores: str | Sequence[str] | None = None,
    punctuation: Collection[int] = (),
    names: Collection[int] = (),
    unigram: Unigram | None = None,
    bos: int | None = None,
    repeats: int = 32,
    repeat_length: int | None = None,
    farthest: int = 8,
    untrained: bool = True,
    seed: int = 0,
    batch: int | None = None,
    progress: bool | OnProgress | None = None,
) -> HeadScores:
    """Score every head on sequences and on repeated random tokens.

    A score is the mean attention to the keys that a pattern names, over the queries for which the pattern is
    possible. The names of the common ones are those of Elhage et al. 2021
    (transformer-circuits.pub/2021/framework) and Olsson et al. 2022 (arXiv:2209.11895). Each layer's
    attention is reduced in a hook and never kept. Intervals are Poisson bootstraps over sequences (Hanley &
    MacGibbon 2006), which need one pass.

    Args:
        model: half-precision weights are computed in float32.
        sequences: token ids [sequence pos], or any iterable of ids or texts (read once); BOS included, as
            the model was trained. Memory does not grow with their number.
        mask: True at tokens, False at the padding on the right; only with [sequence pos].
        scores: names of `SCORES`; all that this model and these arguments allow if not set.
        punctuation: ids of punctuation marks.
        names: ids of the protagonist's or other names.
        unigram: count of each token; the `_unigram` scores draw from it.
        bos: id of BOS; the tokenizer's if not set, and none if there is no tokenizer.
        repeats: number of random `[BOS] r r`.
        repeat_length: tokens in r; if not set 32, or less where the context or a window is short.
        farthest: largest distance of the offset profile.
        untrained: compare with an untrained copy; doubles the work.
        seed: of the random tokens and the bootstrap.
        batch: sequences at a time; chosen by size if not set.
        progress: see `workbench.console.progress_bar`.

    Raises:
        InputError: no attention, no sequences, ids or lengths that the model cannot take, unknown scores,
            or scores that cannot be measured here.
    """
    model = as_model(model)
    config = model.config
    layers = layers_with(config, find_site("pattern"))
    length = _repeat_length(config, repeat_length)
    omitted = _omitted(config, punctuation, names, unigram, length, repeats)
    chosen = _chosen([scores] if isinstance(scores, str) else scores, omitted)
    first = 0 if config.attention == "causal" else -farthest
    offsets = np.array([d for d in range(first, farthest + 1) if abs(d) < config.n_ctx])
    draws = [suffix for suffix in ("", "_unigram") if any(name + suffix in chosen for name in REPEATED)]
    total = len(sequences) + repeats * len(draws) if isinstance(sequences, Sized) else None
    done = 0
    with ready(model) as network, progress_bar(progress, "Head scores") as on_progress:
        networks = [network, untrained_copy(network)] if untrained else [network]
        sets = {
            name: _token_set(config.d_vocab, ids, name, network.device)
            for name, ids in (("punctuation", punctuation), ("name", names))
        }

        def measure(
            stream: Iterable[Tensor], patterns: Sequence[Pattern], name: str, repeat: int = 0
        ) -> tuple[PatternScores, _Tally]:
            nonlocal done
            tallies = [_Tally(net, layers, len(patterns)) for net in networks]
            for rows in _batches(stream, batch, len(patterns) + config.n_heads, sets, repeat):
                targets = _Targets(rows, patterns)
                weights = _poisson_weights(seed, name, tallies[0].sequences, len(rows.tokens))
                for tally in tallies:
                    tally.add(targets, weights)
                done += len(rows.tokens)
                if total is None:
                    on_progress(0.0, f"{done:,} sequences")
                else:
                    on_progress(min(1.0, done / total), f"{done:,} of {total:,} sequences")
            return _pattern_scores(tallies), tallies[0]

        text = [name for name in TEXT if name in chosen]
        distances = [(lambda rows, d=int(d): rows.distance == d) for d in offsets]
        given = _given_rows(network, sequences, mask)
        measured, tally = measure(given, [*(TEXT[name] for name in text), *distances], "text")
        if not tally.sequences:
            raise InputError("there are no sequences to score heads on.")
        parts, found = [measured[: len(text)]], list(text)
        copies: dict[str, CopyLoss] = {}
        for suffix in draws:
            repeated = [name for name in REPEATED if name + suffix in chosen]
            counts = unigram if suffix else None
            rows = list(_repeated_rows(network, length, repeats, counts, bos, seed, suffix))
            patterns = [REPEATED[name] for name in repeated]
            parts.append(measure(rows, patterns, f"repeated{suffix}", length)[0])
            if config.attention == "causal":
                copies["unigram" if suffix else "uniform"] = copy_loss(networks, rows, length, seed)
            found += [name + suffix for name in repeated]
        copying = [copying_scores(net) for net in networks]
    fields = [field.name for field in dataclasses.fields(PatternScores)]
    return HeadScores(
        names=tuple(found),
        layers=np.array(layers),
        scores=PatternScores(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields)),
        offsets=offsets,
        profile=measured[len(text) :],
        copying=copying[0],
        copying_untrained=copying[1] if untrained else np.full_like(copying[0], np.nan),
        exchangeable=config.positions != "alibi",
        omitted=omitted,
        copies=copies,
        sequences=tally.sequences,
        tokens=tally.tokens,
        seed=seed,
    )


@torch.no_grad()
def copy_loss(
    networks: Sequence["HookedTransformer"], rows: Sequence[Int[Tensor, " pos"]], length: int, seed: int = 0
) -> CopyLoss:
    """Measure the loss of a model, and of its untrained copy if there is one, on both copies in `[BOS] r r`.

    Args:
        networks: the model, and optionally its untrained copy.
        rows: sequences that end in r r.
        length: tokens in r.
        seed: of the intervals.
    """
    tokens = torch.stack(list(rows))
    place = torch.arange(tokens.shape[1], device=tokens.device)
    losses = []
    for network in networks:
        for begins in (tokens.shape[1] - 2 * length, tokens.shape[1] - length):
            # Targets are the following tokens within r: the first token of a copy is unpredictable.
            scored = (place >= begins) & (place < begins + length - 1)
            targets = torch.where(scored, tokens.roll(-1, 1), IGNORED)
            parts = [
                row_nats(network, TextBatch(*part))
                for part in zip(tokens.split(32), targets.split(32), strict=True)
            ]
            losses.append(torch.cat(parts).cpu().numpy() / (length - 1))
    first, second, *copy = losses
    untrained = bootstrap_mean(copy[1] - copy[0], seed=seed) if copy else Estimate(*[math.nan] * 3)
    return CopyLoss(first, second, untrained, seed)


def story_head_scores(
    model: ModelLike, stories: Sequence[str], *, names: str | Sequence[str] | None = None, **options: Any
) -> HeadScores:
    """Score every head on stories, with the punctuation, names and token counts found in them.

    Args:
        model: with a tokenizer.
        stories: texts; BOS is prepended.
        names: of people; capitalised words of the stories if not set (see `find_names`).
        options: of `head_scores`.

    Raises:
        InputError: as `head_scores`.
    """
    model = as_model(model)
    tokenizer, config = model.need_tokenizer(), model.config
    rows = story_rows(tokenizer, stories, config.n_ctx, end=False)
    return head_scores(
        model,
        rows,
        punctuation=punctuation_ids(tokenizer),
        names=name_ids(tokenizer, find_names(stories) if names is None else names),
        unigram=unigram_counts(rows, config.d_vocab),
        **options,
    )


# Patterns: the keys that count for each query.


@dataclass(frozen=True)
class Rows:
    """A batch of sequences, padded on the right."""

    tokens: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"]
    repeat: int
    """Length of `r` in `[BOS] r r`; 0 in other text."""
    sets: dict[str, Bool[Tensor, " d_vocab"]]

    @property
    def place(self) -> Int[Tensor, " pos"]:
        """The positions."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device)

    @property
    def distance(self) -> Int[Tensor, "1 query key"]:
        """Position of the query minus that of the key."""
        return (self.place[:, None] - self.place)[None]

    def keys_in(self, name: str) -> Bool[Tensor, "batch query key"]:
        """Return True at keys whose token is in a set."""
        return self.sets[name][self.tokens][:, None, :] & (self.distance != 0)

    def from_second(self, distance: int) -> Bool[Tensor, "1 query key"]:
        """Return True at keys at a distance from queries in the second `r`, which ends the row."""
        start = self.tokens.shape[1] - self.repeat
        return (self.distance == distance) & (self.place >= start)[None, :, None]


Pattern = Callable[[Rows], Bool[Tensor, "#batch #query key"]]

TEXT: dict[str, Pattern] = {
    "previous": lambda rows: rows.distance == 1,
    "next": lambda rows: rows.distance == -1,
    "self": lambda rows: rows.distance == 0,
    "sink": lambda rows: (rows.distance != 0) & (rows.place == 0),
    "same_word": lambda rows: (rows.tokens[:, :, None] == rows.tokens[:, None, :]) & (rows.distance != 0),
    "punctuation": lambda rows: rows.keys_in("punctuation"),
    "name": lambda rows: rows.keys_in("name"),
}
"""Patterns in the given sequences. A token does not match itself, except in `self`; `sink` is the first
position, that of BOS."""

REPEATED: dict[str, Pattern] = {
    "duplicate": lambda rows: rows.from_second(rows.repeat),
    "induction": lambda rows: rows.from_second(rows.repeat - 1),
}
"""Patterns on `[BOS] r r` with random r, for queries in the second r: the same token in the first, and the
token after it."""

SCORES = (*TEXT, *REPEATED, *(f"{name}_unigram" for name in REPEATED))


def _repeat_length(config: "ModelConfig", requested: int | None) -> int:
    """Return the length of r: `[BOS] r r` must fit, and windows must reach from one copy to the other."""
    room = (config.n_ctx - 1) // 2
    if requested is not None:
        if not 2 <= requested <= room:
            raise InputError(f"repeat_length = {requested} must lie between 2 and {room}, half the context.")
        return requested
    return min(32, room, *(window - 1 for window in config.windows if window > 2))


def _omitted(
    config: "ModelConfig",
    punctuation: Collection[int],
    names: Collection[int],
    unigram: Unigram | None,
    length: int,
    repeats: int,
) -> dict[str, str]:
    """Return the scores that cannot be measured, and why."""
    omitted = {}
    if config.attention == "causal":
        omitted["next"] = "a causal model cannot see the next token"
    else:
        reason = "it predicts the next token from an earlier copy, and a bidirectional model sees that token"
        omitted |= {"induction": reason, "induction_unigram": reason}
    for name, ids in (("punctuation", punctuation), ("name", names)):
        if not len(ids):
            omitted[name] = "no token ids were given for it"
    for name in REPEATED:
        if length < 2 or repeats < 1:
            reason = "no random sequences were requested" if repeats < 1 else "the context is too short"
            omitted |= {name: reason, f"{name}_unigram": reason}
        if unigram is None:
            omitted.setdefault(f"{name}_unigram", "no unigram distribution was given")
    return omitted


def _chosen(scores: Sequence[str] | None, omitted: dict[str, str]) -> set[str]:
    if scores is None:
        return set(SCORES) - omitted.keys()
    for name in scores:
        if name not in SCORES:
            raise InputError(f"no score is called {name!r}. {nearest(name, SCORES)}")
        if name in omitted:
            raise InputError(f"the score {name} cannot be taken: {omitted[name]}.")
    return set(scores)


# The sequences: those given, and repeated random tokens.


def _given_rows(
    model: "HookedTransformer", sequences: Any, mask: Tensor | None
) -> Iterator[Int[Tensor, " pos"]]:
    """Yield the ids of each sequence, without padding."""
    if mask is not None and not (isinstance(sequences, Tensor) and sequences.shape == mask.shape):
        raise InputError("a mask belongs to token ids of the same shape, [sequence pos].")
    d_vocab, n_ctx = model.config.d_vocab, model.config.n_ctx
    for index, sequence in enumerate(sequences):
        if isinstance(sequence, str):
            sequence = story_rows(model.need_tokenizer(), [sequence], end=False)[0]
        row = torch.as_tensor(sequence)
        if mask is not None:
            real = mask[index].bool()
            if bool((real.int().diff() > 0).any()):
                raise InputError(f"sequence {index} has padding before a token; pad on the right.")
            row = row[real]
        if row.ndim != 1 or not 1 <= len(row) <= n_ctx or row.is_floating_point():
            raise InputError(
                f"sequence {index} has the shape {list(row.shape)}; give 1 to {n_ctx} token ids, the context."
            )
        if int(row.min()) < 0 or int(row.max()) >= d_vocab:
            raise InputError(
                f"the ids of sequence {index} run from {int(row.min())} to {int(row.max())}; "
                f"the vocabulary has {d_vocab}."
            )
        yield row.to(model.device)


def _repeated_rows(
    model: "HookedTransformer",
    length: int,
    count: int,
    unigram: Unigram | None,
    bos: int | None,
    seed: int,
    suffix: str,
) -> Iterator[Int[Tensor, " pos"]]:
    """Yield `[BOS] r r`, r drawn from the tokens that are not special: uniformly, or by their counts."""
    tokenizer = model.tokenizer
    size = (
        model.config.d_vocab if tokenizer is None else min(model.config.d_vocab, vocabulary_size(tokenizer))
    )
    weight = np.ones(model.config.d_vocab) if unigram is None else np.array(unigram, dtype=np.float64)
    if weight.shape != (model.config.d_vocab,) or not (weight >= 0).all():
        raise InputError(f"unigram must hold {model.config.d_vocab} counts of 0 or more, one a token.")
    weight[size:] = 0
    if tokenizer is not None:
        weight[[token for token in tokenizer.all_special_ids if token < len(weight)]] = 0
        own: Any = tokenizer.bos_token_id
        bos = own if bos is None else bos
    start = [] if bos is None else [bos]
    weight[start] = 0
    if not weight.sum():
        raise InputError("unigram counts no token that is not special.")
    distinct = unigram is None and np.count_nonzero(weight) >= length
    for index in range(count):
        random = generator(seed, f"repeated tokens{suffix}", index)
        r = random.choice(len(weight), length, replace=not distinct, p=weight / weight.sum()).tolist()
        yield torch.tensor(start + r + r, device=model.device)


def _token_set(
    d_vocab: int, ids: Collection[int], name: str, device: torch.device
) -> Bool[Tensor, " d_vocab"]:
    if any(not 0 <= token < d_vocab for token in ids):
        raise InputError(f"the {name} ids run to {max(ids)}; the vocabulary has {d_vocab}.")
    members = torch.zeros(d_vocab, dtype=torch.bool, device=device)
    members[list(ids)] = True
    return members


def _batches(
    stream: Iterable[Tensor], batch: int | None, planes: int, sets: dict[str, Tensor], repeat: int
) -> Iterator[Rows]:
    """Yield rows padded to the longest of their batch, as many at a time as `CELLS` allows."""
    rows: list[Tensor] = []
    for row in stream:
        longest = max(len(one) for one in (*rows, row))
        full = len(rows) >= batch if batch else (len(rows) + 1) * planes * longest**2 > CELLS
        if rows and full:
            yield _padded(rows, repeat, sets)
            rows = []
        rows.append(row)
    if rows:
        yield _padded(rows, repeat, sets)


def _padded(rows: list[Tensor], repeat: int, sets: dict[str, Tensor]) -> Rows:
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).long()
    return Rows(tokens, torch.arange(tokens.shape[1], device=lengths.device) < lengths[:, None], repeat, sets)


# Tallies: attention to the patterns, summed over sequences in hooks.


class _Targets:
    """The patterns of a batch under each mask of the layers: one for each window."""

    def __init__(self, rows: Rows, patterns: Sequence[Pattern]) -> None:
        self.rows = rows
        count, length = rows.tokens.shape
        self.keys = torch.stack([pattern(rows).expand(count, length, length) for pattern in patterns], 1)
        self._by_window: dict[int, tuple[Tensor, np.ndarray, np.ndarray]] = {}

    def under(
        self, window: int, scores: Float[Tensor, "batch head query key"]
    ) -> tuple[Float[Tensor, "batch score cell"], np.ndarray, np.ndarray]:
        """Return the visible keys of each pattern for queries that are not padding; and for each sequence and
        pattern the number of queries for which it is possible and the sum of uniform attention over them."""
        if window not in self._by_window:
            allowed = (scores[:, 0] > -math.inf) & self.rows.real[:, :, None]
            keys = (self.keys & allowed[:, None]).to(scores.dtype)
            hits = keys.sum(-1).double()
            uniform = (hits / allowed.sum(-1).clamp(min=1)[:, None]).sum(-1)
            counts = (hits > 0).sum(-1).double()
            self._by_window[window] = keys.flatten(2), counts.cpu().numpy(), uniform.cpu().numpy()
        return self._by_window[window]


class _Tally:
    """Attention to each pattern, summed over sequences: once as they are, and once for each replicate."""

    def __init__(self, model: "HookedTransformer", layers: list[int], scores: int) -> None:
        self.model, self.layers = model, layers
        self.sequences = self.tokens = 0
        self.attended = np.zeros((1 + REPLICATES, len(layers), scores, model.config.n_heads))
        self.possible = np.zeros((1 + REPLICATES, len(layers), scores))
        self.uniform = np.zeros((len(layers), scores))
        self.having = np.zeros((len(layers), scores), dtype=np.int64)
        """Sequences with a query for which the pattern is possible."""

    def add(self, targets: _Targets, weights: Float[np.ndarray, "replicate batch"]) -> None:
        """Run a batch and add its attention."""
        rows = targets.rows
        current: list[Any] = []

        def hooks_at(index: int, window: int) -> list[Callable[[Tensor, Any], None]]:
            def find(scores: Tensor, hook: Any) -> None:
                current[:] = targets.under(window, scores)

            def reduce(pattern: Tensor, hook: Any) -> None:
                keys, counts, uniform = current
                sums = (keys @ pattern.flatten(2).mT).double().cpu().numpy()
                self.attended[:, index] += np.tensordot(weights, sums, 1)
                self.possible[:, index] += weights @ counts
                self.uniform[index] += uniform.sum(0)
                self.having[index] += (counts > 0).sum(0)

            return [find, reduce]

        hooks: list[Any] = []
        for index, layer in enumerate(self.layers):
            names = [f"blocks.{layer}.attn.hook_{point}" for point in ("attn_scores", "pattern")]
            attn: Any = self.model.blocks[layer].attn
            hooks += zip(names, hooks_at(index, attn.window), strict=True)
        with self.model.hooks(fwd_hooks=hooks):
            self.model.stream(rows.tokens, attention_mask=None if bool(rows.real.all()) else rows.real)
        self.sequences += len(rows.tokens)
        self.tokens += int(rows.real.sum())

    def estimate(self) -> list[Float[np.ndarray, "score layer head"]]:
        """Return the mean attention and the limits of its interval."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = self.attended / self.possible[..., None]
        value = ratios[0]
        resampled = np.where(np.isnan(ratios[1:]), value, ratios[1:])  # a replicate without the pattern
        low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
        few = np.where(np.isnan(value), False, (self.having < 2)[..., None])
        low = np.where(few, 0.0, np.fmin(low, value))
        high = np.where(few, 1.0, np.fmax(high, value))
        return [part.transpose(1, 0, 2) for part in (value, low, high)]


def _pattern_scores(tallies: list[_Tally]) -> PatternScores:
    """Return the scores of the model's tally, and of an untrained copy's if there is one."""
    own = tallies[0]
    value, low, high = own.estimate()
    copy, _, copy_high = tallies[1].estimate() if len(tallies) > 1 else [np.full_like(value, np.nan)] * 3
    with np.errstate(invalid="ignore"):
        uniform = own.uniform / own.possible[0]
    queries = own.possible[0].round().astype(np.int64)
    return PatternScores(value, low, high, uniform.T, copy, copy_high, queries.T)


def _poisson_weights(seed: int, name: str, start: int, count: int) -> Float[np.ndarray, "replicate batch"]:
    """Return the weight of each sequence: 1, then its own Poisson draws, independent of the batching."""
    drawn = [
        generator(seed, f"bootstrap {name}", start + index).poisson(1.0, REPLICATES) for index in range(count)
    ]
    return np.concatenate([np.ones((1, count)), np.stack(drawn, 1)])


# Token sets and counts for `head_scores`.


def punctuation_ids(tokenizer: "PreTrainedTokenizerFast") -> list[int]:
    """Return the tokens that consist of punctuation and white space only."""
    specials = set(tokenizer.all_special_ids)
    count = vocabulary_size(tokenizer)
    texts = [(index, token_text(tokenizer, index).strip()) for index in range(count)]
    return [
        index
        for index, text in texts
        if text and index not in specials and all(unicodedata.category(letter)[0] == "P" for letter in text)
    ]


def find_names(texts: Sequence[str]) -> list[str]:
    """Return capitalised words that occur inside sentences more than once and never in lower case, the most
    frequent first."""
    inside = Counter(word for text in texts for word in re.findall(r"(?<=[a-z,] )[A-Z][a-z]+\b", text))
    lower = {word for text in texts for word in re.findall(r"\b[a-z]+\b", text)}
    return [word for word, count in inside.most_common() if count > 1 and word.lower() not in lower]


def name_ids(tokenizer: "PreTrainedTokenizerFast", names: str | Sequence[str]) -> list[int]:
    """Return the tokens that are a whole name, with or without a space before it."""
    forms = [form for name in split_names(names) for form in (name, f" {name}")]
    encoded = [tokenizer.encode(form, add_special_tokens=False) for form in forms]
    return sorted({ids[0] for ids in encoded if len(ids) == 1})


def unigram_counts(rows: Sequence[Sequence[int]], d_vocab: int) -> Int[np.ndarray, " d_vocab"]:
    """Return the count of each token."""
    return np.bincount(np.concatenate([np.asarray(row, np.int64) for row in rows]), minlength=d_vocab)


def circuits_summary(scores: HeadScores, pairs: "pd.DataFrame") -> "RenderableType":
    """Return a row for each head: class, copying score and the top token pairs of its two circuits.

    Args:
        scores: of the same model.
        pairs: see `circuit_pairs`.
    """
    rows = []
    place: Any  # pandas types the keys as one hashable
    for place, part in pairs.groupby(["layer", "head"]):
        layer, head = place
        at = list(scores.layers).index(layer)
        tokens = [_pair_list(part[part.circuit == name], 3) for name in ("OV", "QK")]
        rows.append(
            [f"L{layer}H{head}", scores.classes[at, head], f"{scores.copying[at, head]:+.2f}", *tokens]
        )
    return stack(
        "circuits through the vocabulary (OV: attended → raised; QK: query → key)\n",
        make_table(["head", "class", "copying", "OV", "QK"], rows, 5),
    )


def head_card(
    scores: HeadScores, head: Component, pairs: "pd.DataFrame", mixed: Composition
) -> "RenderableType":
    """Return everything that is known of one head: scores, distances, circuits and composition.

    Args:
        scores: of the model's heads.
        head: one of them, see `find_head`.
        pairs: see `circuit_pairs`; those of other heads are ignored.
        mixed: see `composition`.
    """
    layer, unit = head.place
    at = list(scores.layers).index(layer)
    measured = scores.scores
    rows = [
        [
            name, f"{measured.value[index, at, unit]:.2f}",
            f"[{measured.low[index, at, unit]:.2f}, {measured.high[index, at, unit]:.2f}]",
            f"{measured.uniform[index, at]:.2f}", f"{scores.baseline[index, at, unit]:.2f}",
            f"{scores.excess[index, at, unit]:.2f}",
        ]
        for index, name in enumerate(scores.names)
    ]  # fmt: skip
    profile = zip(scores.offsets, scores.profile.value[:, at, unit], strict=True)
    own = pairs[(pairs["layer"] == layer) & (pairs["head"] == unit)]
    frame: Any = mixed.to_frame()
    reads = []
    for words, side, other in (("reads", "later", "earlier"), ("is read by", "earlier", "later")):
        this = (frame[f"{side}_layer"] == layer) & (frame[f"{side}_head"] == unit)
        partners = ", ".join(
            f"L{row[f'{other}_layer']}H{row[f'{other}_head']} ({row['kind']} {row['value']:.2f}, "
            f"random {row['random']:.2f})"
            for row in frame[this & (frame.value > frame.random_high)].head(4).to_dict("records")
        )
        reads.append(f"{words}  {partners or 'nothing above chance'}")
    copying = scores.copying[at, unit]
    return stack(
        f"L{layer}H{unit}: {scores.classes[at, unit]}\n",
        make_table(["score", "value", "95 % interval", "uniform", "baseline", "excess"], rows),
        "\nattention by distance  " + "  ".join(f"{distance}: {value:.2f}" for distance, value in profile),
        f"copying  {copying:+.2f}, untrained up to {scores.copying_untrained.max():+.2f}\n",
        f"OV (attended → raised)  {_pair_list(own[own.circuit == 'OV'], 10)}",
        f"QK (query → key)  {_pair_list(own[own.circuit == 'QK'], 10)}",
        *reads,
    )


def _pair_list(pairs: Any, count: int) -> str:
    tokens = pairs.head(count)[["row_token", "column_token"]].itertuples(index=False)
    return ", ".join(f"{row!r}→{column!r}" for row, column in tokens)

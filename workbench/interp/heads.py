"""How much later heads read what earlier heads write (Elhage et al. 2021, "composition").

For heads 1 < 2 and row vectors, with W_OV = W_V W_O and W_QK = W_Q W_K^T, the Frobenius norms

    Q: |W_OV1 W_QK2| / (|W_OV1| |W_QK2|)    K: the same with W_QK2^T    V: the same with W_OV2

Were the two turned against each other at random, the mean square would be 1 / d_model whatever their
spectra; random heads of the same widths give the baseline and how far chance goes.
"""

import dataclasses
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Sized
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import FactoredMatrix

from workbench.errors import InputError, nearest
from workbench.evals.scoring import opened, ready
from workbench.interp.components import find_site, layers_with
from workbench.interp.texts import IGNORED, TextBatch, row_nats, story_rows, untrained_copy
from workbench.stats import Estimate, bootstrap_mean, derive, generator

if TYPE_CHECKING:
    import pandas as pd


# Sets of tokens that attention scores ask about: punctuation, names; and how often each token occurs.


def punctuation_ids(tokenizer: Any) -> list[int]:
    """Tokens that hold nothing but punctuation and white space."""
    specials = set(tokenizer.all_special_ids)
    texts = [(index, tokenizer.decode([index]).strip()) for index in range(len(tokenizer))]
    return [
        index
        for index, text in texts
        if text and index not in specials and all(unicodedata.category(letter)[0] == "P" for letter in text)
    ]


def find_names(texts: Sequence[str]) -> list[str]:
    """Capitalised words that occur inside sentences more than once and never in small letters; the most
    frequent first."""
    inside = Counter(word for text in texts for word in re.findall(r"(?<=[a-z,] )[A-Z][a-z]+\b", text))
    lower = {word for text in texts for word in re.findall(r"\b[a-z]+\b", text)}
    return [word for word, count in inside.most_common() if count > 1 and word.lower() not in lower]


def name_ids(tokenizer: Any, names: Sequence[str]) -> list[int]:
    """Tokens that are a whole name, with or without a space before it."""
    forms = [form for name in names for form in (name, f" {name}")]
    whole = [tokenizer.encode(form, add_special_tokens=False) for form in forms]
    return sorted({ids[0] for ids in whole if len(ids) == 1})


def unigram_counts(rows: Sequence[Sequence[int]], d_vocab: int) -> Int[np.ndarray, " d_vocab"]:
    """How often each token occurs."""
    return np.bincount(np.concatenate([np.asarray(row, np.int64) for row in rows]), minlength=d_vocab)


# Loss on the second of two copies: what a model gains from having read random tokens before.
#
# Olsson et al. 2022 (arXiv:2209.11895) see induction heads form where this falls. On `[BOS] r r` the tokens
# of r behind its first are predicted twice: from tokens that say nothing about them, and with r in sight.


@dataclasses.dataclass(frozen=True)
class CopyLoss:
    """Mean loss on the same tokens in the first and in the second r, nats a token."""

    first: Float[np.ndarray, " sequence"]
    second: Float[np.ndarray, " sequence"]
    untrained: Estimate
    """`change` of an untrained copy; NaN if there was none."""
    seed: int = 0

    @property
    def change(self) -> Estimate:
        """Second minus first, with its 95 % interval over other sequences; below 0, r is read again."""
        return bootstrap_mean(self.second - self.first, seed=self.seed)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {
            "first": float(self.first.mean()),
            "second": float(self.second.mean()),
            **self.change._asdict(),
            **{f"untrained_{name}": value for name, value in self.untrained._asdict().items()},
            "sequences": len(self.first),
        }


@torch.no_grad()
def copy_loss(
    networks: Sequence[Any], rows: Sequence[Int[Tensor, " pos"]], length: int, seed: int = 0
) -> CopyLoss:
    """Read the same `[BOS] r r` with a model, and with its untrained copy if there is one.

    Args:
        networks: the model, and perhaps a copy.
        rows: sequences that end in r r.
        length: tokens in r.
        seed: of the intervals.
    """
    tokens = torch.stack(list(rows))
    places = torch.arange(tokens.shape[1], device=tokens.device)
    start = tokens.shape[1] - 2 * length
    found = []
    for network in networks:
        nats = []
        for copy in (0, 1):
            # The token that follows is the target; that r begins again, nobody can know.
            begins = start + copy * length
            scored = (places >= begins) & (places < begins + length - 1)
            targets = torch.where(scored, tokens.roll(-1, 1), IGNORED)
            parts = [
                row_nats(network, TextBatch(part, wanted))
                for part, wanted in zip(tokens.split(32), targets.split(32), strict=True)
            ]
            nats.append(torch.cat(parts).cpu().numpy() / (length - 1))
        found.append(nats)
    first, second = found[0]
    none = Estimate(np.nan, np.nan, np.nan)
    untrained = bootstrap_mean(found[1][1] - found[1][0], seed=seed) if len(found) > 1 else none
    return CopyLoss(first, second, untrained, seed)


# Distance-based against semantic heads, as the TinyStories paper tells them apart (Eldan & Li 2023,
# arXiv:2305.07759, section 5), but in numbers.
#
# A head says something where its attention A is not uniform over the keys it may see, U: KL(A || U) nats a
# query. How much of that two simple rules would say too is measured on other stories than they were counted
# on:
#
# - distance: attention is a function of how far back the key is;
# - token: attention is a function of which token the key is.
#
# A rule's weight for a distance (or a token) is the attention that goes there over what uniform attention
# gives it; the rule's gain is the mean of log P(k | q) - log U(k | q) under A. Both are 0 for uniform
# attention, the rule's gain never exceeds the head's KL, and below 0 the rule misleads. What distance does
# not explain is semantic: it hangs on what the tokens are, and beyond the key's token on what the query
# asks for.


LEAST = 0.1
"""Nats a query that a head must be away from uniform attention to be called anything."""
KINDS = ("distance", "semantic", "mixed", "uniform")
PRIOR = 1.0
"""Uniform queries that stand for each distance and token before counting."""


@dataclasses.dataclass(frozen=True)
class HeadKinds:
    """How far each head is from uniform attention, and how much of that two rules explain; nats a query."""

    layers: Int[np.ndarray, " layer"]
    total: Float[np.ndarray, "sequence layer head"]
    """KL(A || U), the mean over the queries of each sequence that was held out."""
    distance: Float[np.ndarray, "sequence layer head"]
    """The gain of the rule by distance."""
    token: Float[np.ndarray, "sequence layer head"]
    """The gain of the rule by the key's token."""
    untrained: Float[np.ndarray, "measure layer head"]
    """Means of the three for an untrained copy; NaN if there was none."""
    seed: int = 0

    axes = ("layer", "head")
    measures = ("total", "distance", "token")

    def of(self, measure: str) -> Float[np.ndarray, "layer head"]:
        """The mean of `total`, `distance` or `token` over sequences."""
        return getattr(self, measure).mean(0)

    @property
    def kinds(self) -> np.ndarray:
        """By [layer head]: `distance` if distance alone says more than half of KL(A || U), `semantic` if it
        says less than a quarter, else `mixed`; `uniform` if KL(A || U) is under 0.1 nats or no more than an
        untrained head's."""
        total, distance = self.of("total"), self.of("distance")
        copy = np.nan_to_num(self.untrained[0], nan=0.0).max(-1, keepdims=True)
        found = np.full(total.shape, "mixed", dtype=object)
        found[distance > total / 2] = "distance"
        found[distance < total / 4] = "semantic"
        found[total < np.fmax(LEAST, copy)] = "uniform"
        return found

    def to_frame(self) -> "pd.DataFrame":
        """One row a head and measure: layer, head, kind, measure, nats, low, high, untrained."""
        import pandas as pd

        kinds, rows = self.kinds, []
        for index, name in enumerate(self.measures):
            values = getattr(self, name)
            for at, head in np.ndindex(values.shape[1:]):
                change = bootstrap_mean(values[:, at, head], seed=self.seed)
                rows.append(
                    {
                        "layer": int(self.layers[at]), "head": head, "kind": kinds[at, head], "measure": name,
                        "nats": change.mean, "low": change.low, "high": change.high,
                        "untrained": float(self.untrained[index, at, head]),
                    }
                )  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self, ax: Any = None) -> Any:
        """Draw each head's KL from uniform attention and what two rules gain; return the figure."""
        from workbench.plots.heads import plot_head_kinds

        return plot_head_kinds(self.to_frame(), ax)


@torch.no_grad()
def head_kinds(
    model: Any,
    sequences: Sequence[Sequence[int]],
    *,
    longest: int = 128,
    untrained: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> HeadKinds:
    """Split what each head's attention says into distance, key's token and the rest.

    Rules are counted on every other sequence and judged on those between.

    Args:
        model: a run or a `HookedTransformer`, causal or masked.
        sequences: token ids, BOS included; two or more.
        longest: only the first so many tokens of each.
        untrained: an untrained copy beside it; twice the work.
        seed: of the intervals.
        progress: called with the sequences read and in all.

    Raises:
        InputError: no attention in the model, or fewer than two sequences.
    """
    network = opened(model)[1]
    layers = layers_with(network.config, find_site("pattern"))
    rows = [torch.as_tensor(row[:longest]) for row in sequences if len(row) > 1]
    if len(rows) < 2:
        raise InputError("two sequences of two tokens or more are needed: one to count on, one to judge on.")
    rows = rows[: len(rows) // 2 * 2]
    found, done = [], 0
    with ready(network) as network:
        for one in [network, *([untrained_copy(network)] if untrained else [])]:
            rules = _Rules(one, layers, max(map(len, rows)))
            gains = []
            for counting in (True, False):
                for row in rows[0 if counting else 1 :: 2]:
                    gains.append(rules.read(row.to(one.device), counting))
                    done += 1
                    if progress is not None:
                        progress(done, len(rows) * (1 + untrained))
            found.append(np.stack([one for one in gains if one is not None]))
    total, distance, token = np.moveaxis(found[0], 1, 0)
    copy = found[1].mean(0) if untrained else np.full_like(found[0][0], np.nan)
    return HeadKinds(np.array(layers), total, distance, token, copy, seed)


class _Rules:
    """Attention to each distance and each token, beside what uniform attention gives; float64."""

    def __init__(self, model: Any, layers: Sequence[int], longest: int) -> None:
        self.model, self.layers, self.longest = model, layers, longest
        shape, heads = (len(layers), model.config.n_heads), {"dtype": torch.float64, "device": model.device}
        self.distance = torch.full((*shape, 2 * longest + 1), PRIOR, **heads)
        self.token = torch.full((*shape, model.config.d_vocab), PRIOR, **heads)
        self.by_distance = torch.full((len(layers), 2 * longest + 1), PRIOR, **heads)
        self.by_token = torch.full((len(layers), model.config.d_vocab), PRIOR, **heads)

    def read(
        self, row: Int[Tensor, " pos"], counting: bool
    ) -> Float[np.ndarray, "measure layer head"] | None:
        """Count one sequence, or judge the rules on it."""
        length = len(row)
        place = torch.arange(length, device=row.device)
        far = (place[:, None] - place + self.longest).flatten()
        keys = row.expand(length, length).flatten()
        gains: list[Tensor] = []
        allowed = torch.empty(0)

        def mask(scores: Tensor, hook: Any) -> None:
            nonlocal allowed
            allowed = scores[0, 0] > -math.inf

        def look(pattern: Tensor, hook: Any) -> None:
            at = self.layers.index(int(hook.name.split(".")[1]))
            attention = pattern[0].double()
            uniform = allowed.double() / allowed.sum(-1, keepdim=True)
            if counting:
                for sums, base, ids in (
                    (self.distance, self.by_distance, far), (self.token, self.by_token, keys),
                ):  # fmt: skip
                    sums[at].index_add_(1, ids, attention.flatten(1))
                    base[at].index_add_(0, ids, uniform.flatten())
                return
            logs = [torch.where(attention > 0, (attention / uniform).log(), 0.0)]
            for sums, base, ids in (
                (self.distance, self.by_distance, far), (self.token, self.by_token, keys),
            ):  # fmt: skip
                weight = (sums[at] / base[at])[:, ids].view_as(attention) * uniform
                rule = weight / weight.sum(-1, keepdim=True)
                logs.append(torch.where(allowed, (rule / uniform).log(), 0.0))
            # The first token sees itself alone: nothing can be said there.
            gains.append(torch.stack([(attention * log).sum((1, 2)) / (length - 1) for log in logs]))

        hooks = [
            (f"blocks.{layer}.attn.hook_{name}", hook)
            for layer in self.layers
            for name, hook in (("attn_scores", mask), ("pattern", look))
        ]
        with self.model.hooks(fwd_hooks=hooks):
            self.model.stream(row[None])
        return None if counting else torch.stack(gains, 1).cpu().numpy()


# What attention can be said to look at: keys that count for a query, by name.


@dataclasses.dataclass(frozen=True)
class Rows:
    """A batch, and what patterns ask of it."""

    tokens: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"]
    repeat: int
    """Length of `r` in `[BOS] r r`; 0 in other text."""
    sets: dict[str, Bool[Tensor, " d_vocab"]]

    @property
    def distance(self) -> Int[Tensor, "1 query key"]:
        place = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return (place[:, None] - place)[None]

    def keys_in(self, name: str) -> Tensor:
        return self.sets[name][self.tokens][:, None, :] & (self.distance != 0)

    def second(self, distance: int) -> Tensor:
        """From the second copy of `r`, which ends the row, that far back."""
        start = self.tokens.shape[1] - self.repeat
        place = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return (self.distance == distance) & (place >= start)[None, :, None]


TEXT: dict[str, Callable[[Rows], Tensor]] = {
    "previous": lambda rows: rows.distance == 1,
    "next": lambda rows: rows.distance == -1,
    "self": lambda rows: rows.distance == 0,
    "sink": lambda rows: (
        (rows.distance != 0) & (torch.arange(rows.tokens.shape[1]) == 0).to(rows.real.device)
    ),
    "same_word": lambda rows: (rows.tokens[:, :, None] == rows.tokens[:, None, :]) & (rows.distance != 0),
    "punctuation": lambda rows: rows.keys_in("punctuation"),
    "name": lambda rows: rows.keys_in("name"),
}
"""Patterns in the sequences given: keys [batch query key] that count. A token is not its own pattern, but in
`self`; `sink` is the first place, where BOS stands."""

REPEATED: dict[str, Callable[[Rows], Tensor]] = {
    "duplicate": lambda rows: rows.second(rows.repeat),
    "induction": lambda rows: rows.second(rows.repeat - 1),
}
"""Patterns on `[BOS] r r` with random r, queries in the second r: the same token in the first, and the token
that followed it there."""

SCORES = (*TEXT, *REPEATED, *(f"{name}_unigram" for name in REPEATED))


def length_of_repeats(config: Any, asked: int | None) -> int:
    """Tokens in r: so that `[BOS] r r` fits, and every window reaches from one copy to the other."""
    room = (config.n_ctx - 1) // 2
    if asked is not None:
        if not 2 <= asked <= room:
            raise InputError(f"repeat_length = {asked} must lie between 2 and {room}, half the context.")
        return asked
    return min(32, room, *(window - 1 for window in config.windows if window > 2))


def impossible(
    config: Any, punctuation: Any, names: Any, unigram: Any, length: int, repeats: int
) -> dict[str, str]:
    """Scores that make no sense here, and why."""
    found = {}
    if config.attention == "causal":
        found["next"] = "a causal model cannot see the next token"
    else:
        reason = "it predicts the next token from an earlier copy, and a bidirectional model sees that token"
        found |= {"induction": reason, "induction_unigram": reason}
    for name, ids in (("punctuation", punctuation), ("name", names)):
        if not len(ids):
            found[name] = "no token ids were given for it"
    for name in REPEATED:
        if length < 2 or repeats < 1:
            why = "no random sequences were asked for" if repeats < 1 else "the context is too short"
            found |= {name: why, f"{name}_unigram": why}
        if unigram is None:
            found.setdefault(f"{name}_unigram", "no unigram distribution was given")
    return found


def choose(scores: Sequence[str] | None, omitted: dict[str, str]) -> set[str]:
    """The scores to take.

    Raises:
        InputError: one that there is not, or that makes no sense here.
    """
    if scores is None:
        return {name for name in SCORES if name not in omitted}
    for name in scores:
        if name not in SCORES:
            raise InputError(f"no score is called {name!r}. {nearest(name, SCORES)}")
        if name in omitted:
            raise InputError(f"the score {name} cannot be taken: {omitted[name]}.")
    return set(scores)


# The sequences that heads are scored on, one after the other: those given, and repeated random tokens.


CELLS = 2**24
"""Most entries of a batch's patterns and targets."""


def member(d_vocab: int, ids: Collection[int], what: str, device: Any) -> Bool[Tensor, " d_vocab"]:
    """Which tokens are in a set."""
    if any(not 0 <= one < d_vocab for one in ids):
        raise InputError(f"the {what} ids run to {max(ids)}; the vocabulary has {d_vocab}.")
    found = torch.zeros(d_vocab, dtype=torch.bool, device=device)
    found[list(ids)] = True
    return found


def given_rows(model: Any, sequences: Any, mask: Tensor | None) -> Iterator[Int[Tensor, " pos"]]:
    """Each sequence's ids, without padding.

    Raises:
        InputError: ids or lengths that the model cannot take, padding that is not on the right.
    """
    if mask is not None and not (isinstance(sequences, Tensor) and sequences.shape == mask.shape):
        raise InputError("a mask belongs to token ids of the same shape, [sequence pos].")
    d_vocab, n_ctx = model.config.d_vocab, model.config.n_ctx
    for index, given in enumerate(sequences):
        if isinstance(given, str):
            given = story_rows(model._need_tokenizer(), [given], end=False)[0]
        row = torch.as_tensor(given)
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


def repeated_rows(
    model: Any, length: int, count: int, unigram: Any, bos: int | None, seed: int, kind: str
) -> Iterator[Int[Tensor, " pos"]]:
    """`[BOS] r r`, r drawn from the tokens that are not special: all alike, or as they occur.

    Raises:
        InputError: counts that are none.
    """
    tokenizer = model.tokenizer
    known = model.config.d_vocab if tokenizer is None else min(model.config.d_vocab, len(tokenizer))
    share = np.ones(model.config.d_vocab) if unigram is None else np.array(unigram, dtype=np.float64)
    if share.shape != (model.config.d_vocab,) or not (share >= 0).all():
        raise InputError(f"unigram must hold {model.config.d_vocab} counts of 0 or more, one a token.")
    share[known:] = 0
    if tokenizer is not None:
        share[[one for one in tokenizer.all_special_ids if one < len(share)]] = 0
    if bos is None and tokenizer is not None:
        bos = tokenizer.bos_token_id
    start = [] if bos is None else [bos]
    share[start] = 0
    if not share.sum():
        raise InputError("unigram counts no token that is not special.")
    once = unigram is None and np.count_nonzero(share) >= length
    for index in range(count):
        random = generator(seed, f"repeated tokens{kind}", index)
        r = random.choice(len(share), length, replace=not once, p=share / share.sum()).tolist()
        yield torch.tensor(start + r + r, device=model.device)


def batches(
    stream: Iterable[Tensor], batch: int | None, planes: int, sets: dict[str, Tensor], repeat: int
) -> Iterator[Rows]:
    """Rows padded to the longest of their batch, as many at a time as the budget of cells allows."""
    part: list[Tensor] = []
    for row in stream:
        longest = max(len(one) for one in (*part, row))
        full = len(part) >= batch if batch else (len(part) + 1) * planes * longest**2 > CELLS
        if part and full:
            yield _padded(part, repeat, sets)
            part = []
        part.append(row)
    if part:
        yield _padded(part, repeat, sets)


def _padded(part: list[Tensor], repeat: int, sets: dict[str, Tensor]) -> Rows:
    lengths = torch.tensor([len(row) for row in part], device=part[0].device)
    tokens = torch.nn.utils.rnn.pad_sequence(part, batch_first=True).long()
    return Rows(tokens, torch.arange(tokens.shape[1], device=lengths.device) < lengths[:, None], repeat, sets)


# What attention heads look at: scores, each beside what uniform attention and an untrained copy give.
#
# A score is the mean attention to the keys that a pattern names, over the queries for which the pattern is
# possible. The names of the usual ones are Elhage et al.'s 2021 (transformer-circuits.pub/2021/framework) and
# Olsson et al.'s 2022 (arXiv:2209.11895).


"""How much of what the baseline leaves over a pattern must take for a head to be called by it."""
OTHER = "other"


@dataclasses.dataclass(frozen=True)
class Measured:
    """Mean attention to each of several patterns; NaN where a pattern is possible for no query."""

    value: Float[np.ndarray, "score layer head"]
    low: Float[np.ndarray, "score layer head"]
    """End of the 95 % bootstrap interval over sequences; 0 to 1 where fewer than two have the pattern."""
    high: Float[np.ndarray, "score layer head"]
    uniform: Float[np.ndarray, "score layer"]
    """What equal attention to all keys that the mask allows gives, exactly."""
    untrained: Float[np.ndarray, "score layer head"]
    """The same of an untrained copy: same configuration, other seed. NaN if there was none."""
    untrained_high: Float[np.ndarray, "score layer head"]
    """The upper end of the copy's interval."""
    queries: Int[np.ndarray, "score layer"]
    """For how many queries the pattern is possible."""


@dataclasses.dataclass(frozen=True)
class HeadScores:
    """Scores of all heads of a model; `layers` are the blocks that have attention."""

    names: tuple[str, ...]
    """Of the scores: patterns such as `previous`; `_unigram` is the same on tokens drawn from the corpus."""
    layers: Int[np.ndarray, " layer"]
    scores: Measured
    offsets: Int[np.ndarray, " offset"]
    """Distances query - key of `profile`; below 0 for keys that come later."""
    profile: Measured
    """Mean attention at each distance, along its first axis."""
    copying: Float[np.ndarray, "layer head"]
    """See `workbench.interp.heads.circuits.copying_scores`."""
    copying_untrained: Float[np.ndarray, "layer head"]
    exchangeable: bool
    """Whether the heads of an untrained layer differ by chance only; ALiBi's differ by their slopes."""
    omitted: dict[str, str]
    """Scores that were not taken, and why."""
    copies: dict[str, CopyLoss]
    """Loss on the second minus the first copy in `[BOS] r r`, r drawn `uniform` or `unigram`; empty for
    bidirectional models and where no repeated tokens were read."""
    sequences: int
    tokens: int
    seed: int

    @property
    def axes(self) -> tuple[str, str, str]:
        """Names of the axes of `scores.value`."""
        return ("score", "layer", "head")

    def of(self, name: str) -> Float[np.ndarray, "layer head"]:
        """One score of all heads; `copying` too.

        Raises:
            InputError: there is no such score; says why, or names the nearest.
        """
        if name == "copying":
            return self.copying
        return self.scores.value[self.index(name)]

    def index(self, name: str) -> int:
        """Which row of `scores` a name stands for.

        Raises:
            InputError: there is no such score.
        """
        if name in self.omitted:
            raise InputError(f"the score {name} was left out: {self.omitted[name]}.")
        if name not in self.names:
            raise InputError(f"no score is called {name!r}. {nearest(name, self.names)}")
        return self.names.index(name)

    @property
    def baseline(self) -> Float[np.ndarray, "score layer head"]:
        """What a head must exceed: uniform attention, and the upper end of the untrained copy's interval.

        A copy's head 3 has nothing in common with the model's head 3, so the largest of its layer stands
        for all of them where heads are `exchangeable`.
        """
        copy = self.scores.untrained_high
        if self.exchangeable:
            copy = np.broadcast_to(copy.max(-1, keepdims=True), copy.shape)
        return np.fmax(self.scores.uniform[:, :, None], copy)

    @property
    def excess(self) -> Float[np.ndarray, "score layer head"]:
        """(score - baseline) / (1 - baseline): the share that it takes of what the baseline leaves over.

        0 where the score's own interval reaches down to the baseline, or nothing is left over.
        """
        base, found = self.baseline, self.scores
        above = (found.low > base) & (base < 1)
        return np.where(above, (found.value - base) / np.where(above, 1 - base, 1.0), 0.0)

    @cached_property
    def classes(self) -> np.ndarray:
        """The pattern of the greatest `excess` of each head, [layer head]; `other` if it is under 0.1.

        `_unigram` scores count for the pattern that they are a variant of.
        """
        labels = np.array([*(name.removesuffix("_unigram") for name in self.names), OTHER], dtype=object)
        if not self.names:
            return np.full(self.copying.shape, OTHER, dtype=object)
        best = self.excess.argmax(0)
        return labels[np.where(self.excess.max(0) >= LEAST, best, len(self.names))]

    def to_frame(self) -> "pd.DataFrame":
        """One row a head and score: layer, head, score, value, low, high, uniform, untrained,
        untrained_high, excess, queries, class. Copying is the last score; it has no interval."""
        return _frame(self, "score", self.names, self.scores, self.excess, self._copying_rows())

    def profile_frame(self) -> "pd.DataFrame":
        """One row a head and distance: layer, head, offset, value, low, high, uniform, untrained, ..."""
        return _frame(self, "offset", self.offsets, self.profile)

    def _copying_rows(self) -> "pd.DataFrame":
        import pandas as pd

        layer, head = _places(self)
        return pd.DataFrame(
            {
                "layer": layer, "head": head, "score": "copying", "value": self.copying.ravel(),
                "untrained": self.copying_untrained.ravel(), "class": self.classes.ravel(),
            }
        )  # fmt: skip

    def plot(self, score: str | None = None, ax: Any = None) -> Any:
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


def _places(found: HeadScores) -> tuple[np.ndarray, np.ndarray]:
    """Layer and head of each cell of a [layer head] array, flat."""
    heads = found.copying.shape[1]
    return found.layers.repeat(heads), np.tile(np.arange(heads), len(found.layers))


def _frame(
    found: HeadScores, key: str, keys: Any, measured: Measured, excess: Any = None, more: Any = None
) -> "pd.DataFrame":
    import pandas as pd

    shape = measured.value.shape
    layer, head = _places(found)
    frame = pd.DataFrame(
        {
            "layer": np.tile(layer, shape[0]),
            "head": np.tile(head, shape[0]),
            key: np.array(keys, dtype=object if key == "score" else np.int64).repeat(shape[1] * shape[2]),
            "value": measured.value.ravel(),
            "low": measured.low.ravel(),
            "high": measured.high.ravel(),
            "uniform": measured.uniform.repeat(shape[2]),
            "untrained": measured.untrained.ravel(),
            "untrained_high": measured.untrained_high.ravel(),
            "queries": measured.queries.repeat(shape[2]),
        }
    )
    if excess is not None:
        frame = frame.assign(excess=excess.ravel(), **{"class": np.tile(found.classes.ravel(), shape[0])})
    return frame if more is None else pd.concat([frame, more], ignore_index=True)


# What a head's weights alone say: its circuits through the vocabulary, copying, and composition.
#
# Elhage et al. 2021 (transformer-circuits.pub/2021/framework). QK: which token, as a query, scores which as
# a key; OV: which token, when attended to, raises which token's logit. Norms stand with their gains and
# centring and without their denominators; biases and positions are left out; the activation in a masked
# model's head is taken as the identity. No matrix of d_vocab x d_vocab is ever made.


def _after_norm(norm: Any, weight: Tensor) -> Tensor:
    """A map [... d_model d] that reads a norm's output, as one that reads its input."""
    if norm is None:
        return weight
    weight = norm.w[:, None] * weight
    return weight - weight.mean(-2, keepdim=True) if hasattr(norm, "b") else weight


def head_maps(model: Any, layer: int) -> dict[str, Tensor]:
    """Q, K, V [head d_model d] as they read the residual stream, and O [head d d_model] as it is written."""
    block = model.blocks[layer]
    attn = block.attn
    norm = None if model.config.norm_place == "post" else block.ln1
    maps = {name: _after_norm(norm, getattr(attn, f"W_{name}").detach()) for name in "QKV"}
    out = attn.W_O.detach()
    if attn.head_scale is not None:
        out = attn.head_scale.detach()[:, None, None] * out
    if block.ln1_post is not None:
        centred = hasattr(block.ln1_post, "b")
        out = (out - out.mean(-1, keepdim=True) if centred else out) * block.ln1_post.w
    return maps | {"O": out}


@torch.no_grad()
def _token_vectors(model: Any) -> Float[Tensor, "d_vocab d_model"]:
    """What each token puts into the residual stream, without its position."""
    vectors = model.embed.W_E if model.embed.W_type is None else model.embed.W_E + model.embed.W_type[0]
    return model.embed.complete(vectors[None])[0]


@torch.no_grad()
def _readout(model: Any) -> Float[Tensor, "d_model d_vocab"]:
    """From the residual stream to the logits, without norms' denominators, biases and activations."""
    weight = model.readout_weight.T
    if model.mlm_head is not None:
        weight = model.mlm_head.weight.T @ _after_norm(model.mlm_head.ln, weight)
    elif model.config.tied and model.embed.up_weight is not None:
        weight = model.embed.up_weight @ weight
    return _after_norm(model.ln_final, weight)


def _checked(model: Any, layer: int, head: int) -> None:
    have = layers_with(model.config, find_site("pattern"))
    if layer not in have or not 0 <= head < model.config.n_heads:
        raise InputError(
            f"there is no head {head} in layer {layer}: heads run from 0 to {model.config.n_heads - 1}, "
            f"layers with attention are {', '.join(map(str, have))}."
        )


@torch.no_grad()
def ov_circuit(model: Any, layer: int, head: int) -> FactoredMatrix:
    """Row: token attended to; column: token whose logit it raises. Factors of width d_value.

    Raises:
        InputError: no such head.
    """
    _checked(model, layer, head)
    with ready(model) as network:
        maps = head_maps(network, layer)
        return FactoredMatrix(_token_vectors(network) @ maps["V"][head], maps["O"][head] @ _readout(network))


@torch.no_grad()
def qk_circuit(model: Any, layer: int, head: int) -> FactoredMatrix:
    """Row: query token; column: key token; value: the attention score, scale included.

    Raises:
        InputError: no such head.
    """
    _checked(model, layer, head)
    with ready(model) as network:
        maps, vectors = head_maps(network, layer), _token_vectors(network)
        keys = vectors @ maps["K"][head] / network.config.scale
        return FactoredMatrix(vectors @ maps["Q"][head], keys.T)


@torch.no_grad()
def copying_scores(model: Any) -> Float[np.ndarray, "layer head"]:
    """Sum of the OV circuit's eigenvalues over the sum of their sizes: 1 copies, -1 suppresses, 0 neither.

    The eigenvalues of W_E W_V W_O W_U that are not 0 are those of W_O (W_U W_E) W_V, [d_value d_value].
    Layers are those with attention.

    Raises:
        InputError: the model has no attention.
    """
    layers = layers_with(model.config, find_site("pattern"))
    with ready(model) as network:
        through = (_readout(network) @ _token_vectors(network)).double()
        found = []
        for layer in layers:
            maps = head_maps(network, layer)
            values = torch.linalg.eigvals(maps["O"].double() @ through @ maps["V"].double())
            size = values.abs().sum(-1)
            found.append(torch.where(size > 0, values.sum(-1).real / size.clamp(min=1e-300), 0.0))
    return torch.stack(found).cpu().numpy()


@dataclasses.dataclass(frozen=True)
class TokenPairs:
    """The extreme entries of a circuit through the vocabulary, the most extreme first."""

    rows: Int[np.ndarray, " pair"]
    columns: Int[np.ndarray, " pair"]
    values: Float[np.ndarray, " pair"]
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]

    def to_frame(self) -> "pd.DataFrame":
        """One row a pair: row, column, value, row_token, column_token."""
        import pandas as pd

        return pd.DataFrame(
            {
                "row": self.rows, "column": self.columns, "value": self.values,
                "row_token": self.row_labels, "column_token": self.column_labels,
            }
        )  # fmt: skip

    def plot(self, ax: Any = None) -> Any:
        """Draw a bar for each pair and return the figure."""
        from workbench.plots.heads import plot_token_pairs

        return plot_token_pairs(self.to_frame(), ax)


@torch.no_grad()
def top_pairs(
    circuit: FactoredMatrix,
    count: int = 20,
    *,
    largest: bool = True,
    among: Any = None,
    tokenizer: Any = None,
    chunk: int = 1024,
) -> TokenPairs:
    """The `count` largest (or smallest) entries; `chunk` rows of the circuit are there at a time.

    Args:
        circuit: what `ov_circuit` or `qk_circuit` gave.
        count: how many.
        largest: else the smallest.
        among: ids of the only tokens that may be in a pair, such as those that a text has; tokens that
            training never saw have vectors of chance, and often the extreme entries.
        tokenizer: names the tokens; ids stand for them without one.
        chunk: rows at a time.
    """
    A, B = circuit.A, circuit.B
    kept = torch.arange(len(A)) if among is None else torch.as_tensor(among, dtype=torch.long)
    if among is not None:
        A, B = A[kept], B[:, kept]
    width = B.shape[1]
    best = A.new_empty(0)
    where = torch.empty(0, dtype=torch.long, device=best.device)
    for start in range(0, len(A), chunk):
        part = (A[start : start + chunk] @ B).flatten()
        values, places = part.topk(min(count, len(part)), largest=largest)
        best, where = torch.cat([best, values]), torch.cat([where, places + start * width])
        best, order = best.topk(min(count, len(best)), largest=largest)
        where = where[order]
    rows, columns = (kept[part.cpu()].tolist() for part in (where // width, where % width))

    def label(token: int) -> str:
        return str(token) if tokenizer is None else tokenizer.decode([token])

    return TokenPairs(
        np.array(rows), np.array(columns), best.double().cpu().numpy(),
        tuple(map(label, rows)), tuple(map(label, columns)),
    )  # fmt: skip


# Head scores of a model, streamed: each layer's pattern is reduced where it arises and never kept.
#
# Intervals are Poisson bootstraps over sequences (Hanley & MacGibbon 2006), which need one pass: in each of
# `REPLICATES` replicates a sequence counts as often as a Poisson(1) draw of its own says.


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


KINDS_COMPOSITION = ("Q", "K", "V")


@dataclasses.dataclass(frozen=True)
class Composition:
    """Composition of each pair of heads; NaN where the first is not in an earlier layer, or writes or
    reads nothing."""

    value: Float[np.ndarray, "kind earlier_layer earlier_head later_layer later_head"]
    layers: Int[np.ndarray, " layer"]
    random: Float[np.ndarray, " kind"]
    """The mean of random heads of the same widths."""
    random_high: Float[np.ndarray, " kind"]
    """Their 97.5 % quantile."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of `value`."""
        return ("kind", "earlier_layer", "earlier_head", "later_layer", "later_head")

    def to_frame(self) -> "pd.DataFrame":
        """One row a kind and pair of heads, with the random baseline; the strongest above it first."""
        import pandas as pd

        kind, *places = np.nonzero(~np.isnan(self.value))
        frame = pd.DataFrame(
            {
                "kind": np.array(KINDS_COMPOSITION, dtype=object)[kind],
                "earlier_layer": self.layers[places[0]],
                "earlier_head": places[1],
                "later_layer": self.layers[places[2]],
                "later_head": places[3],
                "value": self.value[(kind, *places)],
                "random": self.random[kind],
                "random_high": self.random_high[kind],
            }
        )
        order = (frame.value - frame.random).sort_values(ascending=False, kind="stable").index
        return frame.loc[order].reset_index(drop=True)

    def plot(self, ax: Any = None) -> Any:
        """Draw Q-, K- and V-composition of earlier with later heads above random; return the figure."""
        from workbench.plots.heads import plot_composition

        layers = [int(layer) for layer in self.layers]
        return plot_composition(self.to_frame(), layers, self.value.shape[2], self.random, ax)


@torch.no_grad()
def composition(model: Any, *, draws: int = 100, seed: int = 0) -> Composition:
    """Q-, K- and V-composition between the heads of earlier and later layers, in float64.

    Args:
        model: a `HookedTransformer`; norms' gains and centring belong to what a head reads.
        draws: random pairs of heads for the baseline.
        seed: of those.

    Raises:
        InputError: the model has no attention.
    """
    config = model.config
    layers = layers_with(config, find_site("pattern"))
    maps = [{name: part.double() for name, part in head_maps(model, layer).items()} for layer in layers]
    writes, reads = [_writes(one) for one in maps], [_reads(one) for one in maps]
    value = np.full((3, len(layers), config.n_heads, len(layers), config.n_heads), np.nan)
    for later, read in enumerate(reads):
        for earlier in range(later):
            written = writes[earlier]
            for kind, name in enumerate(KINDS_COMPOSITION):
                product = torch.einsum("hid,kde->hkie", written, read[name])
                sizes = _norm(written)[:, None] * _norm(read[name])
                value[kind, earlier, :, later] = (_norm(product) / sizes).cpu().numpy()
    chance = _random(config, draws, seed)
    return Composition(value, np.array(layers), chance.mean(1), np.quantile(chance, 0.975, axis=1))


def _norm(matrices: Tensor) -> Tensor:
    return matrices.flatten(-2).norm(dim=-1)


def _triangle(tall: Float[Tensor, "*head d_model d"]) -> Float[Tensor, "*head rank d"]:
    """R of Q R = `tall`: |tall X| = |R X|, with d_model gone."""
    return torch.linalg.qr(tall, mode="r").R


def _writes(maps: dict[str, Tensor]) -> Float[Tensor, "*head rank d_model"]:
    """A small matrix with the same products behind it as W_OV has."""
    return _triangle(maps["V"]) @ maps["O"]


def _reads(maps: dict[str, Tensor]) -> dict[str, Float[Tensor, "*head d_model rank"]]:
    """By kind, a narrow matrix with the same products before it as W_QK, W_QK^T or W_OV."""
    return {
        "Q": maps["Q"] @ _triangle(maps["K"]).mT,
        "K": maps["K"] @ _triangle(maps["Q"]).mT,
        "V": maps["V"] @ _triangle(maps["O"].mT).mT,
    }


def _random(config: Any, draws: int, seed: int) -> Float[np.ndarray, "kind draw"]:
    """Composition of pairs of random heads."""
    random = torch.Generator().manual_seed(derive(seed, "composition"))
    widths = {"Q": config.head_width, "K": config.head_width, "V": config.value_width}
    found = []
    for _ in range(draws):
        first, second = (
            {
                name: torch.randn(config.d_model, width, generator=random).double()
                for name, width in widths.items()
            }
            | {"O": torch.randn(config.value_width, config.d_model, generator=random).double()}
            for _ in range(2)
        )
        written = _writes(first)
        read = _reads(second)
        found.append(
            [float(_norm(written @ read[k]) / (_norm(written) * _norm(read[k]))) for k in KINDS_COMPOSITION]
        )
    return np.array(found).T

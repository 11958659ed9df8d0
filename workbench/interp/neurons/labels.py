"""Automatic labels of neurons, chosen on one half of the stories and tested on the other.

For each neuron and each feature of a token, the area under the ROC curve (AUC) says how well the activation
tells tokens that have the feature from those that have it not: 0.5 is chance. The best feature on one half is
tested on the other (Mann & Whitney 1947, corrected for all neurons and features), with an interval that takes
stories as the units that are drawn (DeLong et al. 1988; Obuchowski 1997).

That is not enough: in an untrained model too a token's embedding decides much of every activation, so many a
neuron there "detects" some word. So an untrained copy sets the bar twice: features are compared by what their
AUC has above nearly all neurons of one half of the copy, and a neuron gets its label only if it is further
above than all but `alpha` of the copy's other half.
"""

import dataclasses
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control, norm
from torch import Tensor

from workbench.data.embedded.annotated import word_classes
from workbench.data.tokenizer import plain_encoder
from workbench.errors import InputError, nearest
from workbench.evals.scoring import opened, ready
from workbench.interp.components import SITES
from workbench.interp.heads import find_names
from workbench.interp.neurons.examples import neuron_layers, numbered_batches
from workbench.interp.neurons.ranks import aucs, clustered_errors, p_greater, ranked
from workbench.interp.texts import own_stories, untrained_copy

if TYPE_CHECKING:
    import pandas as pd


# What can be said of a token in a story without a model: its word, part of speech, place, quotation, names.
#
# These are the candidate labels of neurons and nothing more: each is a column of yes and no over tokens.


NEAR = 10
"""Tokens from a story's end or start that count as near it."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_MARK = re.compile(r"[^\w\s]")
_QUOTES = '"“”'
_FOLLOWING = "next "


@dataclasses.dataclass(frozen=True)
class TokenFeatures:
    """Yes or no for each token and feature."""

    names: tuple[str, ...]
    """`word: cat`, `next word: cat`, `noun`, `next noun`, `inside a quotation`, ..."""
    values: Bool[np.ndarray, "token feature"]
    story: Int[np.ndarray, " token"]
    """The story that each token is of; its tokens follow each other."""


def token_features(
    tokenizer: Any,
    stories: Sequence[str],
    *,
    n_ctx: int | None = None,
    words: int = 100,
    following: bool = True,
    least: int = 20,
) -> TokenFeatures:
    """Describe every token of some stories.

    A word is described at its last token, where a causal model has read it whole; `next ...` stands at the
    token before a word begins.

    Args:
        tokenizer: a `PreTrainedTokenizerFast`.
        stories: texts.
        n_ctx: rows of BOS and the story's tokens are cut to so many.
        words: the most frequent words to ask about, by themselves and as the next.
        following: with features of the next word and mark.
        least: features that fewer tokens have, or fewer lack, are left out.
    """
    encoded = plain_encoder(tokenizer).encode_batch(list(stories), add_special_tokens=False)
    room = None if n_ctx is None else n_ctx - (tokenizer.bos_token_id is not None)
    names = set(find_names(stories))
    columns: dict[str, list[np.ndarray]] = {}
    counted = Counter(word.lower() for text in stories for word in _WORD.findall(text))
    kept = {word for word, _ in counted.most_common(words)}
    spans: list[tuple[int, int]] = []
    start = 0
    for text, one in zip(stories, encoded, strict=True):
        offsets = np.array(one.offsets[:room], np.int64).reshape(-1, 2)
        for name, places in _described(text, offsets, names, kept, following).items():
            columns.setdefault(name, []).append(places + start)
        spans.append((start, len(offsets)))
        start += len(offsets)
    found = {name: np.unique(np.concatenate(places)) for name, places in columns.items()}
    names_kept = [name for name in found if least <= len(found[name]) <= start - least]
    names_kept.sort(key=_order)
    values = np.zeros((start, len(names_kept)), bool)
    for column, name in enumerate(names_kept):
        values[found[name], column] = True
    return TokenFeatures(
        tuple(names_kept), values, np.repeat(np.arange(len(spans)), [length for _, length in spans])
    )


def _described(
    text: str, offsets: Int[np.ndarray, "token 2"], names: set[str], kept: set[str], following: bool
) -> dict[str, Int[np.ndarray, " place"]]:
    """The tokens that have each feature, for one story."""
    begin, end = offsets[:, 0], offsets[:, 1]
    ends = end.tolist()
    found: dict[str, Any] = {}

    def note(name: str, at: int) -> None:
        if 0 <= at < len(offsets):
            found.setdefault(name, []).append(at)

    mentions: dict[str, int] = {}
    calls: Counter[str] = Counter()
    fresh = True
    for match in re.finditer(f"{_WORD.pattern}|{_MARK.pattern}|\n", text):
        piece = match.group()
        last = bisect_left(ends, match.end())  # the token that ends it
        before = bisect_right(ends, match.start()) - 1  # the one before it begins
        sides = [("", last)]
        if following and 0 <= before < len(offsets) - 1:
            sides.append((_FOLLOWING, before))
        if piece == "\n":
            note("line break", last)
            continue
        if _MARK.fullmatch(piece):
            for side, at in sides:
                note(f"{side}mark: {piece}", at)
                if piece in ".!?":
                    note(f"{side}end of a sentence", at)
            note("punctuation", last)
            fresh = fresh or piece in ".!?"
            continue
        word = piece.lower()
        labels = [name for name, members in word_classes().items() if word in members]
        if word in kept:
            labels.append(f"word: {word}")
        if piece in names:
            labels.append("name")
            mentions.setdefault(piece, last)
            calls[piece] += 1
        for side, at in sides:
            for label in labels:
                note(side + label, at)
        if fresh:
            note("first word of a sentence", last)
        fresh = False
    if calls:
        hero = calls.most_common(1)[0][0]
        note("first mention of the protagonist", mentions[hero])
    found |= {name: np.flatnonzero(mask) for name, mask in _quoted(text, begin, end).items()}
    count = len(offsets)
    found["near the start of the story"] = list(range(min(NEAR, count)))
    found["near the end of the story"] = list(range(max(0, count - NEAR), count))
    return {name: np.array(places, np.int64) for name, places in found.items()}


def _quoted(
    text: str, begin: Int[np.ndarray, " token"], end: Int[np.ndarray, " token"]
) -> dict[str, Bool[np.ndarray, " token"]]:
    """Quotation marks that open and close, and what stands between. A line break ends any quotation."""
    inside = np.zeros(len(text) + 1, bool)
    opens, closes = np.zeros((2, len(text) + 1), bool)
    within = False
    for at, letter in enumerate(text):
        if letter in _QUOTES:
            within = letter == "“" or (letter == '"' and not within)
            (opens if within else closes)[at] = True
        elif letter == "\n":
            within = False
        else:
            inside[at] = within
    before = {"opening quotation mark": opens, "closing quotation mark": closes}
    sums = {name: np.concatenate([[0], np.cumsum(marks)]) for name, marks in before.items()}
    found = {name: total[end] > total[begin] for name, total in sums.items()}
    return {"inside a quotation": inside[np.maximum(end - 1, 0)]} | found


def _order(name: str) -> tuple[bool, bool, str]:
    """Of two labels that say the same of a text, the plainer comes first: a word before its class."""
    plain = name.removeprefix(_FOLLOWING)
    return name != plain, not plain.startswith(("word: ", "mark: ")), plain


# The best label of each neuron, and whether it holds.


@dataclasses.dataclass(frozen=True)
class NeuronLabels:
    """The best label of each neuron, and how it did on stories that it was not chosen on."""

    layers: tuple[int, ...]
    features: tuple[str, ...]
    usual: Float[np.ndarray, " feature"]
    """AUC that 95 % of the neurons of an untrained copy stay under; 0.5 without one."""
    feature: Int[np.ndarray, "layer neuron"]
    """Index of the best feature on the first half."""
    chosen_auc: Float[np.ndarray, "layer neuron"]
    """Its AUC there: too good, because it was chosen by it."""
    auc: Float[np.ndarray, "layer neuron"]
    """Its AUC on the other half."""
    low: Float[np.ndarray, "layer neuron"]
    high: Float[np.ndarray, "layer neuron"]
    p: Float[np.ndarray, "layer neuron"]
    """Of so high an AUC by chance, corrected for all neurons and features; one-sided."""
    precision: Float[np.ndarray, "layer neuron"]
    """Share that have the feature of the strongest tokens, as many as have it: the AUC sees few of those."""
    untrained: Float[np.ndarray, " neuron"] | None
    """Excess of another copy's neurons, chosen and tested the same way; None if there was none."""
    positives: Int[np.ndarray, " feature"]
    """Tokens of the second half that have the feature."""
    tokens: int
    """Tokens of the second half."""
    stories: int
    least_auc: float
    alpha: float
    seed: int
    run: str | None = None
    step: int | None = None

    axes = ("layer", "neuron")

    @cached_property
    def excess(self) -> Float[np.ndarray, "layer neuron"]:
        """How far the held-out AUC is above the feature's usual one, as a share of what that leaves over."""
        return excess_over(self.auc, self.usual[self.feature])

    @property
    def level(self) -> float:
        """The excess that all but a share `alpha` of the untrained neurons stay under."""
        return 0.0 if self.untrained is None else float(np.quantile(self.untrained, 1 - self.alpha))

    @cached_property
    def passed(self) -> Bool[np.ndarray, "layer neuron"]:
        """Whether the label holds on the other half: AUC at least `least_auc`, its interval above 0.5, p at
        most `alpha`, and the excess above the untrained level."""
        held = (self.auc >= self.least_auc) & (self.low > 0.5) & (self.p <= self.alpha)
        return held & (self.excess > self.level)

    def label(self, layer: int, neuron: int) -> str | None:
        """The label that holds; None if none does.

        Raises:
            InputError: the layer was not read.
        """
        if layer not in self.layers:
            raise InputError(
                f"block {layer} was not labelled; these were: {', '.join(map(str, self.layers))}."
            )
        at = self.layers.index(layer), neuron
        return self.features[self.feature[at]] if self.passed[at] else None

    def to_frame(self) -> "pd.DataFrame":
        """One row a neuron: component, layer, neuron, label (None if it does not hold), best (feature),
        chosen_auc, auc, low, high, precision, p, excess."""
        import pandas as pd

        width = self.auc.shape[1]
        layers, units = np.repeat(self.layers, width), np.tile(np.arange(width), len(self.layers))
        best = [self.features[index] for index in self.feature.ravel()]
        names = ("chosen_auc", "auc", "low", "high", "precision", "p", "excess")
        return pd.DataFrame(
            {
                "component": [f"L{layer}N{unit}" for layer, unit in zip(layers, units, strict=True)],
                "layer": layers,
                "neuron": units,
                "label": [
                    name if held else None for name, held in zip(best, self.passed.ravel(), strict=True)
                ],
                "best": best,
                **{name: getattr(self, name).ravel() for name in names},
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw how far the best labels are above the usual, here and in an untrained copy, and return the
        figure.
        """
        from workbench.plots.neurons import plot_labels

        title = f"{100 * self.passed.mean():.0f} % of {self.passed.size:,} neurons have a label that holds"
        options = {"level": self.level, "alpha": self.alpha, "title": title, "ax": ax}
        return plot_labels(self.excess.ravel(), self.untrained, **options)


def excess_over(auc: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """How far an AUC is above the usual one, as a share of what that leaves over."""
    return (auc - usual) / (1 - usual)


STORIES = 200
LEAST_AUC, ALPHA = 0.8, 0.05
LEAST = 20
CORRECTIONS = ("bh", "by", "none")
AT_ONCE = 2**26
"""Activations that are held at a time."""
USUAL = 0.95
"""Share of the untrained neurons that a feature's AUC is compared to the upper end of."""


@torch.no_grad()
def label_neurons(
    model: Any,
    stories: Sequence[str] | None = None,
    *,
    layers: Sequence[int] | None = None,
    words: int = 100,
    least_auc: float = LEAST_AUC,
    alpha: float = ALPHA,
    correction: str = "by",
    control: bool = True,
    shuffle: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NeuronLabels:
    """Find and test a label for every neuron.

    Args:
        model: a run or a `HookedTransformer` with a tokenizer. For a masked one features are of the token
            itself, none of the next.
        stories: two or more; the first 200 of the run's own corpus (or embedded ones) if not given. Half of
            them, drawn by `seed`, choose the labels, the others test them.
        layers: blocks whose neurons are labelled; all with an MLP if not set.
        words: the most frequent words to ask about.
        least_auc: labels below are none.
        alpha: level of the test, and share of untrained neurons that may reach the bar.
        correction: `by` (Benjamini & Yekutieli 2001: tests may depend on each other), `bh` (Benjamini &
            Hochberg 1995) or `none`, over all neurons and features.
        control: set the bar by untrained copies; without, every AUC is compared to 0.5 and `least_auc` only.
        shuffle: give each feature's values to the wrong tokens: a null result.
        seed: of the halves and of `shuffle`.
        progress: called with the number of layers done and of all.

    Raises:
        InputError: too few stories, no tokenizer, unknown corrections, no feature that occurs often enough.
    """
    run, network, tokenizer = opened(model)
    chosen = neuron_layers(network.config, layers)
    if correction not in CORRECTIONS:
        raise InputError(f"{correction!r} is no correction. {nearest(correction, CORRECTIONS)}")
    if tokenizer is None:
        raise InputError("the model has no tokenizer, and labels are of words; give a model that has one.")
    texts = list(own_stories(run, "validation", STORIES) if stories is None else stories)
    if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        raise InputError(f"labels need stories as text, two or more; found {len(texts)}.")
    found = token_features(
        tokenizer, texts, n_ctx=network.config.n_ctx, words=words,
        following=network.config.objective == "clm", least=2 * LEAST,
    )  # fmt: skip
    halves = _split(found, len(texts), seed, shuffle)
    names = halves[0].names
    total, done = (3 if control else 1) * len(chosen), 0

    def tested(of: Any) -> Iterator[_Tested]:
        nonlocal done
        for x in _activations(of, chosen, texts, found.story, seed):
            yield _test(x, halves)
            done += 1
            if progress is not None:
                progress(done, total)

    usual, excess = np.full(len(names), 0.5), None
    if control:
        copy = untrained_copy(network)
        usual = np.quantile(np.concatenate([one.first for one in tested(copy)], 1), USUAL, axis=1)
        usual = np.clip(usual, 0.5, 1 - 1e-6)
        excess = np.concatenate([_held_out(one, usual) for one in tested(untrained_copy(copy))])
    cells = [_cell(one, usual, halves[1]) for one in tested(network)]
    table = {name: np.stack([cell[name] for cell in cells]) for name in cells[0]}
    p = table["p"]
    if correction != "none":
        p = false_discovery_control(p.ravel(), method=correction).reshape(p.shape)
    table["p"] = np.take_along_axis(p, table["feature"][:, None], 1)[:, 0]
    return NeuronLabels(
        layers=chosen,
        features=names,
        usual=usual,
        untrained=excess,
        positives=halves[1].values.sum(0),
        tokens=len(halves[1].values),
        stories=len(texts),
        least_auc=least_auc,
        alpha=alpha,
        seed=seed,
        run=None if run is None else run.name,
        step=None if run is None else run.step,
        **table,
    )


class _Half(NamedTuple):
    """The tokens of half of the stories."""

    tokens: Int[np.ndarray, " token"]
    names: tuple[str, ...]
    values: Bool[np.ndarray, "token feature"]
    story: Int[np.ndarray, " token"]


class _Tested(NamedTuple):
    """A layer's neurons."""

    first: Float[np.ndarray, "feature neuron"]
    """AUC on the first half."""
    second: Float[np.ndarray, "feature neuron"]
    """AUC on the second, and the activations and ranks there."""
    x: Any
    ranks: Any


def _split(found: TokenFeatures, stories: int, seed: int, shuffle: bool) -> list[_Half]:
    """Two halves of the stories, with the features that are frequent enough in both."""
    later = np.zeros(stories, bool)
    later[np.random.default_rng(seed).permutation(stories)[stories // 2 :]] = True
    tokens = [np.flatnonzero(later[found.story] == half) for half in (False, True)]
    fine = np.ones(len(found.names), bool)
    for mine in tokens:
        count = found.values[mine].sum(0)
        fine &= (count >= LEAST) & (count <= len(mine) - LEAST)
    if not fine.any():
        raise InputError(f"no word or class stands on {LEAST} tokens of each half; give more stories.")
    names = tuple(name for name, there in zip(found.names, fine, strict=True) if there)
    random = np.random.default_rng([seed, 1])
    halves = []
    for mine in tokens:
        values = found.values[mine][:, fine]
        halves.append(
            _Half(mine, names, random.permutation(values) if shuffle else values, found.story[mine])
        )
    return halves


def _activations(
    model: Any, layers: Sequence[int], texts: Sequence[str], story: Int[np.ndarray, " token"], seed: int
) -> Iterator[Float[Tensor, "token neuron"]]:
    """Each layer's activations at all tokens of the stories, as many layers in one pass as memory allows."""
    first_place, hook = int(opened(model)[2].bos_token_id is not None), SITES["neuron"].hook_name
    starts = np.searchsorted(story, np.arange(len(texts) + 1))
    with ready(opened(model)[1]) as network:
        width = network.config.mlp_width
        size = max(1, AT_ONCE // (len(story) * width))
        for first in range(0, len(layers), size):
            found = {
                hook(layer): torch.empty(len(story), width, dtype=network.dtype, device=network.device)
                for layer in layers[first : first + size]
            }
            for numbers, batch in numbered_batches(network, texts, seed):
                spans = [(int(starts[each]), int(starts[each + 1])) for each in numbers]
                lengths = torch.tensor([stop - start for start, stop in spans])
                rows = torch.repeat_interleave(torch.arange(len(spans)), lengths)
                # The text's tokens, whatever their ids: a row is BOS, if there is one, and the text.
                places = torch.cat([torch.arange(length) for length in lengths.tolist()]) + first_place
                where = torch.cat([torch.arange(*span) for span in spans])

                def take(x: Tensor, hook: Any, out: Any = found, to: Any = where, at: Any = (rows, places)):
                    out[hook.name][to] = x[at]

                with network.hooks(fwd_hooks=[(name, take) for name in found]):
                    network.stream(batch.tokens, attention_mask=batch.real, segments=batch.segments)
            for name in list(found):
                yield found.pop(name)


def _test(x: Float[Tensor, "token neuron"], halves: Sequence[_Half]) -> _Tested:
    mine = [x[torch.from_numpy(half.tokens).to(x.device)] for half in halves]
    ranks = [ranked(one) for one in mine]
    first, second = (aucs(one, half.values) for one, half in zip(ranks, halves, strict=True))
    return _Tested(first, second, mine[1], ranks[1])


def _held_out(one: _Tested, usual: Float[np.ndarray, " feature"]) -> Float[np.ndarray, " neuron"]:
    """Excess on the second half of the features that are best on the first."""
    best = excess_over(one.first, usual[:, None]).argmax(0)
    return excess_over(_of(one.second, best), usual[best])


def _cell(one: _Tested, usual: Float[np.ndarray, " feature"], half: _Half) -> dict[str, np.ndarray]:
    """Each neuron's best feature on the first half, and its test on the second."""
    best = excess_over(one.first, usual[:, None]).argmax(0)
    auc = _of(one.second, best)
    error, precision = np.empty((2, len(best)))
    for feature in np.unique(best):
        mine = best == feature
        who = torch.from_numpy(np.flatnonzero(mine)).to(one.x.device)
        error[mine] = clustered_errors(
            one.x[:, who], one.ranks.ranks[who], half.values[:, feature], half.story
        )
        inside = half.values[:, feature]
        strongest = one.ranks.ranks[who] > len(inside) - inside.sum()
        precision[mine] = strongest[:, torch.from_numpy(inside)].double().sum(1).cpu() / inside.sum()
    low, high = (np.clip(auc + side * norm.ppf(0.975) * error, 0, 1) for side in (-1, 1))
    p = p_greater(one.second, half.values.sum(0), one.ranks)
    first = _of(one.first, best)
    return dict(feature=best, chosen_auc=first, auc=auc, low=low, high=high, p=p, precision=precision)


def _of(table: Float[np.ndarray, "feature neuron"], best: Int[np.ndarray, " neuron"]) -> np.ndarray:
    return np.take_along_axis(table, best[None], 0)[0]

"""Automatic labels of neurons (a word, a part of speech, a place), chosen on half of the stories and tested
on the other half against untrained copies of the model."""

import dataclasses
import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control, norm
from torch import Tensor

from workbench.console import OnProgress, progress_bar
from workbench.data.embedded.word_classes import word_classes
from workbench.data.tokenizer import plain_encoder
from workbench.errors import InputError, nearest
from workbench.evals.scoring import ready
from workbench.interp.components import SITES
from workbench.interp.heads import find_names
from workbench.interp.neurons.examples import neuron_frame, neuron_layers, numbered_batches
from workbench.interp.neurons.ranks import Ranks, aucs, clustered_errors, p_greater, ranked
from workbench.interp.texts import own_stories, untrained_copy
from workbench.result import Result
from workbench.runs.run import ModelLike, open_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from transformers import PreTrainedTokenizerFast

    from workbench.model.transformer import HookedTransformer

STORIES = 200
LEAST_AUC, ALPHA = 0.8, 0.05
LEAST = 20
"""Tokens of each half that must have a feature, and that must lack it."""
CORRECTIONS = ("bh", "by", "none")
AT_ONCE = 2**26
"""Activations in memory at a time."""
USUAL = 0.95
"""Quantile of the untrained neurons' AUCs that a feature is compared with."""
NEAR = 10
"""Tokens from the start or end of a story that count as near it."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NeuronLabels(Result):
    """The best label of each neuron, and its test on stories that it was not chosen on."""

    layers: tuple[int, ...]
    features: tuple[str, ...]
    usual: Float[np.ndarray, " feature"]
    """AUC that 95 % of the neurons of an untrained copy do not reach; 0.5 without the control."""
    feature: Int[np.ndarray, "layer neuron"]
    """Index of the best feature on the first half."""
    chosen_auc: Float[np.ndarray, "layer neuron"]
    """Its AUC on the first half, biased upwards by the choice."""
    auc: Float[np.ndarray, "layer neuron"]
    """Its AUC on the second half."""
    low: Float[np.ndarray, "layer neuron"]
    high: Float[np.ndarray, "layer neuron"]
    p: Float[np.ndarray, "layer neuron"]
    """One-sided p value of that AUC, corrected for all neurons and features."""
    precision: Float[np.ndarray, "layer neuron"]
    """Fraction with the feature among the strongest tokens, as many as have the feature."""
    untrained: Float[np.ndarray, " neuron"] | None
    """Excess of the neurons of a second untrained copy, chosen and tested in the same way."""
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
        """Held-out AUC above the feature's usual one, as a fraction of what is left up to 1."""
        return excess_over(self.auc, self.usual[self.feature])

    @property
    def level(self) -> float:
        """The excess that only a fraction `alpha` of the untrained neurons exceeds."""
        return 0.0 if self.untrained is None else float(np.quantile(self.untrained, 1 - self.alpha))

    @cached_property
    def passed(self) -> Bool[np.ndarray, "layer neuron"]:
        """True where the label holds on the second half: AUC at least `least_auc`, interval above 0.5, p at
        most `alpha`, and an excess above `level`."""
        held = (self.auc >= self.least_auc) & (self.low > 0.5) & (self.p <= self.alpha)
        return held & (self.excess > self.level)

    def label(self, layer: int, neuron: int) -> str | None:
        """Return the label of a neuron, None if none holds.

        Raises:
            InputError: the layer was not labelled.
        """
        index = self.index(layer), neuron
        return self.features[self.feature[index]] if self.passed[index] else None

    def index(self, layer: int) -> int:
        """Return the index of a layer along the first axis.

        Raises:
            InputError: the layer was not labelled.
        """
        if layer not in self.layers:
            labelled = ", ".join(map(str, self.layers))
            raise InputError(f"Block {layer} was not labelled; labelled blocks: {labelled}.")
        return self.layers.index(layer)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per neuron: component, layer, neuron, label (None if it does not hold), best (the
        best feature), chosen_auc, auc, low, high, precision, p, excess."""
        best = [self.features[index] for index in self.feature.ravel()]
        names = ("chosen_auc", "auc", "low", "high", "precision", "p", "excess")
        return neuron_frame(self.layers, self.auc.shape[1]).assign(
            label=[name if held else None for name, held in zip(best, self.passed.ravel(), strict=True)],
            best=best,
            **{name: getattr(self, name).ravel() for name in names},
        )

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw how far the best labels are above the usual, here and in an untrained copy, and return the
        figure.
        """
        from workbench.plots.neurons import plot_labels

        title = f"{100 * self.passed.mean():.0f} % of {self.passed.size:,} neurons have a label that holds"
        options = {"level": self.level, "alpha": self.alpha, "title": title, "ax": ax}
        return plot_labels(self.excess.ravel(), self.untrained, **options)


def excess_over(auc: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Return how far an AUC is above the usual one, as a fraction of what is left up to 1."""
    return (auc - usual) / (1 - usual)


@torch.no_grad()
def label_neurons(
    model: ModelLike,
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
    progress: bool | OnProgress | None = None,
) -> NeuronLabels:
    """Find and test a label for every neuron.

    For each neuron and each feature of a token, the area under the ROC curve (AUC) measures how well the
    activation separates tokens with the feature from tokens without it; 0.5 is chance. The best feature on
    one half of the stories is tested on the other half (Mann & Whitney 1947), with an interval that treats
    stories as the sampling units (DeLong et al. 1988; Obuchowski 1997).

    A significant AUC is not enough: in an untrained model, too, the embedding of a token determines much of
    every activation, so that many neurons "detect" some word. Therefore features are compared by their AUC
    above what 95 % of the neurons of an untrained copy reach, and a label holds only if its excess is above
    that of all but a fraction `alpha` of the neurons of a second untrained copy.

    Args:
        model: a run or a `HookedTransformer` with a tokenizer, or the name of a run. For a masked model,
            features describe the token itself, not the next one.
        stories: two or more; the first 200 validation stories of the run's corpus if not given.
        layers: blocks to label; all with an MLP if not set.
        words: number of most frequent words that are features.
        least_auc: smallest held-out AUC of a label that holds.
        alpha: level of the test, and fraction of untrained neurons that may exceed the threshold.
        correction: for all neurons and features: `by` (Benjamini & Yekutieli 2001, for dependent tests),
            `bh` (Benjamini & Hochberg 1995) or `none`.
        control: compare with untrained copies; without, AUCs are compared with 0.5 and `least_auc` only.
        shuffle: assign the features to the wrong tokens, for a null result.
        seed: of the split into halves and of `shuffle`.
        progress: see `progress_bar`.

    Raises:
        InputError: too few stories, no tokenizer, an unknown correction, no feature that is frequent enough.
    """
    run, network, tokenizer = open_model(model)
    layers = neuron_layers(network.config, layers)
    if correction not in CORRECTIONS:
        raise InputError(f"Unknown correction {correction!r}. {nearest(correction, CORRECTIONS)}")
    if tokenizer is None:
        raise InputError("The model has no tokenizer, but labels need text; give a model with a tokenizer.")
    texts = list(own_stories(run, "validation", STORIES) if stories is None else stories)
    if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        raise InputError(f"Labels need stories as text, two or more; found {len(texts)}.")
    described = token_features(
        tokenizer, texts, n_ctx=network.config.n_ctx, words=words,
        following=network.config.objective == "clm", least=2 * LEAST,
    )  # fmt: skip
    halves = _split(described, len(texts), seed, shuffle)
    features = halves[0].names
    models, done = 3 if control else 1, 0

    with progress_bar(progress, "Labelling neurons") as on_progress:

        def scores(of: "HookedTransformer") -> Iterator[_Scores]:
            nonlocal done
            for x in _activations(of, layers, texts, described.story, seed):
                yield _score(x, halves)
                done += 1
                on_progress(done / (models * len(layers)), f"{done} of {models * len(layers)} layers")

        usual, untrained = np.full(len(features), 0.5), None
        if control:
            copy = untrained_copy(network)
            usual = np.quantile(np.concatenate([layer.first for layer in scores(copy)], 1), USUAL, axis=1)
            usual = np.clip(usual, 0.5, 1 - 1e-6)
            second_copy = untrained_copy(copy)
            untrained = np.concatenate([_held_out_excess(layer, usual) for layer in scores(second_copy)])
        rows = [_test_labels(layer, usual, halves[1]) for layer in scores(network)]
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    p = columns["p"]
    if correction != "none":
        p = false_discovery_control(p.ravel(), method=correction).reshape(p.shape)
    columns["p"] = np.take_along_axis(p, columns["feature"][:, None], 1)[:, 0]
    return NeuronLabels(
        layers=layers,
        features=features,
        usual=usual,
        untrained=untrained,
        positives=halves[1].values.sum(0),
        tokens=len(halves[1].values),
        stories=len(texts),
        least_auc=least_auc,
        alpha=alpha,
        seed=seed,
        run=None if run is None else run.name,
        step=None if run is None else run.step,
        **columns,
    )


# From activations to tested labels, one layer at a time.


class _Half(NamedTuple):
    """The tokens of half of the stories."""

    tokens: Int[np.ndarray, " token"]
    names: tuple[str, ...]
    values: Bool[np.ndarray, "token feature"]
    story: Int[np.ndarray, " token"]


class _Scores(NamedTuple):
    """AUCs of the neurons of one layer on both halves."""

    first: Float[np.ndarray, "feature neuron"]
    second: Float[np.ndarray, "feature neuron"]
    x: Float[Tensor, "token neuron"]
    """Activations on the second half."""
    ranks: Ranks


def _split(described: "TokenFeatures", stories: int, seed: int, shuffle: bool) -> list[_Half]:
    """Return two halves of the stories, with the features that are frequent enough in both."""
    in_second = np.zeros(stories, bool)
    in_second[np.random.default_rng(seed).permutation(stories)[stories // 2 :]] = True
    tokens = [np.flatnonzero(in_second[described.story] == half) for half in (False, True)]
    frequent = np.ones(len(described.names), bool)
    for half in tokens:
        count = described.values[half].sum(0)
        frequent &= (count >= LEAST) & (count <= len(half) - LEAST)
    if not frequent.any():
        raise InputError(f"No feature occurs on {LEAST} tokens of each half; give more stories.")
    names = tuple(name for name, kept in zip(described.names, frequent, strict=True) if kept)
    random = np.random.default_rng([seed, 1])
    halves = []
    for half in tokens:
        values = described.values[half][:, frequent]
        values = random.permutation(values) if shuffle else values
        halves.append(_Half(half, names, values, described.story[half]))
    return halves


def _activations(
    model: "HookedTransformer",
    layers: Sequence[int],
    texts: Sequence[str],
    story: Int[np.ndarray, " token"],
    seed: int,
) -> Iterator[Float[Tensor, "token neuron"]]:
    """Yield each layer's activations at all tokens of the stories; one pass reads as many layers as fit."""
    assert model.tokenizer is not None
    first_position, hook_name = int(model.tokenizer.bos_token_id is not None), SITES["neuron"].hook_name
    starts = np.searchsorted(story, np.arange(len(texts) + 1))
    with ready(model) as network:
        width = network.config.mlp_width
        size = max(1, AT_ONCE // (len(story) * width))
        for first in range(0, len(layers), size):
            tables = {
                hook_name(layer): torch.empty(len(story), width, dtype=network.dtype, device=network.device)
                for layer in layers[first : first + size]
            }
            for numbers, batch in numbered_batches(network, texts, seed):
                # A row is BOS, if there is one, then the text, whose tokens count whatever their ids are.
                spans = [(int(starts[number]), int(starts[number + 1])) for number in numbers]
                lengths = torch.tensor([stop - start for start, stop in spans])
                row = torch.repeat_interleave(torch.arange(len(spans)), lengths)
                pos = torch.cat([torch.arange(length) for length in lengths.tolist()]) + first_position
                token = torch.cat([torch.arange(*span) for span in spans])

                def store(
                    x: Tensor, hook: Any, tables: Any = tables, token: Any = token, at: Any = (row, pos)
                ):
                    tables[hook.name][token] = x[at]

                with network.hooks(fwd_hooks=[(name, store) for name in tables]):
                    network.stream(batch.tokens, attention_mask=batch.real, segments=batch.segments)
            for name in list(tables):
                yield tables.pop(name)


def _score(x: Float[Tensor, "token neuron"], halves: Sequence[_Half]) -> _Scores:
    parts = [x[torch.from_numpy(half.tokens).to(x.device)] for half in halves]
    ranks = [ranked(part) for part in parts]
    first, second = (aucs(rank, half.values) for rank, half in zip(ranks, halves, strict=True))
    return _Scores(first, second, parts[1], ranks[1])


def _best_features(scores: _Scores, usual: Float[np.ndarray, " feature"]) -> Int[np.ndarray, " neuron"]:
    return excess_over(scores.first, usual[:, None]).argmax(0)


def _held_out_excess(scores: _Scores, usual: Float[np.ndarray, " feature"]) -> Float[np.ndarray, " neuron"]:
    """Return the excess on the second half of the features that are best on the first."""
    best = _best_features(scores, usual)
    return excess_over(_pick(scores.second, best), usual[best])


def _test_labels(scores: _Scores, usual: Float[np.ndarray, " feature"], half: _Half) -> dict[str, np.ndarray]:
    """Test each neuron's best feature on the second half; p is of all features, [feature neuron]."""
    best = _best_features(scores, usual)
    auc = _pick(scores.second, best)
    error, precision = np.empty((2, len(best)))
    for feature in np.unique(best):
        labelled = best == feature
        neurons = torch.from_numpy(np.flatnonzero(labelled)).to(scores.x.device)
        ranks, inside = scores.ranks.ranks[neurons], half.values[:, feature]
        error[labelled] = clustered_errors(scores.x[:, neurons], ranks, inside, half.story)
        strongest = ranks > len(inside) - inside.sum()
        precision[labelled] = strongest[:, torch.from_numpy(inside)].double().sum(1).cpu() / inside.sum()
    low, high = (np.clip(auc + side * norm.ppf(0.975) * error, 0, 1) for side in (-1, 1))
    p = p_greater(scores.second, half.values.sum(0), scores.ranks)
    return dict(
        feature=best, chosen_auc=_pick(scores.first, best), auc=auc, low=low, high=high, p=p,
        precision=precision,
    )  # fmt: skip


def _pick(table: Float[np.ndarray, "feature neuron"], best: Int[np.ndarray, " neuron"]) -> np.ndarray:
    return np.take_along_axis(table, best[None], 0)[0]


# Features of tokens that need no model: the candidate labels.


_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_MARK = re.compile(r"[^\w\s]")
_QUOTES = '"“”'
_FOLLOWING = "next "


@dataclasses.dataclass(frozen=True)
class TokenFeatures:
    """True or false for each token and feature."""

    names: tuple[str, ...]
    """`word: cat`, `next word: cat`, `noun`, `next noun`, `inside a quotation`, ..."""
    values: Bool[np.ndarray, "token feature"]
    story: Int[np.ndarray, " token"]
    """The story of each token, ascending."""


def token_features(
    tokenizer: "PreTrainedTokenizerFast",
    stories: Sequence[str],
    *,
    n_ctx: int | None = None,
    words: int = 100,
    following: bool = True,
    least: int = 20,
) -> TokenFeatures:
    """Describe every token of some stories.

    The features of a word are assigned to its last token, where a causal model has read all of it; `next ...`
    is assigned to the token before the word.

    Args:
        tokenizer: of the model.
        stories: texts.
        n_ctx: context length; rows of BOS and the story are cut to it.
        words: number of most frequent words that are features.
        following: include features of the next word and punctuation mark.
        least: features that fewer tokens have, or lack, are excluded.
    """
    encoded = plain_encoder(tokenizer).encode_batch(list(stories), add_special_tokens=False)
    room = None if n_ctx is None else n_ctx - (tokenizer.bos_token_id is not None)
    people = set(find_names(stories))
    counts = Counter(word.lower() for text in stories for word in _WORD.findall(text))
    frequent = {word for word, _ in counts.most_common(words)}
    columns: dict[str, list[np.ndarray]] = defaultdict(list)
    lengths, start = [], 0
    for text, encoding in zip(stories, encoded, strict=True):
        offsets = np.array(encoding.offsets[:room], np.int64).reshape(-1, 2)
        for name, places in _describe(text, offsets, people, frequent, following).items():
            columns[name].append(np.asarray(places, np.int64) + start)
        lengths.append(len(offsets))
        start += len(offsets)
    tokens = {name: np.unique(np.concatenate(places)) for name, places in columns.items()}
    kept = [name for name, places in tokens.items() if least <= len(places) <= start - least]
    kept.sort(key=_plainness)
    values = np.zeros((start, len(kept)), bool)
    for column, name in enumerate(kept):
        values[tokens[name], column] = True
    return TokenFeatures(tuple(kept), values, np.repeat(np.arange(len(lengths)), lengths))


def _describe(
    text: str, offsets: Int[np.ndarray, "token 2"], people: set[str], frequent: set[str], following: bool
) -> dict[str, Any]:
    """Return the tokens that have each feature, for one story."""
    count, begin, end = len(offsets), offsets[:, 0], offsets[:, 1]
    ends = end.tolist()
    places: dict[str, Any] = defaultdict(list)

    def add(name: str, at: int) -> None:
        if 0 <= at < count:
            places[name].append(at)

    first_mention: dict[str, int] = {}
    mentions: Counter[str] = Counter()
    sentence_start = True
    for match in re.finditer(f"{_WORD.pattern}|{_MARK.pattern}|\n", text):
        piece = match.group()
        last = bisect_left(ends, match.end())  # the token that ends it
        before = bisect_right(ends, match.start()) - 1  # the token before it
        sides = [("", last)]
        if following and 0 <= before < count - 1:
            sides.append((_FOLLOWING, before))
        if piece == "\n":
            add("line break", last)
            continue
        if _MARK.fullmatch(piece):
            for side, at in sides:
                add(f"{side}mark: {piece}", at)
                if piece in ".!?":
                    add(f"{side}end of a sentence", at)
            add("punctuation", last)
            sentence_start = sentence_start or piece in ".!?"
            continue
        word = piece.lower()
        labels = [name for name, members in word_classes().items() if word in members]
        if word in frequent:
            labels.append(f"word: {word}")
        if piece in people:
            labels.append("name")
            first_mention.setdefault(piece, last)
            mentions[piece] += 1
        for side, at in sides:
            for label in labels:
                add(side + label, at)
        if sentence_start:
            add("first word of a sentence", last)
        sentence_start = False
    if mentions:
        protagonist = mentions.most_common(1)[0][0]
        add("first mention of the protagonist", first_mention[protagonist])
    places |= {name: np.flatnonzero(mask) for name, mask in _quotations(text, begin, end).items()}
    places["near the start of the story"] = range(min(NEAR, count))
    places["near the end of the story"] = range(max(0, count - NEAR), count)
    return places


def _quotations(
    text: str, begin: Int[np.ndarray, " token"], end: Int[np.ndarray, " token"]
) -> dict[str, Bool[np.ndarray, " token"]]:
    """Return the tokens that open, close, or are inside a quotation. A line break ends any quotation."""
    inside, opens, closes = np.zeros((3, len(text) + 1), bool)
    quoted = False
    for at, letter in enumerate(text):
        if letter in _QUOTES:
            quoted = letter == "“" or (letter == '"' and not quoted)
            (opens if quoted else closes)[at] = True
        elif letter == "\n":
            quoted = False
        else:
            inside[at] = quoted
    features = {"inside a quotation": inside[np.maximum(end - 1, 0)]}
    for name, marks in {"opening quotation mark": opens, "closing quotation mark": closes}.items():
        total = np.concatenate([[0], np.cumsum(marks)])
        features[name] = total[end] > total[begin]
    return features


def _plainness(name: str) -> tuple[bool, bool, str]:
    """Return a sort key by which, of two features that hold for the same tokens, the plainer comes first (a
    word before its class), because the first of equal AUCs is chosen."""
    plain = name.removeprefix(_FOLLOWING)
    return name != plain, not plain.startswith(("word: ", "mark: ")), plain

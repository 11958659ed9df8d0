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

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control, norm
from torch import Tensor

from workbench.errors import InputError, nearest
from workbench.evals.scoring import opened, ready
from workbench.interp.neurons.features import TokenFeatures, token_features
from workbench.interp.neurons.labels_result import NeuronLabels, excess_over
from workbench.interp.neurons.rank_tests import aucs, clustered_errors, p_greater, ranked
from workbench.interp.neurons.rows import counted_places, neuron_layers, numbered_batches
from workbench.interp.patching.sites import SITES
from workbench.interp.texts import own_stories
from workbench.interp.untrained import untrained_copy

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
    tokenizer, hook = opened(model)[2], SITES["neuron"].hook_name
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
                wanted = counted_places(batch, tokenizer, None)
                lengths = torch.tensor([len(places) for places in wanted])
                rows, places = torch.repeat_interleave(torch.arange(len(wanted)), lengths), torch.cat(wanted)
                where = torch.cat([torch.arange(starts[each], starts[each + 1]) for each in numbers])

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

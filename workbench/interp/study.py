"""The TinyStories paper's interpretability study (Eldan & Li 2023, arXiv:2305.07759, section 5) of any run,
with what it lacked: scores, uniform attention as the baseline, an untrained copy as the control, intervals,
ablation.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.data.tokenizer import plain_encoder
from workbench.errors import InputError
from workbench.evals.blimp import BlimpResult, blimp, decide
from workbench.evals.scoring import opened, ready
from workbench.interp.ablation import AblationResult, ablation_effect
from workbench.interp.components import SITES, find_components, layers_with, list_components
from workbench.interp.heads import (
    OTHER,
    HeadKinds,
    HeadScores,
    find_names,
    head_kinds,
    head_scores,
    name_ids,
    punctuation_ids,
    unigram_counts,
)
from workbench.interp.lens import LensLoss, lens_loss
from workbench.interp.matrix import ComponentMatrix, component_matrix
from workbench.interp.neurons.card import promoted_tokens
from workbench.interp.neurons.examples import NeuronExamples, neuron_examples
from workbench.interp.neurons.labels import NeuronLabels, label_neurons
from workbench.interp.texts import own_stories, story_rows, untrained_copy
from workbench.stats import Accuracy, Estimate, bootstrap_mean, bootstrap_ratio, generator

if TYPE_CHECKING:
    import pandas as pd


# The neuron that fires when the protagonist is first named (Eldan & Li 2023, arXiv:2305.07759, section 5.2),
# searched for instead of stumbled upon.
#
# Every neuron is a detector: its AUC is the probability that its activation is greater at a first mention
# than at another token, of two kinds: tokens nearby that are no mention, and later mentions of the same
# name, which tell a first-mention neuron from a name neuron. On one half of the stories the neuron is
# chosen whose worse AUC is best, on the other half it is judged, so that picking one of thousands flatters
# nothing. Two controls: the same search in an untrained copy, and the position alone, as first mentions
# come before later ones.


NEAR = 8
"""Other tokens are those at most so far from the first mention, so that position does not tell them."""
DRAWS = 1000


class Mentions(NamedTuple):
    """Token places in one story, counted from the start of its row."""

    tokens: Int[np.ndarray, " pos"]
    first: int
    """Last token of the protagonist's first mention."""
    later: tuple[int, ...]
    others: tuple[int, ...]
    """No mention."""


class Detector(NamedTuple):
    """A neuron judged on stories that it was not chosen on; AUC is 0.5 for chance."""

    label: str
    auc: float
    """First mentions against tokens nearby that are no mention."""
    low: float
    high: float
    """95 % bootstrap interval over stories."""
    later_auc: float
    """First mentions against later mentions of the same name."""
    later_low: float
    later_high: float


@dataclasses.dataclass(frozen=True)
class ProtagonistSearch:
    """What the search found."""

    layers: tuple[int, ...]
    chosen_auc: Float[np.ndarray, "layer neuron"]
    """The worse of each neuron's two AUCs, on the half that the choice was made on."""
    best: Detector
    """The neuron that was chosen, on the other half."""
    untrained: Detector
    """The same search in an untrained copy."""
    position: Detector
    """Minus the position as the detector."""
    stories: int
    """Stories with a protagonist that is named, in both halves together."""
    names: tuple[str, ...]
    """The protagonists, the most frequent first."""
    held_out: tuple[Mentions, ...]
    """The stories of the other half."""
    seed: int = 0

    axes = ("layer", "neuron")

    def to_frame(self) -> "pd.DataFrame":
        """The three detectors: what, label, auc, low, high, later_auc, later_low, later_high."""
        import pandas as pd

        rows = {"best": self.best, "untrained": self.untrained, "position": self.position}
        return pd.DataFrame([{"what": what} | found._asdict() for what, found in rows.items()])


def find_mentions(
    tokenizer: Any, stories: Sequence[str], names: Sequence[str], n_ctx: int
) -> tuple[list[Mentions], tuple[str, ...]]:
    """The protagonist of each story: the name that it has most often, the first such. Stories without any
    name are left out. A mention counts at the last token of the name, where it is known.

    Args:
        tokenizer: a `PreTrainedTokenizerFast`.
        stories: texts.
        names: what counts as a name.
        n_ctx: rows are cut to so many tokens.
    """
    known, encoder = set(names), plain_encoder(tokenizer)
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    found, heroes = [], Counter()
    for story, one in zip(
        stories, encoder.encode_batch(list(stories), add_special_tokens=False), strict=True
    ):
        words = [match for match in re.finditer(r"[A-Za-z]+", story) if match[0] in known]
        if not words:
            continue
        hero = Counter(match[0] for match in words).most_common(1)[0][0]
        ends = [match.end() for match in words if match[0] == hero]
        places = {end: at for at, (_, end) in enumerate(one.offsets)}
        at = [places[end] + len(start) for end in ends if end in places]
        at = [place for place in at if place < n_ctx]
        if not at:
            continue
        row = np.array((start + one.ids)[:n_ctx])
        near = range(max(len(start), at[0] - NEAR), min(len(row), at[0] + NEAR + 1))
        found.append(Mentions(row, at[0], tuple(at[1:]), tuple(sorted({*near} - {*at}))))
        heroes[hero] += 1
    return found, tuple(name for name, _ in heroes.most_common())


@torch.no_grad()
def find_protagonist_neuron(
    model: Any,
    stories: Sequence[str],
    names: Sequence[str],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ProtagonistSearch:
    """Search all neurons for a detector of the protagonist's first mention.

    Args:
        model: a run or a `HookedTransformer`.
        stories: texts; every other one is held out.
        names: names of people, as `workbench.interp.heads.token_sets.find_names` finds them.
        seed: of the intervals.
        progress: called with the stories read and in all.

    Raises:
        InputError: no MLP or tokenizer, or fewer than four stories with a name.
    """
    _, network, tokenizer = opened(model)
    layers = layers_with(network.config, SITES["neuron"])
    if tokenizer is None:
        raise InputError("the model has no tokenizer; names are looked for in text.")
    found, heroes = find_mentions(tokenizer, stories, names, network.config.n_ctx)
    if len(found) < 4:
        raise InputError(f"{len(found)} of the stories name somebody; the search needs four or more.")
    halves = found[0::2], found[1::2]
    searched: list[Any] = []
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, 2 * len(found))

    with ready(network) as network:
        for one in (network, untrained_copy(network)):
            read = [[_activations(one, layers, story, tick) for story in half] for half in halves]
            first, later, others = (np.concatenate(part) for part in zip(*read[0], strict=True))
            scores = np.minimum(_auc(first, others), _auc(first, later))
            best = int(scores.argmax())
            layer, neuron = divmod(best, network.config.mlp_width)
            held = [tuple(part[:, best] for part in story) for story in read[1]]
            searched.append((scores, _judged(f"L{layers[layer]}N{neuron}", held, seed)))
    place = [tuple(-np.atleast_1d(part).astype(float) for part in story[1:]) for story in halves[1]]
    return ProtagonistSearch(
        layers=tuple(layers),
        chosen_auc=searched[0][0].reshape(len(layers), -1),
        best=searched[0][1],
        untrained=searched[1][1],
        position=_judged("position", place, seed),
        stories=len(found),
        names=heroes,
        held_out=tuple(halves[1]),
        seed=seed,
    )


def _activations(
    model: Any, layers: Sequence[int], story: Mentions, tick: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At the first mention, at the later ones, elsewhere: [place neuron], layers side by side."""
    kept: dict[str, Tensor] = {}
    names = [SITES["neuron"].hook_name(layer) for layer in layers]
    with model.hooks(fwd_hooks=[(name, lambda x, hook: kept.update({hook.name: x[0]})) for name in names]):
        model.stream(torch.from_numpy(story.tokens)[None].to(model.device))
    x = torch.cat([kept[name] for name in names], -1).float().cpu().numpy()
    tick()
    return x[[story.first]], x[list(story.later)], x[list(story.others)]


def _auc(first: Float[np.ndarray, "n neuron"], others: Float[np.ndarray, "m neuron"]) -> np.ndarray:
    """Probability that a first is above another, ties half: Mann-Whitney's U over n m."""
    from scipy.stats import rankdata

    if not len(others):
        return np.full(first.shape[1], 0.5)
    ranks = rankdata(np.concatenate([first, others]), axis=0)[: len(first)].sum(0)
    return (ranks - len(first) * (len(first) + 1) / 2) / (len(first) * len(others))


def _judged(label: str, stories: Sequence[tuple[np.ndarray, ...]], seed: int) -> Detector:
    """AUC against other tokens and against later mentions, intervals by drawing stories again."""
    numbers: list[float] = []
    for which in (2, 1):
        usable = [story for story in stories if len(story[which])]
        if not usable:
            numbers += [np.nan] * 3
            continue
        # Wins of each story's first mention over each story's other tokens: a draw is a bilinear form of it.
        first = np.array([story[0][0] for story in usable])
        wins = np.stack(
            [
                ((first[:, None] > story[which]) + 0.5 * (first[:, None] == story[which])).sum(1)
                for story in usable
            ],
            1,
        )
        counts = np.array([len(story[which]) for story in usable])
        drawn = np.random.default_rng(seed).multinomial(
            len(usable), np.full(len(usable), 1 / len(usable)), DRAWS
        )
        drawn = np.concatenate([np.ones((1, len(usable)), dtype=np.int64), drawn])
        aucs = np.einsum("da,ab,db->d", drawn, wins, drawn) / (drawn.sum(1) * (drawn @ counts))
        numbers += [aucs[0], *np.quantile(aucs[1:], (0.025, 0.975))]
    return Detector(label, *(float(one) for one in numbers))


# Neurons as the TinyStories paper shows them (Eldan & Li 2023, arXiv:2305.07759, section 5.2): of the layer
# one before the last the first two and the one with the greatest total activation, painted into passages; and
# what the paper lacks: random neurons, random passages, and an untrained copy's neurons.


AROUND = 14
"""Tokens that a passage shows before its strongest; half as many behind."""
THRESHOLD = 0.5
"""Tokens count as lit from this share of the neuron's greatest activation on the text."""


@dataclasses.dataclass(frozen=True)
class Passage:
    """Some tokens of a text, and a neuron's activation at each."""

    kind: str
    """`top`, `random` or `first mention`."""
    tokens: tuple[str, ...]
    values: Float[np.ndarray, " pos"]


@dataclasses.dataclass(frozen=True)
class ShownNeuron:
    """One neuron with its passages."""

    label: str
    layer: int
    unit: int
    why: str
    """`first`, `second`, `greatest total`, `random` or `protagonist`."""
    trained: bool
    """Or of the untrained copy."""
    mean: float
    """Activation; over tokens that are not special."""
    active: float
    """Accuracy of those at which it is above 0."""
    greatest: float
    lit: float
    """Accuracy of tokens drawn at random at which it is above half of `greatest`."""
    passages: tuple[Passage, ...]
    promoted: tuple[str, ...]
    """Tokens whose logits it raises most."""


def paper_layer(config: Any) -> int:
    """The block whose neurons the paper shows: one before the last, or the only one with an MLP.

    Raises:
        InputError: the model has no MLP.
    """
    layers = layers_with(config, SITES["neuron"])
    return layers[-2] if len(layers) > 1 else layers[-1]


def show_neurons(
    model: Any,
    stories: Sequence[str],
    *,
    protagonist: ProtagonistSearch | None = None,
    count: int = 3,
    random: int = 2,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[ShownNeuron, ...]:
    """Choose neurons as the paper does, and their passages; then the same of an untrained copy.

    Args:
        model: a run or a `HookedTransformer`.
        stories: what is read.
        protagonist: shows the neuron that was found too, at the first mentions of held-out stories.
        count: passages of each neuron's best; one at random stands beside them.
        random: random neurons.
        seed: of what is random.
        progress: called with the models read and in all.

    Raises:
        InputError: the model has no MLP.
    """
    network = opened(model)[1]
    layer, width = paper_layer(network.config), network.config.mlp_width
    hero = None if protagonist is None else protagonist.best.label
    shown: list[ShownNeuron] = []
    with ready(network) as network:
        for trained in (True, False):
            one = network if trained else untrained_copy(network)
            own = find_components(network.config, hero) if hero and trained else ()
            layers = sorted({layer, *(part.place[0] for part in own)})
            found = neuron_examples(
                one, stories, layers=layers, count=count, random=1, seed=seed, progress=False
            )
            total = int(found.mean[layers.index(layer)].argmax())
            chosen = {f"L{layer}N0": "first"}
            chosen |= {f"L{layer}N1": "second"} if width > 1 else {}
            chosen[f"L{layer}N{total}"] = "greatest total"
            if trained:
                drawn = generator(seed, "neurons shown").permutation(width)
                names = [f"L{layer}N{unit}" for unit in drawn]
                chosen |= dict.fromkeys([name for name in names if name not in chosen][:random], "random")
                if hero and protagonist:
                    chosen[hero] = "protagonist"
            for name, why in chosen.items():
                held_out = protagonist.held_out[:count] if protagonist and why == "protagonist" else ()
                places = [(story.tokens.tolist(), story.first) for story in held_out]
                shown.append(_shown(one, found, name, why, trained, places))
            if progress is not None:
                progress(1 + (not trained), 2)
    return tuple(shown)


@torch.no_grad()
def _shown(
    model: Any,
    found: NeuronExamples,
    name: str,
    why: str,
    trained: bool,
    mentions: Sequence[tuple[list[int], int]],
) -> ShownNeuron:
    at, unit = found.part(name)
    layer = found.layers[at]
    passages = []
    places = [("first mention", *place) for place in mentions]
    places += [
        (example.kind, found.rows[example.row].tokens.tolist(), example.pos)
        for example in found.examples(name)
        if example.kind in ("top", "random")
    ]
    for kind, row, pos in places:
        start = max(0, pos - AROUND)
        window = row[: min(len(row), pos + AROUND // 2)]
        kept: list[torch.Tensor] = []
        hook = (SITES["neuron"].hook_name(layer), lambda x, hook, to=kept: to.append(x[0, :, unit]))
        with model.hooks(fwd_hooks=[hook]):
            model.stream(torch.tensor([row], device=model.device))
        values = kept[0][start : len(window)].double().cpu().numpy()
        words = [model.tokenizer.decode([token]) for token in window[start:]]
        passages.append(Passage(kind, tuple(words), values))
    greatest = float(found.max[at, unit])
    lit = found.sample_value[:, at, unit] > THRESHOLD * greatest if greatest > 0 else np.zeros(1)
    raised = promoted_tokens(model, layer, unit, 6).promoted
    return ShownNeuron(
        label=name,
        layer=layer,
        unit=unit,
        why=why,
        trained=trained,
        mean=float(found.mean[at, unit]),
        active=float(found.active[at, unit]),
        greatest=greatest,
        lit=float(np.mean(lit)),
        passages=tuple(passages),
        promoted=tuple(one.text for one in raised),
    )


# What a study found, and all of it as plain values: what study.json holds and the page is written from.


DIGITS = 6


class Sample(NamedTuple):
    """A story that the model wrote."""

    prompt: str
    text: str
    temperature: float
    seed: int


@dataclasses.dataclass(frozen=True)
class AttentionExample:
    """Attention of all heads of one layer on one paragraph."""

    layer: int
    tokens: tuple[str, ...]
    pattern: Float[np.ndarray, "head query_pos key_pos"]
    query: int
    """The query that is shown at first."""


@dataclasses.dataclass(frozen=True)
class Study:
    """A run taken apart. Parts that do not fit the model are None, and `omitted` says why."""

    run: str | None
    step: int | None
    config: dict[str, Any]
    parameters: int
    training: dict[str, Any]
    stories: int
    pairs: BlimpResult
    pairs_untrained: Accuracy
    sample: Sample | None
    heads: HeadScores | None
    kinds: HeadKinds | None
    attention: AttentionExample | None
    ablation: AblationResult
    """Each head, MLP and shown neuron zeroed alone."""
    neurons: tuple[ShownNeuron, ...]
    labels: NeuronLabels | None
    """Of the layers that the shown neurons are in."""
    protagonist: ProtagonistSearch | None
    matrix: ComponentMatrix | None
    """Components by paradigms of minimal pairs: direct attribution and ablation."""
    lens: LensLoss | None
    omitted: dict[str, str]
    quick: bool
    seed: int

    axes = ("component",)

    def to_frame(self) -> "pd.DataFrame":
        """One row a component: the effects of ablating it, and of a head its class, kind and scores."""
        import pandas as pd

        frame = self.ablation.to_frame()
        heads = pd.DataFrame(self._heads())
        if len(heads):
            heads = heads.drop(columns=["loss", "accuracy"]).rename(columns={"head": "component"})
            frame = frame.merge(heads, on="component", how="left")
        return frame

    def plot(self, ax: Any = None) -> Any:
        """Draw the rise in loss without each component and return the figure."""
        return self.ablation.plot(ax)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, six digits of each number; None where there is none."""
        table = self.ablation.loss
        assert table is not None
        base = _interval(bootstrap_ratio(table.base, table.tokens, self.seed))
        uniform = math.log(self.config["d_vocab"])
        overall = self.pairs.overall.micro
        found: dict[str, Any] = {
            "run": self.run,
            "step": self.step,
            "stories": self.stories,
            "quick": self.quick,
            "seed": self.seed,
            "model": {"parameters": self.parameters, "config": self.config},
            "training": self.training,
            "loss": base
            | {"tokens": int(table.tokens.sum()), "stories": len(table.tokens), "uniform": uniform},
            "pairs": {
                "title": self.pairs.title,
                "value": overall.accuracy, "low": overall.low, "high": overall.high, "n": overall.n,
                "chance": 0.5,
                "untrained": self.pairs_untrained.accuracy,
                "untrained_low": self.pairs_untrained.low, "untrained_high": self.pairs_untrained.high,
                "paradigms": [
                    {"paradigm": row["paradigm"], "n": row["n"], "value": row["accuracy"], "low": row["low"],
                     "high": row["high"]}
                    for row in self.pairs.paradigms.reset_index().to_dict("records")
                ],
            },
            "sample": None if self.sample is None else self.sample._asdict(),
            "heads": self._heads(),
            "kinds": None if self.kinds is None else Counter(self.kinds.kinds.ravel().tolist()),
            "copying_untrained": None
            if self.heads is None
            else {"low": self.heads.copying_untrained.min(), "high": self.heads.copying_untrained.max()},
            "copies": {kind: one.to_dict() for kind, one in getattr(self.heads, "copies", {}).items()},
            "attention": None if self.attention is None else self._attention(),
            "ablation": [
                self._effect(index) | {"component": name} for index, name in enumerate(self.ablation.names)
            ],
            "neurons": [self._neuron(one) for one in self.neurons],
            "labels": None if self.labels is None else self._labels(self.labels),
            "protagonist": None if self.protagonist is None else self._protagonist(self.protagonist),
            "matrix": None if self.matrix is None else self._matrix(self.matrix),
            "lens": None
            if self.lens is None
            else [
                {"point": point, "loss": loss, "kl": kl, "agreement": agreement}
                for point, loss, kl, agreement in zip(
                    self.lens.points, self.lens.loss, self.lens.kl, self.lens.agreement, strict=True
                )
            ],
            "omitted": self.omitted,
        }  # fmt: skip
        return _plain(found)

    def _effect(self, index: int) -> dict[str, Any]:
        """What the model loses without a component: loss, and decisions on pairs if the matrix has it."""
        name, found = self.ablation.names[index], None
        if self.matrix is not None and name in self.matrix.labels:
            pairs, effect = self.matrix.pairs, self.matrix.effects["ablate"]
            margin = pairs.margin.to_numpy() - effect[:, self.matrix.labels.index(name)]
            after = decide(margin, np.zeros_like(margin), 0.5)
            found = _interval(bootstrap_mean(after - pairs.correct.to_numpy(), seed=self.seed))
        return {"loss": _interval(self.ablation.loss_intervals[index]), "accuracy": found}

    def _effects_of(self, name: str) -> dict[str, Any]:
        names = self.ablation.names
        return self._effect(names.index(name)) if name in names else {"loss": None, "accuracy": None}

    def _heads(self) -> list[dict[str, Any]]:
        """A row for each head: its class with the score that it is called by (the one that comes nearest, if
        it is none), what it goes by, and the effects of its ablation."""
        if self.heads is None:
            return []
        found, rows = self.heads, []
        excess, base, score = found.excess, found.baseline, found.scores
        measures = {}
        if self.kinds is not None:
            frame: Any = self.kinds.to_frame()
            for row in frame.rename(columns={"nats": "value"}).to_dict("records"):
                found_in = {name: row[name] for name in ("value", "low", "high", "untrained")}
                measures[row["layer"], row["head"], row["measure"]] = found_in
        for at, head in np.ndindex(found.copying.shape):
            layer, best = int(found.layers[at]), int(excess[:, at, head].argmax())
            name = f"L{layer}H{head}"
            kind = found.classes[at, head]
            rows.append(
                {
                    "head": name,
                    "class": kind,
                    "called": kind != OTHER,
                    "score": found.names[best],
                    "value": score.value[best, at, head],
                    "low": score.low[best, at, head],
                    "high": score.high[best, at, head],
                    "uniform": score.uniform[best, at],
                    "untrained": score.untrained[best, at, head],
                    "baseline": base[best, at, head],
                    "excess": excess[best, at, head],
                    "copying": found.copying[at, head],
                    "offsets": [
                        {"offset": int(offset), "value": value}
                        for offset, value in zip(found.offsets, found.profile.value[:, at, head], strict=True)
                    ],
                    "kind": None if self.kinds is None else self.kinds.kinds[at, head],
                    **{m: measures.get((layer, head, m)) for m in ("total", "distance", "token")},
                    **self._effects_of(name),
                }
            )
        return rows

    def _attention(self) -> dict[str, Any]:
        shown = self.attention
        assert shown is not None
        return {
            "layer": shown.layer,
            "tokens": list(shown.tokens),
            "query": shown.query,
            "pattern": [[[round(float(x), 3) for x in row] for row in head] for head in shown.pattern],
        }

    def _neuron(self, one: ShownNeuron) -> dict[str, Any]:
        found = dataclasses.asdict(one)
        for passage in found["passages"]:
            passage["values"] = [round(float(x), 3) for x in passage["values"]]
        effects = self._effects_of(one.label) if one.trained else {"loss": None, "accuracy": None}
        return found | effects | {"finding": self._finding(one), "threshold": THRESHOLD * one.greatest}

    def _finding(self, one: ShownNeuron) -> dict[str, Any] | None:
        """The best label of a neuron, and whether it holds."""
        found = self.labels
        if found is None or not one.trained:
            return None
        at = found.layers.index(one.layer), one.unit
        return {
            "feature": found.features[found.feature[at]], "auc": found.auc[at], "low": found.low[at],
            "high": found.high[at], "usual": found.usual[found.feature[at]], "holds": bool(found.passed[at]),
        }  # fmt: skip

    @staticmethod
    def _labels(found: NeuronLabels) -> dict[str, Any]:
        return {
            "layers": list(found.layers),
            "neurons": found.passed.size,
            "hold": int(found.passed.sum()),
            "untrained": None if found.untrained is None else found.alpha,
            "least_auc": found.least_auc,
        }

    @staticmethod
    def _protagonist(search: ProtagonistSearch) -> dict[str, Any]:
        return {
            "stories": search.stories,
            "held_out": search.stories // 2,
            "neurons": search.chosen_auc.size,
            "names": list(search.names[:8]),
            **{name: getattr(search, name)._asdict() for name in ("best", "untrained", "position")},
        }

    @staticmethod
    def _matrix(found: ComponentMatrix) -> dict[str, Any]:
        frame: Any = found.to_frame().rename(columns={"effect": "value"})
        columns = ["method", "paradigm", "component", "n", "value", "low", "high", "lost", "gained"]
        return {
            "components": list(found.labels),
            "paradigms": list(found.paradigms),
            "pairs": len(found.pairs),
            "rows": frame[columns].to_dict("records"),
        }


def _interval(change: Estimate) -> dict[str, float]:
    return {"value": change.mean, "low": change.low, "high": change.high}


def _plain(value: Any) -> Any:
    """Numbers of JSON, six digits each; None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


STORIES, QUICK_STORIES = 100, 24
ABLATED = 50
"""Stories that the loss is measured on; a difference on the same text needs fewer."""
SCORED, QUICK_SCORED = 100, 10
"""Pairs of each paradigm that are scored."""
PAIRS, QUICK_PAIRS = 20, 4
"""Pairs of each paradigm that components are taken out of."""
PARAGRAPH = 56
"""Tokens of the attention picture."""
STAGES = {
    "pairs": 4, "sample": 1, "heads": 22, "kinds": 16, "protagonist": 9, "neurons": 7, "labels": 9,
    "ablation": 20, "matrix": 8, "lens": 5,
}  # fmt: skip
"""What is done, and about which share of the time it takes."""


def study(
    model: Any,
    stories: Sequence[str] | None = None,
    *,
    pairs: Any = None,
    names: Sequence[str] | None = None,
    limit: int | None = None,
    quick: bool = False,
    prompt: str = "Once upon a time",
    seed: int = 0,
    progress: Callable[[float, str], None] = lambda share, stage: None,
) -> Study:
    """Take a model apart as the paper does.

    Args:
        model: a run or a `HookedTransformer` with its tokenizer; causal or masked.
        stories: text that the model was not trained on; the run's own validation stories if not set.
        pairs: minimal pairs, as `workbench.evals.blimp.blimp` takes them.
        names: of people, for the name heads and the protagonist; found in the stories if not set.
        limit: pairs of each paradigm for ablation and direct attribution.
        quick: few stories and pairs: wide intervals in a fifth of the time.
        prompt: how the sample story begins.
        seed: of all that is random.
        progress: told the share of the work done and the stage.

    Raises:
        InputError: fewer than four stories, no tokenizer, or pairs that the model cannot score.
    """
    run, network, tokenizer = opened(model)
    if tokenizer is None:
        raise InputError("the model has no tokenizer; a study reads stories.")
    count = QUICK_STORIES if quick else STORIES
    texts = list(own_stories(run, "validation", count) if stories is None else stories[:count])
    if len(texts) < 4:
        raise InputError(f"a study needs four stories or more; found {len(texts)}.")
    limit = limit or (QUICK_PAIRS if quick else PAIRS)
    config, omitted = network.config, {}
    rows = story_rows(tokenizer, texts, config.n_ctx, end=False)
    people = list(names or find_names(texts))
    at = _Stages(progress)

    def attempt(stage: str, make: Callable[[], Any]) -> Any:
        """What is there, or why not."""
        at.begin(stage)
        try:
            return make()
        except InputError as error:
            omitted[stage] = str(error)
            return None

    at.begin("pairs")
    with ready(network) as network:
        subject = model if run is not None else network
        most = max(limit, QUICK_SCORED if quick else SCORED)
        scored = blimp(subject, pairs, limit=most, progress=at.counted)
        control = blimp(untrained_copy(network), pairs, limit=limit).overall.micro
        sample = attempt("sample", lambda: _sample(network, prompt, seed))
        heads = attempt(
            "heads",
            lambda: head_scores(
                network, rows, punctuation=punctuation_ids(tokenizer), names=name_ids(tokenizer, people),
                unigram=unigram_counts(rows, config.d_vocab), seed=seed, tick=at.share,
            ),
        )  # fmt: skip
        kinds = attention = None
        if heads is not None:
            kinds = attempt("kinds", lambda: head_kinds(network, rows, seed=seed, progress=at.counted))
            attention = _attention(network, tokenizer, texts, people, int(heads.layers[-1]))
        hero = attempt(
            "protagonist",
            lambda: find_protagonist_neuron(network, texts, people, seed=seed, progress=at.counted),
        )
        neurons = attempt(
            "neurons",
            lambda: show_neurons(network, texts, protagonist=hero, seed=seed, progress=at.counted),
        )
        labels = attempt(
            "labels",
            lambda: label_neurons(
                network, texts, layers=_layers_of(neurons), seed=seed, progress=at.on_progress
            ),
        )  # fmt: skip
        at.begin("ablation")
        parts = {part.label: [part] for part in list_components(config)}
        parts |= {one.label: [one.label] for one in neurons or () if one.trained}
        ablation = ablation_effect(
            subject, parts, text=texts[:ABLATED], measure="loss", seed=seed, progress=at.on_progress
        )
        matrix = attempt(
            "matrix",
            lambda: component_matrix(
                subject, pairs, limit=limit, methods=("direct", "ablate"), how="zero", seed=seed,
                progress=at.on_progress,
            ),
        )  # fmt: skip
        lens = attempt("lens", lambda: lens_loss(network, texts, seed=seed))
    at.progress(1.0, "done")
    return Study(
        run=None if run is None else run.name,
        step=None if run is None else run.step,
        config=config.to_dict(),
        parameters=config.n_params,
        training=_training(run),
        stories=len(texts),
        pairs=scored,
        pairs_untrained=control,
        sample=sample,
        heads=heads,
        kinds=kinds,
        attention=attention,
        ablation=ablation,
        neurons=neurons or (),
        labels=labels,
        protagonist=hero,
        matrix=matrix,
        lens=lens,
        omitted=omitted,
        quick=quick,
        seed=seed,
    )


def _layers_of(neurons: Sequence[ShownNeuron] | None) -> list[int]:
    """Blocks of the trained neurons that are shown."""
    if not neurons:
        raise InputError("the model has no neurons.")
    return sorted({one.layer for one in neurons if one.trained})


class _Stages:
    """One share of the whole out of the shares of stages."""

    def __init__(self, progress: Callable[[float, str], None]) -> None:
        self.progress, self.stage, self.before = progress, "", 0.0

    def begin(self, stage: str) -> None:
        names, total = list(STAGES), sum(STAGES.values())
        self.before = sum(STAGES[name] for name in names[: names.index(stage)]) / total
        self.stage = stage
        self.progress(self.before, stage)

    def share(self, share: float) -> None:
        self.progress(self.before + share * STAGES[self.stage] / sum(STAGES.values()), self.stage)

    def counted(self, done: int, total: int) -> None:
        self.share(done / max(1, total))

    def on_progress(self, fraction: float, message: str) -> None:
        self.share(fraction)


def _sample(model: Any, prompt: str, seed: int) -> Sample:
    room = model.config.n_ctx - 1
    text = model.generate(prompt, max_new_tokens=min(160, room), temperature=0.8, seed=seed)
    return Sample(prompt, str(text), 0.8, seed)


@torch.no_grad()
def _attention(
    model: Any, tokenizer: Any, stories: Sequence[str], names: Sequence[str], layer: int
) -> AttentionExample:
    """A layer's heads on the beginning of the story that says names again most often; shown is the
    query before the last such mention."""
    best: tuple[int, list[int], int] = (-1, [], 0)
    ids = set(name_ids(tokenizer, names))
    for row in story_rows(tokenizer, stories, min(PARAGRAPH, model.config.n_ctx), end=False):
        said = [place for place, token in enumerate(row) if token in ids]
        last = [place for place in said if row[place] in [row[one] for one in said if one < place]]
        if last and len(last) > best[0]:
            best = (len(last), row, last[-1] - 1)
        elif len(row) > 1 and best[0] < 0:
            best = (0, row, len(row) - 1)
    _, row, query = best
    kept: list[torch.Tensor] = []
    hook = (f"blocks.{layer}.attn.hook_pattern", lambda x, hook: kept.append(x[0]))
    with model.hooks(fwd_hooks=[hook]):
        model.stream(torch.tensor([row], device=model.device))
    return AttentionExample(
        layer=layer,
        tokens=tuple(tokenizer.decode([token]) for token in row),
        pattern=kept[0].double().cpu().numpy(),
        query=query,
    )


def _training(run: Any) -> dict[str, Any]:
    """What the run's files say of its training: data, tokens, minutes, the curve of the validation loss."""
    if run is None:
        return {}
    card, state = run.data_card, run.checkpoint.state
    found: dict[str, Any] = {
        "data": card.get("name"),
        "imported_from": card.get("imported_from"),
        "tokens_seen": state.get("tokens_seen"),
        "minutes": None if state.get("seconds_trained") is None else state["seconds_trained"] / 60,
    }
    rows = run.metrics
    if "kind" in rows:
        rows = rows[(rows["kind"] == "eval") & (rows["step"] <= run.step)]
        found["curve"] = [
            {"step": int(row["step"]), "loss": float(row["loss"])} for row in rows.to_dict("records")
        ]
        if len(rows) and "bits_per_byte" in rows:
            found["bits_per_byte"] = float(np.asarray(rows["bits_per_byte"])[-1])
    return found

"""The TinyStories paper's interpretability study (Eldan & Li 2023, arXiv:2305.07759, section 5) for any run.

Added to the paper: scores, uniform attention as a baseline, an untrained copy as a control, intervals and
ablation. The command `workbench study` writes the result as study.json and as a page.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from workbench.console import OnProgress, progress_bar
from workbench.data.tokenizer import token_texts
from workbench.errors import InputError
from workbench.evals.blimp import BlimpResult, blimp, decide
from workbench.evals.scoring import ready
from workbench.interp.ablation import AblationResult, ablation_effect
from workbench.interp.components import SITES, Component, layers_with, list_components, split_names
from workbench.interp.head_kinds import HeadKinds, head_kinds
from workbench.interp.heads import OTHER, HeadScores, find_names, name_ids, story_head_scores
from workbench.interp.lens import LensLoss, lens_loss
from workbench.interp.matrix import ComponentMatrix, component_matrix
from workbench.interp.neurons.card import activations_along
from workbench.interp.neurons.examples import NeuronExamples, Row, neuron_examples, parse_neuron
from workbench.interp.neurons.labels import NeuronLabels, label_neurons
from workbench.interp.neurons.protagonist import ProtagonistSearch, find_protagonist_neuron
from workbench.interp.neurons.tokens import promoted_tokens
from workbench.interp.texts import own_stories, story_rows, untrained_copy
from workbench.result import Result
from workbench.runs.run import ModelLike, open_model
from workbench.stats import Accuracy, Estimate, bootstrap_mean, bootstrap_ratio, generator

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from transformers import PreTrainedTokenizerFast

    from workbench.model.config import ModelConfig
    from workbench.model.transformer import HookedTransformer
    from workbench.runs.run import Run

STORIES, QUICK_STORIES = 100, 24
ABLATED = 50
"""Stories for the loss of ablations; a difference on the same text needs fewer."""
SCORED, QUICK_SCORED = 100, 10
"""Pairs of each paradigm that are scored."""
PAIRS, QUICK_PAIRS = 20, 4
"""Pairs of each paradigm that components are ablated on."""
PARAGRAPH = 56
"""Tokens of the attention example."""
BEFORE, AFTER = 14, 7
"""Tokens shown around the one that a passage is about."""
THRESHOLD = 0.5
"""Tokens are highlighted above this fraction of the neuron's largest activation."""
DIGITS = 6
"""Significant digits in study.json."""
STAGES = {
    "pairs": 4, "sample": 1, "heads": 22, "kinds": 16, "protagonist": 9, "neurons": 7, "labels": 9,
    "ablation": 20, "matrix": 8, "lens": 5,
}  # fmt: skip
"""The stages of a study and about how much of the time each takes."""


class Sample(NamedTuple):
    """A story that the model generated."""

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
    """The query position that is shown first."""


@dataclasses.dataclass(frozen=True)
class Passage:
    """Some tokens of a text and a neuron's activation at each."""

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
    """False for a neuron of the untrained copy."""
    mean: float
    """Mean activation over text tokens."""
    active: float
    """Fraction of text tokens with an activation above 0."""
    greatest: float
    lit: float
    """Fraction of sampled tokens above half of `greatest`."""
    passages: tuple[Passage, ...]
    promoted: tuple[str, ...]
    """Tokens whose logits it raises most."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Study(Result):
    """All results of a study. Parts that do not apply to the model are None, with the reason in `omitted`."""

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
    """Zero ablation of each head, MLP and shown neuron alone."""
    neurons: tuple[ShownNeuron, ...]
    labels: NeuronLabels | None
    """Of the layers of the shown neurons."""
    protagonist: ProtagonistSearch | None
    matrix: ComponentMatrix | None
    """Components by paradigms of minimal pairs: direct attribution and ablation."""
    lens: LensLoss | None
    omitted: dict[str, str]
    quick: bool
    seed: int

    axes = ("component",)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per component: the effects of its ablation, and class, kind and scores of heads."""
        import pandas as pd

        frame = self.ablation.to_frame()
        heads = pd.DataFrame(self._heads())
        if len(heads):
            heads = heads.drop(columns=["loss", "accuracy"]).rename(columns={"head": "component"})
            frame = frame.merge(heads, on="component", how="left")
        return frame

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the rise in loss without each component and return the figure."""
        return self.ablation.plot(ax)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of study.json: plain values of six digits, None for missing ones."""
        table = self.ablation.loss
        assert table is not None
        overall, untrained = self.pairs.overall.micro, self.pairs_untrained
        paradigms: Any = self.pairs.paradigms.reset_index().rename(columns={"accuracy": "value"})
        values: dict[str, Any] = {
            "run": self.run,
            "step": self.step,
            "stories": self.stories,
            "quick": self.quick,
            "seed": self.seed,
            "model": {"parameters": self.parameters, "config": self.config},
            "training": self.training,
            "loss": {
                **_interval(bootstrap_ratio(table.base, table.tokens, self.seed)),
                "tokens": int(table.tokens.sum()),
                "stories": len(table.tokens),
                "uniform": math.log(self.config["d_vocab"]),
            },
            "pairs": {
                "title": self.pairs.title,
                "value": overall.accuracy,
                "low": overall.low,
                "high": overall.high,
                "n": overall.n,
                "chance": 0.5,
                "untrained": untrained.accuracy,
                "untrained_low": untrained.low,
                "untrained_high": untrained.high,
                "paradigms": paradigms[["paradigm", "n", "value", "low", "high"]].to_dict("records"),
            },
            "sample": None if self.sample is None else self.sample._asdict(),
            "heads": self._heads(),
            "kinds": None if self.kinds is None else Counter(self.kinds.kinds.ravel().tolist()),
            "copying_untrained": None,
            "copies": {},
            "attention": None if self.attention is None else _attention_values(self.attention),
            "ablation": [{**self._effects(name), "component": name} for name in self.ablation.names],
            "neurons": [self._neuron(neuron) for neuron in self.neurons],
            "labels": None if self.labels is None else _labels_values(self.labels),
            "protagonist": None if self.protagonist is None else _protagonist_values(self.protagonist),
            "matrix": None if self.matrix is None else _matrix_values(self.matrix),
            "lens": None if self.lens is None else _lens_values(self.lens),
            "omitted": self.omitted,
        }
        if self.heads is not None:
            copying = self.heads.copying_untrained
            values["copying_untrained"] = {"low": copying.min(), "high": copying.max()}
            values["copies"] = {kind: gain.to_dict() for kind, gain in self.heads.copies.items()}
        return _plain(values)

    def _effects(self, name: str) -> dict[str, Any]:
        """Return what ablating a component changes: loss, and accuracy on pairs if the matrix has it."""
        if name not in self.ablation.names:
            return {"loss": None, "accuracy": None}
        loss, accuracy = self.ablation.loss_intervals[self.ablation.names.index(name)], None
        if self.matrix is not None and name in self.matrix.labels:
            pairs, effect = self.matrix.pairs, self.matrix.effects["ablate"]
            margin = pairs.margin.to_numpy() - effect[:, self.matrix.labels.index(name)]
            correct = decide(margin, np.zeros_like(margin), 0.5)
            accuracy = _interval(bootstrap_mean(correct - pairs.correct.to_numpy(), seed=self.seed))
        return {"loss": _interval(loss), "accuracy": accuracy}

    def _heads(self) -> list[dict[str, Any]]:
        """Return one row per head: class, the score with the largest excess, kind, and ablation effects."""
        if self.heads is None:
            return []
        heads, score, rows = self.heads, self.heads.scores, []
        measures = {}
        if self.kinds is not None:
            kinds = self.kinds.to_frame().rename(columns={"nats": "value"})
            columns = ["value", "low", "high", "untrained"]
            for row in kinds.to_dict("records"):
                measures[row["layer"], row["head"], row["measure"]] = {name: row[name] for name in columns}
        for at, head in np.ndindex(heads.copying.shape):
            layer, best = int(heads.layers[at]), int(heads.excess[:, at, head].argmax())
            profile = zip(heads.offsets, heads.profile.value[:, at, head], strict=True)
            rows.append(
                {
                    "head": f"L{layer}H{head}",
                    "class": heads.classes[at, head],
                    "called": heads.classes[at, head] != OTHER,
                    "score": heads.names[best],
                    "value": score.value[best, at, head],
                    "low": score.low[best, at, head],
                    "high": score.high[best, at, head],
                    "uniform": score.uniform[best, at],
                    "untrained": score.untrained[best, at, head],
                    "baseline": heads.baseline[best, at, head],
                    "excess": heads.excess[best, at, head],
                    "copying": heads.copying[at, head],
                    "offsets": [{"offset": int(offset), "value": value} for offset, value in profile],
                    "kind": None if self.kinds is None else self.kinds.kinds[at, head],
                    **{name: measures.get((layer, head, name)) for name in ("total", "distance", "token")},
                    **self._effects(f"L{layer}H{head}"),
                }
            )
        return rows

    def _neuron(self, neuron: ShownNeuron) -> dict[str, Any]:
        values = dataclasses.asdict(neuron)
        for passage in values["passages"]:
            passage["values"] = [round(float(value), 3) for value in passage["values"]]
        effects = self._effects(neuron.label if neuron.trained else "")
        return values | effects | {"finding": self._label(neuron), "threshold": THRESHOLD * neuron.greatest}

    def _label(self, neuron: ShownNeuron) -> dict[str, Any] | None:
        """Return the best label of a neuron and whether it holds."""
        labels = self.labels
        if labels is None or not neuron.trained:
            return None
        at = labels.index(neuron.layer), neuron.unit
        return {
            "feature": labels.features[labels.feature[at]],
            "auc": labels.auc[at],
            "low": labels.low[at],
            "high": labels.high[at],
            "usual": labels.usual[labels.feature[at]],
            "holds": bool(labels.passed[at]),
        }


def study(
    model: ModelLike,
    stories: Sequence[str] | None = None,
    *,
    pairs: Any = None,
    names: str | Sequence[str] | None = None,
    limit: int | None = None,
    quick: bool = False,
    prompt: str = "Once upon a time",
    seed: int = 0,
    progress: bool | OnProgress | None = None,
) -> Study:
    """Study a model's heads, neurons and components as the TinyStories paper does, with controls.

    Args:
        model: a run or a `HookedTransformer` with its tokenizer, causal or masked, or the name of a run.
        stories: text that the model was not trained on; the run's own validation stories if not set.
        pairs: minimal pairs, as for `workbench.evals.blimp.blimp`.
        names: names of people, for the name heads and the protagonist; found in the stories if not set.
        limit: pairs of each paradigm for ablation and direct attribution.
        quick: use few stories and pairs: wide intervals in a fifth of the time.
        prompt: beginning of the sample story.
        seed: of everything random.
        progress: see `progress_bar`; the messages are the names of `STAGES`, then `done`.

    Raises:
        InputError: fewer than four stories, no tokenizer, or pairs that the model cannot score.
    """
    run, network, tokenizer = open_model(model)
    if tokenizer is None:
        raise InputError("The model has no tokenizer, which a study needs to read stories.")
    count = QUICK_STORIES if quick else STORIES
    texts = list(own_stories(run, "validation", count) if stories is None else stories[:count])
    if len(texts) < 4:
        raise InputError(f"A study needs four stories or more; found {len(texts)}.")
    limit = limit or (QUICK_PAIRS if quick else PAIRS)
    config, omitted = network.config, {}
    people = split_names(names or find_names(texts))

    with progress_bar(progress, "Study") as on_progress, ready(network) as network:
        stages = _Stages(on_progress)

        def attempt(stage: str, function: Callable[..., Any], **options: Any) -> Any:
            """Return the result of a stage, or record in `omitted` why the model has none."""
            stages.begin(stage)
            try:
                return function(network, **options)
            except InputError as error:
                omitted[stage] = str(error)
                return None

        subject = model if run is not None else network
        stages.begin("pairs")
        most = max(limit, QUICK_SCORED if quick else SCORED)
        scored = blimp(subject, pairs, limit=most, progress=stages.on_progress)
        control = blimp(untrained_copy(network), pairs, limit=limit, progress=False).overall.micro
        sample = attempt("sample", _sample, prompt=prompt, seed=seed)
        heads = attempt(
            "heads", story_head_scores, stories=texts, names=people, seed=seed, progress=stages.on_progress
        )
        kinds = attention = None
        if heads is not None:
            rows = story_rows(tokenizer, texts, config.n_ctx, end=False)
            kinds = attempt("kinds", head_kinds, sequences=rows, seed=seed, progress=stages.on_progress)
            attention = _attention(network, tokenizer, texts, people, int(heads.layers[-1]))
        protagonist = attempt(
            "protagonist", find_protagonist_neuron, stories=texts, names=people, seed=seed,
            progress=stages.on_progress,
        )  # fmt: skip
        neurons = attempt(
            "neurons", show_neurons, stories=texts, protagonist=protagonist, seed=seed,
            progress=stages.on_progress,
        )  # fmt: skip
        labels = attempt(
            "labels", _labels, stories=texts, neurons=neurons, seed=seed, progress=stages.on_progress
        )
        stages.begin("ablation")
        parts = {component.label: [component] for component in list_components(config)}
        parts |= {neuron.label: [neuron.label] for neuron in neurons or () if neuron.trained}
        ablation = ablation_effect(
            subject, parts, text=texts[:ABLATED], measure=("loss",), seed=seed, progress=stages.on_progress
        )
        matrix = attempt(
            "matrix",
            lambda _: component_matrix(
                subject, pairs, limit=limit, methods=("direct", "ablate"), how="zero", seed=seed,
                progress=stages.on_progress,
            ),
        )  # fmt: skip
        lens = attempt("lens", lens_loss, text=texts, seed=seed)
        on_progress(1.0, "done")
    return Study(
        run=None if run is None else run.name,
        step=None if run is None else run.step,
        config=config.to_dict(),
        parameters=config.n_params,
        training={} if run is None else _training(run),
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
        protagonist=protagonist,
        matrix=matrix,
        lens=lens,
        omitted=omitted,
        quick=quick,
        seed=seed,
    )


class _Stages:
    """Turns the progress of each stage into the progress of the whole study."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._report, self._stage, self._before = on_progress, "", 0.0
        self._total = sum(STAGES.values())

    def begin(self, stage: str) -> None:
        names = list(STAGES)
        self._before = sum(STAGES[name] for name in names[: names.index(stage)]) / self._total
        self._stage = stage
        self._report(self._before, stage)

    def fraction(self, fraction: float) -> None:
        self._report(self._before + fraction * STAGES[self._stage] / self._total, self._stage)

    def on_progress(self, fraction: float, message: str) -> None:
        self.fraction(fraction)


def _sample(model: "HookedTransformer", prompt: str, seed: int) -> Sample:
    count = min(160, model.config.n_ctx - 1)
    text = model.generate(prompt, max_new_tokens=count, temperature=0.8, seed=seed)
    return Sample(prompt, str(text), 0.8, seed)


@torch.no_grad()
def _attention(
    model: "HookedTransformer",
    tokenizer: "PreTrainedTokenizerFast",
    stories: Sequence[str],
    names: Sequence[str],
    layer: int,
) -> AttentionExample:
    """Return a layer's attention on the beginning of the story that repeats names most often; the query shown
    first is the one before the last repeated name."""
    best: tuple[int, list[int], int] = (-1, [], 0)
    ids = set(name_ids(tokenizer, names))
    for row in story_rows(tokenizer, stories, min(PARAGRAPH, model.config.n_ctx), end=False):
        mentions = [pos for pos, token in enumerate(row) if token in ids]
        repeated = [pos for pos in mentions if row[pos] in [row[other] for other in mentions if other < pos]]
        if repeated and len(repeated) > best[0]:
            best = (len(repeated), row, repeated[-1] - 1)
        elif len(row) > 1 and best[0] < 0:
            best = (0, row, len(row) - 1)
    _, row, query = best
    kept: list[torch.Tensor] = []
    hook = (f"blocks.{layer}.attn.hook_pattern", lambda x, hook: kept.append(x[0]))
    with model.hooks(fwd_hooks=[hook]):
        model.stream(torch.tensor([row], device=model.device))
    pattern = kept[0].double().cpu().numpy()
    return AttentionExample(layer, tuple(token_texts(tokenizer, row)), pattern, query)


def _labels(
    model: "HookedTransformer",
    stories: Sequence[str],
    neurons: Sequence[ShownNeuron] | None,
    seed: int,
    progress: OnProgress,
) -> NeuronLabels:
    """Label the neurons of the blocks whose neurons are shown."""
    if not neurons:
        raise InputError("The model has no neurons.")
    layers = sorted({neuron.layer for neuron in neurons if neuron.trained})
    return label_neurons(model, stories, layers=layers, seed=seed, progress=progress)


def _training(run: "Run") -> dict[str, Any]:
    """Return data, tokens, minutes and validation curve of the run's training."""
    card, state = run.data_card, run.checkpoint.state
    seconds = state.get("seconds_trained")
    values: dict[str, Any] = {
        "data": card.get("name"),
        "imported_from": card.get("imported_from"),
        "tokens_seen": state.get("tokens_seen"),
        "minutes": None if seconds is None else seconds / 60,
    }
    rows: Any = run.metrics
    if "kind" in rows:
        rows = rows[(rows["kind"] == "eval") & (rows["step"] <= run.step)]
        values["curve"] = [
            {"step": int(row["step"]), "loss": float(row["loss"])} for row in rows.to_dict("records")
        ]
        if len(rows) and "bits_per_byte" in rows:
            values["bits_per_byte"] = float(np.asarray(rows["bits_per_byte"])[-1])
    return values


# The neurons that the paper shows (section 5.2): of the layer one before the last, the first two and the one
# with the largest total activation. Added: random neurons, random passages, and neurons of an untrained copy.


def paper_layer(config: "ModelConfig") -> int:
    """Return the block whose neurons the paper shows: one before the last, or the only one with an MLP.

    Raises:
        InputError: the model has no MLP.
    """
    layers = layers_with(config, SITES["neuron"])
    return layers[-2] if len(layers) > 1 else layers[-1]


@torch.no_grad()
def show_neurons(
    model: ModelLike,
    stories: Sequence[str],
    *,
    protagonist: ProtagonistSearch | None = None,
    count: int = 3,
    random: int = 2,
    seed: int = 0,
    progress: bool | OnProgress | None = None,
) -> tuple[ShownNeuron, ...]:
    """Choose neurons as the paper does, with their passages, in the model and in an untrained copy.

    Args:
        model: a run, a `HookedTransformer` or the name of a run.
        stories: the text.
        protagonist: also show its neuron, at the first mentions of held-out stories.
        count: top passages of each neuron; a random one is added.
        random: number of random neurons.
        seed: of everything random.
        progress: see `progress_bar`.

    Raises:
        InputError: the model has no MLP.
    """
    network = open_model(model).model
    layer, width = paper_layer(network.config), network.config.mlp_width
    hero = None if protagonist is None else protagonist.best.label
    shown: list[ShownNeuron] = []
    with progress_bar(progress, "Neurons") as on_progress, ready(network) as network:
        for trained in (True, False):
            read = network if trained else untrained_copy(network)
            component = parse_neuron(hero) if hero and trained else None
            layers = sorted({layer} if component is None else {layer, component.place[0]})
            examples = neuron_examples(
                read, stories, layers=layers, count=count, random=1, seed=seed, progress=False
            )
            total = int(examples.mean[layers.index(layer)].argmax())
            chosen = {f"L{layer}N0": "first"}
            chosen |= {f"L{layer}N1": "second"} if width > 1 else {}
            chosen[f"L{layer}N{total}"] = "greatest total"
            if trained:
                names = [f"L{layer}N{unit}" for unit in generator(seed, "neurons shown").permutation(width)]
                chosen |= dict.fromkeys([name for name in names if name not in chosen][:random], "random")
                if hero:
                    chosen[hero] = "protagonist"
            for name, why in chosen.items():
                places = []
                if protagonist is not None and why == "protagonist":
                    places = [(story.tokens, story.first) for story in protagonist.held_out[:count]]
                shown.append(_show_neuron(read, examples, name, why, trained, places))
            on_progress(0.5 if trained else 1.0, "trained model" if trained else "untrained copy")
    return tuple(shown)


def _show_neuron(
    model: "HookedTransformer",
    examples: NeuronExamples,
    name: str,
    why: str,
    trained: bool,
    mentions: Sequence[tuple[np.ndarray, int]],
) -> ShownNeuron:
    assert model.tokenizer is not None
    at, unit = examples.part(name)
    component = Component(examples.layers[at], "neuron", unit)
    places = [("first mention", Row(tokens, None), pos) for tokens, pos in mentions]
    places += [
        (example.kind, examples.rows[example.row], example.pos)
        for example in examples.examples(name)
        if example.kind in ("top", "random")
    ]
    passages = []
    for kind, row, pos in places:
        window = slice(max(0, pos - BEFORE), pos + AFTER)
        texts = token_texts(model.tokenizer, row.tokens.tolist())[window]
        passages.append(Passage(kind, tuple(texts), activations_along(model, row, component)[window]))
    greatest, sample = float(examples.max[at, unit]), examples.sample_value[:, at, unit]
    return ShownNeuron(
        label=name,
        layer=examples.layers[at],
        unit=unit,
        why=why,
        trained=trained,
        mean=float(examples.mean[at, unit]),
        active=float(examples.active[at, unit]),
        greatest=greatest,
        lit=float(np.mean(sample > THRESHOLD * greatest)) if greatest > 0 else 0.0,
        passages=tuple(passages),
        promoted=tuple(one.text for one in promoted_tokens(model, component, count=6).promoted),
    )


# Parts of study.json.


def _attention_values(example: AttentionExample) -> dict[str, Any]:
    return {
        "layer": example.layer,
        "tokens": list(example.tokens),
        "query": example.query,
        "pattern": [[[round(float(x), 3) for x in row] for row in head] for head in example.pattern],
    }


def _labels_values(labels: NeuronLabels) -> dict[str, Any]:
    return {
        "layers": list(labels.layers),
        "neurons": labels.passed.size,
        "hold": int(labels.passed.sum()),
        "untrained": None if labels.untrained is None else labels.alpha,
        "least_auc": labels.least_auc,
    }


def _protagonist_values(search: ProtagonistSearch) -> dict[str, Any]:
    return {
        "stories": search.stories,
        "held_out": search.stories // 2,
        "neurons": search.chosen_auc.size,
        "names": list(search.names[:8]),
        **{name: getattr(search, name)._asdict() for name in ("best", "untrained", "position")},
    }


def _matrix_values(matrix: ComponentMatrix) -> dict[str, Any]:
    frame: Any = matrix.to_frame().rename(columns={"effect": "value"})
    columns = ["method", "paradigm", "component", "n", "value", "low", "high", "lost", "gained"]
    return {
        "components": list(matrix.labels),
        "paradigms": list(matrix.paradigms),
        "pairs": len(matrix.pairs),
        "rows": frame[columns].to_dict("records"),
    }


def _lens_values(lens: LensLoss) -> list[dict[str, Any]]:
    columns = (lens.points, lens.loss, lens.kl, lens.agreement)
    names = ("point", "loss", "kl", "agreement")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _interval(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.mean, "low": estimate.low, "high": estimate.high}


def _plain(value: Any) -> Any:
    """Return values for JSON: six digits of each number, None where it is not finite."""
    if isinstance(value, Mapping):
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

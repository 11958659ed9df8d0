"""The TinyStories paper's interpretability study (Eldan & Li 2023, arXiv:2305.07759, section 5) of any run,
with what it lacked: scores, uniform attention as the baseline, an untrained copy as the control, intervals,
ablation."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from workbench.errors import InputError
from workbench.evals.blimp import blimp
from workbench.evals.scoring import opened, ready
from workbench.interp.ablation.effect import ablation_effect
from workbench.interp.components.matrix import component_matrix
from workbench.interp.direct.lens import lens_loss
from workbench.interp.heads.kinds import head_kinds
from workbench.interp.heads.scores import head_scores
from workbench.interp.heads.token_sets import find_names, name_ids, punctuation_ids, unigram_counts
from workbench.interp.neurons.labels import label_neurons
from workbench.interp.parts import all_parts
from workbench.interp.study.neurons import ShownNeuron, show_neurons
from workbench.interp.study.protagonist import find_protagonist_neuron
from workbench.interp.study.result import AttentionExample, Sample, Study
from workbench.interp.texts import own_stories, story_rows
from workbench.interp.untrained import untrained_copy

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
                network, texts, layers=_layers_of(neurons), seed=seed, progress=at.counted
            ),
        )  # fmt: skip
        at.begin("ablation")
        parts = {part.label: [part] for part in all_parts(config)}
        parts |= {one.label: [one.label] for one in neurons or () if one.trained}
        ablation = ablation_effect(
            subject, parts, text=texts[:ABLATED], measure=("loss",), seed=seed, progress=at.counted
        )
        matrix = attempt(
            "matrix",
            lambda: component_matrix(
                subject, pairs, limit=limit, methods=("direct", "ablate"), how="zero", seed=seed,
                progress=at.counted,
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
    rows = run.metrics()
    if "kind" in rows:
        rows = rows[(rows["kind"] == "eval") & (rows["step"] <= run.step)]
        found["curve"] = [
            {"step": int(row["step"]), "loss": float(row["loss"])} for row in rows.to_dict("records")
        ]
        if len(rows) and "bits_per_byte" in rows:
            found["bits_per_byte"] = float(np.asarray(rows["bits_per_byte"])[-1])
    return found

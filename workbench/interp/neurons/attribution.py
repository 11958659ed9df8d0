"""Which neurons make the answer: five ways to share a metric out among the neurons of the MLPs.

| method | a neuron's score |
|---|---|
| contribution | what it writes for the readout, everything behind it frozen (direct logit attribution) |
| gradient | gradient x (activation - baseline) |
| integrated | the same with the mean gradient on the way there: a layer's scores sum to that layer's effect |
| conductance | gradient x what the neuron does while the input goes from a baseline to the run's |
| ablation | the metric less the metric with the neuron at its baseline: exact, one run each |

A neuron is an entry of `mlp.hook_post`; in an MLP of several hidden layers (mlp_depth), of the last one's.
Signs agree: above 0, the neuron raises the metric.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError, nearest
from workbench.evals.scoring import ready
from workbench.interp.neurons.ablations import ablations
from workbench.interp.neurons.contributions import contributions
from workbench.interp.neurons.gradients import (
    NEURON,
    Progress,
    conductance,
    gradient,
    integrated,
    tokens_at_once,
)
from workbench.interp.neurons.result import NeuronAttribution
from workbench.interp.neurons.rows import neuron_layers
from workbench.interp.patching.base_run import Base
from workbench.interp.patching.metric_choice import choose_metric
from workbench.interp.patching.metrics import Function, Metric
from workbench.interp.patching.pair_groups import SomePairs
from workbench.interp.patching.prompts import labels, prompts
from workbench.interp.patching.sweep import plan
from workbench.interp.texts import TextBatch, text_batches

METHODS = ("contribution", "gradient", "integrated", "conductance", "ablation")
BASELINES = ("zero", "mean", "other")
INPUT = "blocks.0.hook_resid_pre"
STEPS = {"integrated": 32, "conductance": 128}


def attribute_neurons(
    model: Any,
    clean: Any,
    corrupted: Any = None,
    *,
    right: Any = None,
    wrong: Any = None,
    metric: Metric | Callable[[Tensor], Tensor] | str | None = None,
    method: str = "contribution",
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    by_position: bool = True,
    baseline: str | None = None,
    reference: Any = None,
    steps: int | None = None,
    progress: Progress = lambda done, total: None,
) -> NeuronAttribution:
    """Each neuron's share of the metric on the clean prompts.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        clean: prompts, or token ids [pair pos].
        corrupted: as many prompts of the same numbers of tokens, for the baseline `other`.
        right: the answer, a text of one token or an id, or one for each pair. With `wrong` it gives the
            default metric, the logit difference at the last token.
        wrong: the other answer.
        metric: see `workbench.interp.patching.metric_choice.choose_metric`.
        method: one of `METHODS`, as above.
        layers: only these blocks.
        positions: only neurons at these positions.
        by_position: a score for each position; else their sum, and an ablation takes a neuron out everywhere.
        baseline: what a neuron is compared with: `zero`; its `mean` over prompts and positions; its value in
            the `other`, corrupted run, which is the default where there is one. Of conductance, the same of
            what the first block reads.
        reference: text for the mean instead of the prompts, as `texts.text_batches` takes it.
        steps: gradients on the path of `integrated` (Gauss-Legendre nodes, 32 if not set) and `conductance`
            (128; a zero input needs many, for norms turn quickly there).
        progress: told what is done and how much there is.

    Raises:
        InputError: an unknown method or baseline, a model or block without MLP, `other` without corrupted
            prompts, fewer than one step, a metric without a direct contribution, or as `patch`.
    """
    baseline = baseline or ("zero" if corrupted is None else "other")
    steps = STEPS.get(method, 1) if steps is None else steps
    _refuse(method, baseline, corrupted, reference, steps)
    with ready(model) as network, torch.enable_grad():
        chosen = list(neuron_layers(network.config, layers))
        tokens, others, mask = prompts(network, clean, clean if corrupted is None else corrupted)
        metric = choose_metric(network, metric, right, wrong, tokens, mask)
        places = plan(network.config, NEURON, tokens.shape[1], True, [0], chosen[:1], positions).pos
        at = torch.zeros_like(tokens, dtype=torch.bool)
        at[:, torch.from_numpy(places)] = True
        at = at if mask is None else at & mask
        means = None
        if baseline == "mean":
            own = TextBatch(tokens, tokens, None, mask)
            means = _means(network, chosen, [own] if reference is None else reference)
        parts = []
        groups = _groups(metric, tokens)
        for index, some in enumerate(groups):
            rest = None if mask is None else mask[some]
            run = _Run(network, tokens[some], rest, chosen, at[some])
            mine = metric if len(groups) == 1 else SomePairs.of(metric, some)
            told = lambda done, total, n=index: progress(n * total + done, len(groups) * total)  # noqa: E731
            run.against(baseline, others[some], means)
            parts.append(run.scores(method, mine, steps, by_position, told))
    scores, values, without = zip(*parts, strict=True)
    per_pair = np.concatenate(scores)
    if method != "ablation" or by_position:
        per_pair = per_pair[:, :, places] if by_position else per_pair.sum(2, keepdims=True)
    return NeuronAttribution(
        method=method,
        baseline=baseline,
        metric=metric.name,
        layers=np.array(chosen),
        positions=places if by_position else None,
        per_pair=per_pair,
        base=np.concatenate(values),
        without=np.concatenate(without, 1) if method == "integrated" else None,
        tokens=tuple(labels(network, tokens)),
    )


class _Run:
    """A run of some pairs, and what its neurons are compared with.

    `moved` are the activations with those at the chosen places `at` at their baseline, by layer, and `change`
    is what that takes away, [pair pos neuron]; `start` is where the input's path begins.
    """

    @torch.no_grad()
    def __init__(
        self, model: Any, tokens: Tensor, mask: Tensor | None, layers: list[int], at: Tensor
    ) -> None:
        self.layers, self.at = layers, at[..., None]
        self.names = {layer: NEURON.hook_name(layer) for layer in layers}
        self.base = Base(model, tokens, mask, list(self.names.values()))

    @torch.no_grad()
    def against(self, baseline: str, others: Tensor, means: dict[str, Tensor] | None) -> None:
        """Set the baseline."""
        base = self.base
        if baseline == "other":
            donor = Base(base.model, others, base.attention_mask, list(self.names.values()))
            there = {INPUT: donor.streams[0], **donor.kept}
        else:
            there = means or dict.fromkeys((INPUT, *base.kept), base.streams[0].new_zeros(()))
        self.start = there[INPUT].expand(base.streams[0].shape)
        kept = base.kept
        self.moved = {i: torch.where(self.at, there[name], kept[name]) for i, name in self.names.items()}
        self.change = {i: kept[name] - self.moved[i] for i, name in self.names.items()}

    def scores(
        self, method: str, metric: Metric, steps: int, by_position: bool, progress: Progress
    ) -> tuple[Float[np.ndarray, "pair layer pos neuron"], np.ndarray, np.ndarray | None]:
        """The scores; the metric of the run, and of the run without each layer's neurons."""
        base, change, without = self.base, self.change, None
        with torch.no_grad():
            value = metric.of_stream(base.model, base.streams[-1]).double().cpu().numpy()
        if method == "contribution":
            found = contributions(base.model, base.tokens, metric, change)
        elif method == "gradient":
            found = gradient(base, metric, change)
        elif method == "integrated":
            found, without = integrated(base, metric, change, steps, progress)
        elif method == "conductance":
            found = conductance(base, metric, self.layers, self.start, steps, progress)
            found = {layer: torch.where(self.at, score, 0.0) for layer, score in found.items()}
        else:
            found = ablations(base, metric, self.moved, value, by_position, progress)
        stacked = torch.stack([found[layer] for layer in self.layers], 1)
        return stacked.detach().double().cpu().numpy(), value, without


def _refuse(method: str, baseline: str, corrupted: Any, reference: Any, steps: int) -> None:
    if method not in METHODS:
        raise InputError(f"neurons are not attributed by {method!r}. {nearest(method, METHODS)}")
    if baseline not in BASELINES:
        raise InputError(f"no baseline is called {baseline!r}. {nearest(baseline, BASELINES)}")
    if baseline == "other" and corrupted is None:
        raise InputError("the baseline 'other' is the corrupted run: give corrupted prompts.")
    if reference is not None and baseline != "mean":
        raise InputError(f"a reference text is for the baseline 'mean'; {baseline!r} takes none.")
    if steps < 1:
        raise InputError(f"an integral takes 1 step or more; found {steps}.")


def _groups(metric: Metric, tokens: Int[Tensor, "pair pos"]) -> list[slice]:
    """Pairs that go through the model together; a function of the logits wants to see all."""
    pairs, length = tokens.shape
    size = pairs if isinstance(metric, Function) else max(1, tokens_at_once(tokens.device) // length)
    return [slice(first, first + size) for first in range(0, pairs, size)]


@torch.no_grad()
def _means(model: Any, layers: Sequence[int], text: Any) -> dict[str, Float[Tensor, " width"]]:
    """The mean of the neurons, and of what the first block reads, over the real tokens of a text."""
    names = [INPUT, *(NEURON.hook_name(layer) for layer in layers)]
    sums: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    count = 0
    with model.hooks(fwd_hooks=[(n, lambda x, hook: kept.update({hook.name: x})) for n in names]):
        for batch in text_batches(model, text):
            batch.read(model)
            real = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.real is None else batch.real
            for name, x in kept.items():
                total = x[real].sum(0, dtype=torch.float64)
                sums[name] = sums[name] + total if name in sums else total
            count += int(real.sum())
    return {name: (total / count).to(model.dtype) for name, total in sums.items()}

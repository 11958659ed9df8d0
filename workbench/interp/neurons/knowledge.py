"""Knowledge neurons (Dai et al. 2022, arXiv:2104.08696): the few neurons that carry a fact, found by
attribution and tested by suppressing and enhancing them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.console import OnProgress, progress_bar
from workbench.errors import InputError
from workbench.evals.scoring import ready
from workbench.interp.components import Component
from workbench.interp.engine import CachedRun
from workbench.interp.metrics import Metric, answers
from workbench.interp.neurons.attribution import NEURON, chunks, integrated_gradients
from workbench.interp.neurons.examples import neuron_layers
from workbench.interp.prompts import prompt_pair, read_positions
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from workbench.model.transformer import HookedTransformer

SUPPRESS, ENHANCE = 0.0, 2.0


@dataclasses.dataclass(frozen=True)
class Tried:
    """The answer's probability with neurons suppressed (x 0) and enhanced (x 2) at the answer's position."""

    probability: Float[np.ndarray, " prompt"]
    suppressed: Float[np.ndarray, " prompt"]
    enhanced: Float[np.ndarray, " prompt"]
    random_suppressed: Float[np.ndarray, "draw prompt"]
    """With as many random other neurons of each layer instead."""
    random_enhanced: Float[np.ndarray, "draw prompt"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class KnowledgeNeurons(Result):
    """The neurons of a fact, and what suppressing and enhancing them does to the answer."""

    neurons: tuple[Component, ...]
    """The highest mean score first."""
    layers: Int[np.ndarray, " layer"]
    scores: Float[np.ndarray, "prompt layer neuron"]
    """Integrated gradients of the answer's probability, from zero activations."""
    above: Float[np.ndarray, "layer neuron"]
    """Fraction of prompts in which a neuron's score is above the threshold."""
    threshold: float
    share: float
    tried: dict[str, Tried]
    """On `facts`, the prompts that the neurons were found with, and on `test` and `others` if given."""

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per neuron: neuron, layer, unit, score (mean), above (fraction of prompts)."""
        import pandas as pd

        rows = []
        for neuron in self.neurons:
            layer, unit = neuron.place
            at = int(np.flatnonzero(self.layers == layer)[0]), unit
            rows.append((neuron.label, layer, unit, self.scores.mean(0)[at], self.above[at]))
        return pd.DataFrame(rows, columns=["neuron", "layer", "unit", "score", "above"])

    def effects(self) -> "pd.DataFrame":
        """Return the effect of suppressing and enhancing the neurons, by set of prompts.

        Columns: on, neurons, before and after (mean probability), change (relative), random, random_low and
        random_high (mean and 95 % of the random draws), p (fraction of draws that change it as much, the
        neurons themselves counted as one draw).
        """
        import pandas as pd

        rows = []
        for on, tried in self.tried.items():
            before = tried.probability.mean()
            for what in ("suppressed", "enhanced"):
                after, random = (getattr(tried, name).mean(-1) for name in (what, f"random_{what}"))
                change, drawn = after / before - 1, random / before - 1
                low, high = np.quantile(drawn, [0.025, 0.975])
                p = (1 + (np.abs(drawn) >= abs(change)).sum()) / (1 + len(drawn))
                rows.append((on, what, before, after, change, drawn.mean(), low, high, p))
        names = ["on", "neurons", "before", "after", "change", "random", "random_low", "random_high", "p"]
        return pd.DataFrame(rows, columns=names)

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the changes next to those of random neurons and return the figure."""
        from workbench.plots.neurons import plot_knowledge

        title = f"{len(self.neurons)} knowledge neurons from {len(self.scores)} prompts"
        return plot_knowledge(self.effects(), title=title, ax=ax)


def knowledge_neurons(
    model: ModelLike,
    facts: Any,
    answer: Any,
    *,
    test: Any = None,
    others: Any = None,
    other_answers: Any = None,
    threshold: float = 0.2,
    share: float = 0.7,
    layers: Sequence[int] | None = None,
    steps: int = 20,
    draws: int = 50,
    seed: int = 0,
    progress: bool | OnProgress | None = None,
) -> KnowledgeNeurons:
    """Find the neurons of a fact and measure what they do to its answer.

    In each of several prompts of one fact, the answer's probability is attributed to the neurons at the
    answer's position by integrated gradients from zero. Neurons above a fraction of the prompt's highest
    score in most of the prompts are kept. They are then suppressed and enhanced, and compared with random
    neurons, as many of each layer.

    Neurons that were chosen because they change an answer do change it, even in an untrained model. So
    measure them on further prompts of the fact (`test`), for which random neurons are a fair control, and on
    other facts (`others`), which they should not affect.

    Args:
        model: a run, a `HookedTransformer` or the name of a run; half-precision weights are computed in
            float32.
        facts: prompts that ask for the same fact in different words, or token ids [prompt pos]. The answer
            comes after the last token, in a masked model at the one mask token.
        answer: a text of one token or an id.
        test: further prompts of the fact.
        others: prompts of other facts.
        other_answers: their answers, one for all or one for each.
        threshold: fraction of a prompt's highest score above which a neuron counts.
        share: smallest fraction of prompts in which a kept neuron counts.
        layers: only these blocks.
        steps: nodes of the integral (Gauss-Legendre).
        draws: number of random sets of neurons.
        seed: of the draws.
        progress: see `progress_bar`.

    Raises:
        InputError: a model or block without MLP, an answer that is not one token, a masked prompt without
            exactly one mask token, a threshold or share outside 0 to 1, no steps or draws, other facts
            without answers.
    """
    for name, value in (("threshold", threshold), ("share", share)):
        if not 0 < value <= 1:
            raise InputError(f"{name} must be above 0 and at most 1; found {value}.")
    if steps < 1 or draws < 1:
        raise InputError(f"At least 1 step and 1 draw are needed; found {steps} and {draws}.")
    if (others is None) != (other_answers is None):
        raise InputError("Give both others= (prompts of other facts) and other_answers=, or neither.")
    with (
        progress_bar(progress, "Knowledge neurons") as on_progress,
        ready(as_model(model)) as network,
        torch.enable_grad(),
    ):
        layers = neuron_layers(network.config, layers)
        sets = {"facts": _Prompts(network, facts, answer, layers)}
        if test is not None:
            sets["test"] = _Prompts(network, test, answer, layers)
        if others is not None:
            sets["others"] = _Prompts(network, others, other_answers, layers)
        scores = sets["facts"].scores(steps, on_progress)
        highest = scores.max((1, 2), keepdims=True)
        above = ((scores > threshold * highest) & (highest > 0)).mean(0)
        kept = above >= share
        neurons = _neuron_sets(kept, draws, np.random.default_rng(seed))
        tried = {on: prompts_.try_neurons(neurons) for on, prompts_ in sets.items()}
    order = np.argsort(-scores.mean(0)[kept], kind="stable")
    found = [Component(layers[at], "neuron", int(unit)) for at, unit in np.argwhere(kept)[order]]
    return KnowledgeNeurons(tuple(found), np.array(layers), scores, above, threshold, share, tried)


@dataclasses.dataclass(frozen=True)
class Probability(Metric):
    """Probability of the right answer at one position."""

    right: Int[Tensor, " pair"]
    reads: Int[Tensor, " pair"]  # type: ignore[assignment]
    name: str = "probability"

    def __call__(
        self, model: "HookedTransformer", x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        probabilities = model.unembed(x[:, 0]).softmax(-1)
        return probabilities.gather(-1, self.right.to(x.device)[pair][:, None])[:, 0]


class _Prompts:
    """Prompts with their answers and their cached run."""

    def __init__(self, model: "HookedTransformer", facts: Any, answer: Any, layers: Sequence[int]) -> None:
        (tokens, mask), _ = prompt_pair(model, facts, facts)
        self.reads = read_positions(model, tokens, mask)
        right = answers(model, answer, len(tokens), "right").to(tokens.device)
        self.metric = Probability(right, self.reads)
        self.names = [NEURON.hook_name(layer) for layer in layers]
        self.rows = torch.arange(len(tokens), device=tokens.device)
        with torch.no_grad():
            self.run = CachedRun(model, tokens, mask, self.names)

    def scores(self, steps: int, on_progress: OnProgress) -> Float[np.ndarray, "prompt layer neuron"]:
        """Return integrated gradients of the neurons at the answer's position."""
        at, change = (self.rows, self.reads), {}
        for name in self.names:
            change[name] = torch.zeros_like(self.run.kept[name])
            change[name][at] = self.run.kept[name][at]
        scores = integrated_gradients(self.run, self.metric, change, steps, on_progress)
        return torch.stack([scores[name][at] for name in self.names], 1).double().cpu().numpy()

    @torch.no_grad()
    def try_neurons(self, sets: np.ndarray) -> Tried:
        """Suppress and enhance each set of neurons [set layer neuron]; the first set is the kept one."""
        run, model = self.run, self.run.model
        factors = np.where(sets[:, None], np.array([SUPPRESS, ENHANCE])[:, None, None], 1.0)
        flat = torch.from_numpy(factors).flatten(0, 1)  # [set x factor, layer, neuron]
        parts = []
        for some in chunks(run, len(flat)):
            copies = some.stop - some.start
            factor = flat[some].repeat_interleave(len(self.rows), 0).to(run.streams[0])
            at = torch.arange(len(factor), device=factor.device), self.reads.repeat(copies)
            hooks: list[Any] = [(name, _scale(at, factor[:, index])) for index, name in enumerate(self.names)]
            mask = None if run.attention_mask is None else run.attention_mask.repeat(copies, 1)
            with model.hooks(fwd_hooks=hooks):
                stream = model.stream(run.tokens.repeat(copies, 1), attention_mask=mask)
            parts.append(self.metric.of_stream(model, stream, len(self.rows)))
        probabilities = torch.cat(parts).view(len(sets), 2, -1).double().cpu().numpy()
        plain = self.metric.of_stream(model, run.streams[-1]).double().cpu().numpy()
        suppressed, enhanced = probabilities[:, 0], probabilities[:, 1]
        return Tried(plain, suppressed[0], enhanced[0], suppressed[1:], enhanced[1:])


def _neuron_sets(kept: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """Return the kept neurons, then random other ones, as many in each layer, [1 + draws, layer, neuron].

    A layer with too few other neurons draws from all of its neurons.
    """
    sets = np.zeros((1 + draws, *kept.shape), dtype=bool)
    sets[0] = kept
    for layer, row in enumerate(kept):
        count = int(row.sum())
        others = np.flatnonzero(~row)
        pool = others if len(others) >= count else np.arange(len(row))
        for draw in range(draws):
            sets[1 + draw, layer, random.choice(pool, count, replace=False)] = True
    return sets


def _scale(at: tuple[Tensor, Tensor], factor: Float[Tensor, "row neuron"]) -> Callable[..., Tensor]:
    def hook_function(x: Tensor, hook: Any) -> Tensor:
        x = x.clone()
        x[at] *= factor
        return x

    return hook_function

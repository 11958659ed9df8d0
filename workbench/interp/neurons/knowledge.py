"""Knowledge neurons: the few that carry a fact, found by attribution and tested by what they do.

Dai et al. 2022 (arXiv:2104.08696): in each of several prompts of one fact, the answer's probability is
shared out among the neurons at the place of the answer by integrated gradients from zero; neurons above a
part of the prompt's highest score, in most of the prompts, are kept. Then they are silenced, and doubled,
and the answer's probability is measured: beside random neurons, as many of each layer.

Neurons that were chosen because they move an answer do move it, in an untrained model too. So measure them on
further prompts of the fact (`test`), where random neurons are a fair control, and on other facts (`others`),
which they should leave alone.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError
from workbench.evals.scoring import ready
from workbench.interp.components import Component
from workbench.interp.engine import CachedRun
from workbench.interp.metrics import Metric, answers
from workbench.interp.neurons.attribution import NEURON, Progress, chunks, integrated
from workbench.interp.neurons.examples import neuron_layers
from workbench.interp.prompts import prompts, read_positions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# What a search for a fact's neurons found.


@dataclasses.dataclass(frozen=True)
class Tried:
    """The answer's probability, with neurons suppressed (x 0) and enhanced (x 2) where it is read off."""

    probability: Float[np.ndarray, " prompt"]
    suppressed: Float[np.ndarray, " prompt"]
    enhanced: Float[np.ndarray, " prompt"]
    random_suppressed: Float[np.ndarray, "draw prompt"]
    """The same with random other neurons, as many in each layer."""
    random_enhanced: Float[np.ndarray, "draw prompt"]


@dataclasses.dataclass(frozen=True)
class KnowledgeNeurons:
    """The neurons of a fact, and the answer's probability without and with more of them."""

    neurons: tuple[Component, ...]
    """Those kept, the highest mean score first."""
    layers: Int[np.ndarray, " layer"]
    scores: Float[np.ndarray, "prompt layer neuron"]
    """Integrated gradients of the answer's probability, from zero activations."""
    above: Float[np.ndarray, "layer neuron"]
    """Share of prompts in which a neuron's score is above the threshold."""
    threshold: float
    share: float
    tried: dict[str, Tried]
    """On `facts`, the prompts that the neurons were found by; if there are any, on `test` and `others`."""

    def to_frame(self) -> "pd.DataFrame":
        """One row a neuron that was kept: neuron, layer, unit, score (mean), above (share of prompts)."""
        import pandas as pd

        rows = []
        for part in self.neurons:
            at = int(np.flatnonzero(self.layers == part.layer)[0]), part.unit
            rows.append((part.label, part.layer, part.unit, self.scores.mean(0)[at], self.above[at]))
        return pd.DataFrame(rows, columns=["neuron", "layer", "unit", "score", "above"])

    def effects(self) -> "pd.DataFrame":
        """What suppressing and enhancing do, by set of prompts: the answer's mean probability before, after,
        its change as a share, that of random neurons (mean and 95 % of the draws), and the share of
        draws that move it as far (p, the neurons themselves counted as one draw)."""
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


SUPPRESS, ENHANCE = 0.0, 2.0


@dataclasses.dataclass(frozen=True)
class Probability(Metric):
    """Probability of the right answer at one position."""

    right: Int[Tensor, " pair"]
    reads: Int[Tensor, " pair"]  # type: ignore[assignment]
    name: str = "probability"

    def __call__(
        self, model: Any, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        """See `Metric`."""
        probabilities = model.unembed(x[:, 0]).softmax(-1)
        return probabilities.gather(-1, self.right.to(x.device)[pair][:, None])[:, 0]


def knowledge_neurons(
    model: Any,
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
    progress: Progress = lambda done, total: None,
) -> KnowledgeNeurons:
    """Find the neurons of a fact and try them.

    Args:
        model: a `HookedTransformer`; half-precision weights are computed in float32.
        facts: prompts that ask for the same fact in different words, or token ids [prompt pos]. The answer
            comes after the last token; in a masked model at the one mask token.
        answer: a text of one token or an id.
        test: further prompts of the fact, on which the neurons are tried too.
        others: prompts of other facts, on which the neurons are tried too.
        other_answers: theirs, one for all or one for each.
        threshold: part of a prompt's highest score from which on a neuron counts.
        share: of the prompts in which a kept neuron counts, at least.
        layers: only these blocks.
        steps: nodes of the integral (Gauss-Legendre).
        draws: of random neurons.
        seed: of the draws.
        progress: told the gradients done and their number.

    Raises:
        InputError: a model or block without MLP, an answer that is not one token, a masked prompt without or
            with several mask tokens, a threshold or share outside 0 to 1, no steps or draws, other facts
            without answers.
    """
    for name, value in (("threshold", threshold), ("share", share)):
        if not 0 < value <= 1:
            raise InputError(f"{name} is a part of the whole, above 0 and up to 1; found {value}.")
    if steps < 1 or draws < 1:
        raise InputError(f"at least 1 step and 1 draw are needed; found {steps} and {draws}.")
    if (others is None) != (other_answers is None):
        raise InputError("other facts need others=, their prompts, and other_answers=, both or none.")
    with ready(model) as network, torch.enable_grad():
        chosen = neuron_layers(network.config, layers)
        asked = {"facts": _Asked(network, facts, answer, chosen)}
        if test is not None:
            asked["test"] = _Asked(network, test, answer, chosen)
        if others is not None:
            asked["others"] = _Asked(network, others, other_answers, chosen)
        scores = asked["facts"].scores(steps, progress)
        highest = scores.max((1, 2), keepdims=True)
        above = ((scores > threshold * highest) & (highest > 0)).mean(0)
        kept = above >= share
        sets = _sets(kept, draws, np.random.default_rng(seed))
        tried = {on: each.tried(sets) for on, each in asked.items()}
    order = np.argsort(-scores.mean(0)[kept], kind="stable")
    neurons = [Component(chosen[layer], "neuron", int(unit)) for layer, unit in np.argwhere(kept)[order]]
    return KnowledgeNeurons(tuple(neurons), np.array(chosen), scores, above, threshold, share, tried)


class _Asked:
    """Prompts, their answers, and their run."""

    def __init__(self, model: Any, facts: Any, answer: Any, layers: Sequence[int]) -> None:
        tokens, _, mask = prompts(model, facts, facts)
        self.places = read_positions(model, tokens, mask)
        right = answers(model, answer, len(tokens), "right").to(tokens.device)
        self.metric, self.layers = Probability(right, self.places), layers
        self.rows = torch.arange(len(tokens), device=tokens.device)
        with torch.no_grad():
            self.base = CachedRun(model, tokens, mask, [NEURON.hook_name(layer) for layer in layers])

    def scores(self, steps: int, progress: Progress) -> Float[np.ndarray, "prompt layer neuron"]:
        """Integrated gradients of the neurons at the answer's place, nothing else moving."""
        at, change = (self.rows, self.places), {}
        for layer in self.layers:
            run = self.base.kept[NEURON.hook_name(layer)]
            change[layer] = torch.zeros_like(run)
            change[layer][at] = run[at]
        found, _ = integrated(self.base, self.metric, change, steps, progress)
        return torch.stack([found[layer][at] for layer in self.layers], 1).double().cpu().numpy()

    @torch.no_grad()
    def tried(self, sets: np.ndarray) -> Tried:
        """With each set of neurons [set layer neuron] suppressed and enhanced; the first is the one found."""
        base, model = self.base, self.base.model
        factors = np.where(sets[:, None], np.array([SUPPRESS, ENHANCE])[:, None, None], 1.0)
        flat = torch.from_numpy(factors).flatten(0, 1)  # [set x factor, layer, neuron]
        parts = []
        for some in chunks(base, len(flat)):
            copies = some.stop - some.start
            factor = flat[some].repeat_interleave(len(self.rows), 0).to(base.streams[0])
            rows, at = torch.arange(len(factor), device=factor.device), self.places.repeat(copies)
            hooks = [
                (NEURON.hook_name(layer), _scaled(rows, at, factor[:, index]))
                for index, layer in enumerate(self.layers)
            ]
            mask = None if base.attention_mask is None else base.attention_mask.repeat(copies, 1)
            with model.hooks(fwd_hooks=hooks):
                stream = model.stream(base.tokens.repeat(copies, 1), attention_mask=mask)
            parts.append(self.metric(model, model.final(stream[rows, at][:, None]), rows % len(self.rows)))
        found = torch.cat(parts).view(len(sets), 2, -1).double().cpu().numpy()
        plain = self.metric.of_stream(model, base.streams[-1]).double().cpu().numpy()
        return Tried(plain, found[0, 0], found[0, 1], found[1:, 0], found[1:, 1])


def _sets(kept: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """The kept neurons, then random ones [1 + draws, layer, neuron]: others, as many in each layer, where
    the layer has so many."""
    sets = np.zeros((1 + draws, *kept.shape), dtype=bool)
    sets[0] = kept
    for layer, row in enumerate(kept):
        count = int(row.sum())
        others = np.flatnonzero(~row)
        pool = others if len(others) >= count else np.arange(len(row))
        for draw in range(draws):
            sets[1 + draw, layer, random.choice(pool, count, replace=False)] = True
    return sets


def _scaled(rows: Tensor, at: Tensor, factor: Float[Tensor, "row neuron"]) -> Any:
    def edit(x: Tensor, hook: Any) -> Tensor:
        x = x.clone()
        x[rows, at] *= factor
        return x

    return edit

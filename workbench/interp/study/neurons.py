"""Neurons as the TinyStories paper shows them (Eldan & Li 2023, arXiv:2305.07759, section 5.2): of the layer
one before the last the first two and the one with the greatest total activation, painted into passages; and
what the paper lacks: random neurons, random passages, and an untrained copy's neurons.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from workbench.evals.scoring import opened, ready
from workbench.interp.neurons.examples import neuron_examples
from workbench.interp.neurons.examples_result import NeuronExamples
from workbench.interp.neurons.tokens import promoted_tokens
from workbench.interp.parts import find_parts
from workbench.interp.patching.sites import SITES, layers_with
from workbench.interp.study.protagonist import ProtagonistSearch
from workbench.interp.untrained import untrained_copy
from workbench.seeds import generator

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
    """Share of those at which it is above 0."""
    greatest: float
    lit: float
    """Share of tokens drawn at random at which it is above half of `greatest`."""
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
            own = find_parts(network.config, hero) if hero and trained else ()
            layers = sorted({layer, *(part.layer for part in own)})
            found = neuron_examples(one, stories, layers=layers, count=count, random=1, seed=seed)
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

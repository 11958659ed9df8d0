"""The neuron that fires when the protagonist is first named (Eldan & Li 2023, arXiv:2305.07759, section 5.2),
searched for instead of stumbled upon.

Every neuron is a detector: its AUC is the probability that its activation is greater at a first mention than
at another token, of two kinds: tokens nearby that are no mention, and later mentions of the same name, which
tell a first-mention neuron from a name neuron. On one half of the stories the neuron is chosen whose worse
AUC is best, on the other half it is judged, so that picking one of thousands flatters nothing. Two controls:
the same search in an untrained copy, and the position alone, as first mentions come before later ones.
"""

import dataclasses
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
from workbench.evals.scoring import opened, ready
from workbench.interp.patching.sites import SITES, layers_with
from workbench.interp.untrained import untrained_copy

if TYPE_CHECKING:
    import pandas as pd

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

"""A search for the neuron that is active when the protagonist of a story is first named (Eldan & Li 2023,
arXiv:2305.07759, section 5.2). Used by `study`."""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.console import OnProgress, progress_bar
from workbench.data.tokenizer import plain_encoder
from workbench.errors import InputError
from workbench.evals.scoring import ready
from workbench.interp.components import SITES, layers_with, split_names
from workbench.interp.neurons.ranks import aucs, ranked
from workbench.interp.texts import untrained_copy
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerFast

    from workbench.model.transformer import HookedTransformer

NEAR = 8
"""Other tokens are taken from at most this distance, so that the position does not separate them."""
DRAWS = 1000


class Mentions(NamedTuple):
    """Token positions in one story, counted from the start of its row."""

    tokens: Int[np.ndarray, " pos"]
    first: int
    """Last token of the protagonist's first mention."""
    later: tuple[int, ...]
    others: tuple[int, ...]
    """Nearby tokens that mention no one."""


class Detector(NamedTuple):
    """A neuron tested on stories that it was not chosen on; an AUC of 0.5 is chance."""

    label: str
    auc: float
    """First mentions against other tokens nearby."""
    low: float
    high: float
    """95 % bootstrap interval over stories."""
    later_auc: float
    """First mentions against later mentions of the same name."""
    later_low: float
    later_high: float


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ProtagonistSearch(Result):
    """The best first-mention neuron and its controls."""

    layers: tuple[int, ...]
    chosen_auc: Float[np.ndarray, "layer neuron"]
    """The lower of each neuron's two AUCs on the half that the neuron was chosen on."""
    best: Detector
    """The chosen neuron on the other half."""
    untrained: Detector
    """The same search in an untrained copy."""
    position: Detector
    """Minus the position as the detector, because first mentions come before later ones."""
    stories: int
    """Stories that name a protagonist, both halves together."""
    names: tuple[str, ...]
    """The protagonists, the most frequent first."""
    held_out: tuple[Mentions, ...]
    """The stories of the second half."""
    seed: int = 0

    axes = ("layer", "neuron")

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per detector: what (best, untrained, position), label, auc, low, high, later_auc,
        later_low, later_high."""
        import pandas as pd

        names = ("best", "untrained", "position")
        return pd.DataFrame([{"what": name} | getattr(self, name)._asdict() for name in names])


@torch.no_grad()
def find_protagonist_neuron(
    model: ModelLike,
    stories: Sequence[str],
    names: str | Sequence[str],
    *,
    seed: int = 0,
    progress: bool | OnProgress | None = None,
) -> ProtagonistSearch:
    """Search all neurons for a detector of the protagonist's first mention.

    Each neuron is scored by two AUCs: first mentions against nearby tokens that mention no one, and against
    later mentions of the same name, which separates a first-mention neuron from a name neuron. The neuron
    with the best worse AUC on one half of the stories is tested on the other half.

    Args:
        model: a run, a `HookedTransformer` or the name of a run.
        stories: texts; every other one is held out.
        names: names of people, as `workbench.interp.heads.find_names` returns them.
        seed: of the bootstrap.
        progress: see `progress_bar`.

    Raises:
        InputError: no MLP or tokenizer, or fewer than four stories with a name.
    """
    network = as_model(model)
    layers = layers_with(network.config, SITES["neuron"])
    if network.tokenizer is None:
        raise InputError("The model has no tokenizer, which the search for names needs.")
    mentions, protagonists = find_mentions(network.tokenizer, stories, names, network.config.n_ctx)
    if len(mentions) < 4:
        raise InputError(f"{len(mentions)} of the stories contain a name; the search needs four or more.")
    halves = mentions[0::2], mentions[1::2]
    results: list[tuple[np.ndarray, Detector]] = []
    done, total = 0, 2 * len(mentions)
    with progress_bar(progress, "Protagonist neuron") as on_progress, ready(network) as network:
        for searched in (network, untrained_copy(network)):
            activations: list[list[tuple[np.ndarray, ...]]] = [[], []]
            for half, stories_of_half in zip(activations, halves, strict=True):
                for story in stories_of_half:
                    half.append(_activations(searched, layers, story))
                    done += 1
                    on_progress(done / total, f"{done} of {total} stories")
            first, later, others = (np.concatenate(part) for part in zip(*activations[0], strict=True))
            scores = np.minimum(_auc(first, others), _auc(first, later))
            best = int(scores.argmax())
            layer, neuron = divmod(best, network.config.mlp_width)
            held_out = [tuple(part[:, best] for part in story) for story in activations[1]]
            results.append((scores, _test_detector(f"L{layers[layer]}N{neuron}", held_out, seed)))
    positions = [tuple(-np.atleast_1d(part).astype(float) for part in story[1:]) for story in halves[1]]
    return ProtagonistSearch(
        layers=tuple(layers),
        chosen_auc=results[0][0].reshape(len(layers), -1),
        best=results[0][1],
        untrained=results[1][1],
        position=_test_detector("position", positions, seed),
        stories=len(mentions),
        names=protagonists,
        held_out=tuple(halves[1]),
        seed=seed,
    )


def find_mentions(
    tokenizer: "PreTrainedTokenizerFast", stories: Sequence[str], names: str | Sequence[str], n_ctx: int
) -> tuple[list[Mentions], tuple[str, ...]]:
    """Find the protagonist of each story, its most frequent name (the earliest of equals), and its mentions.

    A mention is at the last token of the name, where the whole name is known. Stories without a name are left
    out.

    Args:
        tokenizer: of the model.
        stories: texts.
        names: what counts as a name.
        n_ctx: rows are cut to this length.

    Returns:
        The mentions of each story, and the protagonists, the most frequent first.
    """
    people, encoder = set(split_names(names)), plain_encoder(tokenizer)
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    mentions, protagonists = [], Counter()
    encodings = encoder.encode_batch(list(stories), add_special_tokens=False)
    for story, encoding in zip(stories, encodings, strict=True):
        words = [match for match in re.finditer(r"[A-Za-z]+", story) if match[0] in people]
        if not words:
            continue
        protagonist = Counter(match[0] for match in words).most_common(1)[0][0]
        ends = [match.end() for match in words if match[0] == protagonist]
        token_of = {end: index for index, (_, end) in enumerate(encoding.offsets)}
        at = [token_of[end] + len(start) for end in ends if end in token_of]
        at = [pos for pos in at if pos < n_ctx]
        if not at:
            continue
        row = np.array((start + encoding.ids)[:n_ctx])
        near = range(max(len(start), at[0] - NEAR), min(len(row), at[0] + NEAR + 1))
        mentions.append(Mentions(row, at[0], tuple(at[1:]), tuple(sorted({*near} - {*at}))))
        protagonists[protagonist] += 1
    return mentions, tuple(name for name, _ in protagonists.most_common())


def _activations(
    model: "HookedTransformer", layers: Sequence[int], story: Mentions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return activations [place neuron] at the first mention, later ones and other tokens, layers
    concatenated."""
    kept: dict[str, Tensor] = {}
    names = [SITES["neuron"].hook_name(layer) for layer in layers]
    with model.hooks(fwd_hooks=[(name, lambda x, hook: kept.update({hook.name: x[0]})) for name in names]):
        model.stream(torch.from_numpy(story.tokens)[None].to(model.device))
    x = torch.cat([kept[name] for name in names], -1).float().cpu().numpy()
    return x[[story.first]], x[list(story.later)], x[list(story.others)]


def _auc(first: Float[np.ndarray, "n neuron"], others: Float[np.ndarray, "m neuron"]) -> np.ndarray:
    """Return the AUC of each neuron; 0.5 without others."""
    if not len(others):
        return np.full(first.shape[1], 0.5)
    inside = np.arange(len(first) + len(others)) < len(first)
    return aucs(ranked(torch.from_numpy(np.concatenate([first, others]))), inside[:, None])[0]


def _test_detector(label: str, stories: Sequence[tuple[np.ndarray, ...]], seed: int) -> Detector:
    """Return the AUCs against other tokens and later mentions, with intervals by resampling stories.

    Args:
        label: the name of the detector.
        stories: values at the first mention, the later ones and other tokens of each story.
        seed: of the bootstrap.
    """
    numbers: list[float] = []
    for which in (2, 1):
        usable = [story for story in stories if len(story[which])]
        if not usable:
            numbers += [np.nan] * 3
            continue
        # wins[a, b]: how many of story b's tokens the first mention of story a beats, ties half. The AUC of a
        # resample with weights d is then the bilinear form d @ wins @ d over its number of comparisons.
        first = np.array([story[0][0] for story in usable])[:, None]
        wins = np.stack(
            [((first > story[which]) + 0.5 * (first == story[which])).sum(1) for story in usable], 1
        )
        counts, size = np.array([len(story[which]) for story in usable]), len(usable)
        drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), DRAWS)
        drawn = np.concatenate([np.ones((1, size), dtype=np.int64), drawn])
        values = np.einsum("da,ab,db->d", drawn, wins, drawn) / (drawn.sum(1) * (drawn @ counts))
        numbers += [values[0], *np.quantile(values[1:], (0.025, 0.975))]
    return Detector(label, *map(float, numbers))

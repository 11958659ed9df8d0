"""Direct attribution: a log-probability, a minimal pair's difference or a logit as a sum over components.

Direct logit attribution (Elhage et al. 2021, A Mathematical Framework for Transformer Circuits) with
everything between a component and the readout frozen at its value in the run, extended to log-probabilities
by a path integral, so that the contributions sum to the quantity that BLiMP compares: the summed
log-probabilities of two sentences. See `workbench.interp.contributions` for both steps.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.console import clean, make_table, stack
from workbench.data.tokenizer import token_text, token_texts
from workbench.errors import InputError
from workbench.evals.protocols import Protocol, find_protocol
from workbench.evals.scoring import ready
from workbench.interp.components import Component
from workbench.interp.contributions import decompose, log_prob_directions, record_outputs
from workbench.interp.metrics import answers
from workbench.interp.pairs import scored_tokens
from workbench.interp.prompts import read_positions
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model, open_model
from workbench.stats import bootstrap_mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from transformers import PreTrainedTokenizerFast

    from workbench.model.layers import LayerMix
    from workbench.model.transformer import HookedTransformer


def _parts(
    components: Sequence[Component], sums: Mapping[str, tuple[Any, float, float]], rows: int
) -> "RenderableType":
    """Return a table of the largest contributions by the first sum, the rest in one row, and the totals.

    Args:
        sums: heading -> contributions, the uniform guess that they are added to, and the model's total.
    """
    order = np.argsort(-np.abs(next(iter(sums.values()))[0]), kind="stable")
    table = [
        [components[i].label, *(f"{values[i]:+.3f}" for values, _, _ in sums.values())] for i in order[:rows]
    ]
    if len(order) > rows:
        rest = [f"{math.fsum(values[order[rows:]]):+.3f}" for values, _, _ in sums.values()]
        table.append([f"{len(order) - rows:,} others", *rest])
    if any(uniform for _, uniform, _ in sums.values()):
        table.append(["uniform guess", *(f"{uniform:+.3f}" for _, uniform, _ in sums.values())])
    table.append(["sum", *(f"{uniform + math.fsum(values):+.3f}" for values, uniform, _ in sums.values())])
    table.append(["the model", *(f"{total:+.3f}" for _, _, total in sums.values())])
    return stack(
        make_table(["component", *sums], table),
        "\nDirect contributions; the norms' scales are frozen at their values in this run.",
    )


@dataclass(frozen=True, eq=False, repr=False)
class TextAttribution(Result):
    """The log-probability of each scored token, as a sum over components."""

    text: str
    ids: Int[np.ndarray, " pos"]
    """The scored tokens."""
    tokens: tuple[str, ...]
    """The same as text."""
    log_probs: Float[np.ndarray, " pos"]
    """log p(token | context), nats."""
    contributions: Float[np.ndarray, "pos component"]
    """Nats by which each component raises the token's log-probability above the uniform guess."""
    components: tuple[Component, ...]
    uniform: float
    """log(1 / d_vocab), to which the contributions are added."""
    contexts: Int[np.ndarray, "row key_pos"]
    """The model's inputs: one row for a causal model, one masked copy per token for a masked model."""
    rows: Int[np.ndarray, " pos"]
    """The row in which each token is predicted."""
    places: Int[np.ndarray, " pos"]
    """The position in that row at which it is predicted."""

    @property
    def log_prob(self) -> float:
        """Log-probability of the text, in nats; for a masked model the pseudo-log-likelihood."""
        return math.fsum(self.log_probs)

    @property
    def rest(self) -> Float[np.ndarray, " pos"]:
        """Rounding error: log-probability - uniform - sum of contributions."""
        return self.log_probs - self.uniform - self.contributions.sum(-1)

    def folded(self) -> "TextAttribution":
        """Return a copy with the neurons of each MLP summed, and all biases summed."""
        components, values = _folded(self.components, self.contributions)
        return replace(self, components=components, contributions=values)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row a token and component: position, token, log_prob, component, kind, layer, head
        (neuron), nats."""
        import pandas as pd

        count = len(self.components)
        frame = pd.DataFrame(
            {
                "position": np.repeat(np.arange(len(self.ids)), count),
                "token": np.repeat(np.array(self.tokens, dtype=object), count),
                "log_prob": np.repeat(self.log_probs, count),
                **_columns(self.components * len(self.ids)),
            }
        )
        return frame.assign(nats=self.contributions.ravel())

    def summary(self, rows: int = 15) -> "RenderableType":
        """Return the components with the largest contributions to the text, and their sum."""
        count, whole = len(self.ids), self.contributions.sum(0)
        title = f"{self.log_prob:.3f} nats, {self.log_prob / count:.3f} per token; {count} tokens\n"
        return stack(
            title, _parts(self.components, {"nats": (whole, count * self.uniform, self.log_prob)}, rows)
        )

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the contributions as component x token and return the figure."""
        from workbench.plots.components import plot_text

        whole = self.folded()
        return plot_text([part.label for part in whole.components], self.tokens, whole.contributions, ax)


@dataclass(frozen=True, eq=False, repr=False)
class PairAttribution(Result):
    """The log-probability difference of a minimal pair, good minus bad, as a sum over components.

    Positive contributions favour the grammatical sentence.
    """

    good: TextAttribution
    bad: TextAttribution
    place: int
    """Index of the first scored token at which the sentences differ: the shown position."""
    same_context: bool
    """True if the two tokens there are predicted from the same context. Then both predictions share their
    normaliser, and the difference of log-probabilities is exactly the difference of logits."""
    protocol: Protocol
    pll: str | None

    @property
    def components(self) -> tuple[Component, ...]:
        """The components, in the order of every array of contributions."""
        return self.good.components

    @property
    def token_good(self) -> str | None:
        """The grammatical sentence's token at the shown position; None if it ended before."""
        return self.good.tokens[self.place] if self.place < len(self.good.ids) else None

    @property
    def token_bad(self) -> str | None:
        """The ungrammatical sentence's token at the shown position; None if it ended before."""
        return self.bad.tokens[self.place] if self.place < len(self.bad.ids) else None

    @cached_property
    def at_place(self) -> Float[np.ndarray, " component"]:
        """Contributions to the difference at the shown position, nats."""
        good, bad = (
            side.contributions[self.place] if self.place < len(side.ids) else np.zeros(len(side.components))
            for side in (self.good, self.bad)
        )
        return good - bad

    @cached_property
    def whole(self) -> Float[np.ndarray, " component"]:
        """Contributions to the difference of the whole sentences, summed over positions, nats."""
        return self.good.contributions.sum(0) - self.bad.contributions.sum(0)

    @property
    def uniform_at_place(self) -> float:
        """The uniform guess for a token that only one sentence has at the shown position; else 0."""
        return self.good.uniform * ((self.token_good is not None) - (self.token_bad is not None))

    @property
    def uniform_whole(self) -> float:
        """The uniform guess for the tokens that one sentence has more than the other; 0 at equal length."""
        return self.good.uniform * (len(self.good.ids) - len(self.bad.ids))

    @property
    def difference_at_place(self) -> float:
        """log p(good token) - log p(bad token) at the shown position, nats."""
        good, bad = (
            float(side.log_probs[self.place]) if self.place < len(side.ids) else 0.0
            for side in (self.good, self.bad)
        )
        return good - bad

    @property
    def difference(self) -> float:
        """log p(good sentence) - log p(bad sentence), nats: above 0, the model is right."""
        return self.good.log_prob - self.bad.log_prob

    @property
    def share(self) -> float | None:
        """Fraction of the whole difference that arises at the shown position; outside 0 to 1 where other
        positions have the opposite sign; None if the difference is 0."""
        return self.difference_at_place / self.difference if self.difference else None

    @property
    def rest_at_place(self) -> float:
        """Rounding error at the shown position: difference - uniform - sum of contributions."""
        return self.difference_at_place - self.uniform_at_place - math.fsum(self.at_place)

    @property
    def rest(self) -> float:
        """Rounding error of the whole difference: difference - uniform - sum of contributions."""
        return self.difference - self.uniform_whole - math.fsum(self.whole)

    def folded(self) -> "PairAttribution":
        """Return a copy with the neurons of each MLP summed, and all biases summed."""
        return replace(self, good=self.good.folded(), bad=self.bad.folded())

    def top(self, count: int = 5, whole: bool = False) -> list[tuple[Component, float]]:
        """Return the components with the largest absolute contributions, largest first."""
        values = self.whole if whole else self.at_place
        order = np.argsort(-np.abs(values), kind="stable")[:count]
        return [(self.components[index], float(values[index])) for index in order]

    def to_frame(self) -> "pd.DataFrame":
        """Return one row a component: component, kind, layer, head (neuron), at_place, whole (nats)."""
        import pandas as pd

        frame = pd.DataFrame(_columns(self.components))
        return frame.assign(at_place=self.at_place, whole=self.whole)

    def summary(self, rows: int = 15) -> "RenderableType":
        """Return both sentences, and the components with the largest contributions at the shown position."""
        sides = [
            f"  {name:4}  {side.log_prob:9.3f}  {clean(side.text)}"
            for name, side in (("good", self.good), ("bad", self.bad))
        ]
        sums = {
            "position": (self.at_place, self.uniform_at_place, self.difference_at_place),
            "whole sentences": (self.whole, self.uniform_whole, self.difference),
        }
        return stack(
            f"log-probability difference {self.difference:+.3f} nats\n",
            *sides,
            f"\nposition: {self.token_good!r} / {self.token_bad!r}, where the sentences first differ; "
            f"there the difference is {self.difference_at_place:+.3f}\n",
            _parts(self.components, sums, rows),
        )

    def plot(self, ax: "Axes | None" = None, whole: bool = False) -> "Figure":
        """Draw the contributions as layer x component and return the figure.

        Args:
            ax: axes to draw into; a new figure if not set.
            whole: draw those of the whole sentences in place of the shown position.
        """
        from workbench.plots.components import plot_pair

        total, place = self.folded(), "whole sentences" if whole else "shown position"
        difference = self.difference if whole else self.difference_at_place
        return plot_pair(
            [part.label for part in total.components],
            total.whole if whole else total.at_place,
            title=f"{place}: {difference:+.2f} nats, norm scales frozen",
            ax=ax,
        )


@dataclass(frozen=True, eq=False, repr=False)
class LogitAttribution(Result):
    """The logit of an answer, or the difference of two, as a sum over components; norms' scales frozen."""

    axes = ("prompt", "component")

    prompts: tuple[str, ...]
    """As text, or as token ids if the model has no tokenizer."""
    positions: Int[np.ndarray, " prompt"]
    """Where the answer is predicted."""
    right: tuple[str, ...]
    wrong: tuple[str, ...] | None
    logits: Float[np.ndarray, " prompt"]
    """Logit of the right answer, minus that of the wrong one if there is one."""
    contributions: Float[np.ndarray, "prompt component"]
    components: tuple[Component, ...]

    @property
    def quantity(self) -> str:
        """`logit` or `logit difference`."""
        return "logit" if self.wrong is None else "logit difference"

    @property
    def rest(self) -> Float[np.ndarray, " prompt"]:
        """Rounding error: logit - sum of contributions."""
        return self.logits - self.contributions.sum(-1)

    @property
    def mean(self) -> Float[np.ndarray, " component"]:
        """Contributions, averaged over prompts."""
        return self.contributions.mean(0)

    def folded(self) -> "LogitAttribution":
        """Return a copy with the neurons of each MLP summed, and all biases summed."""
        components, values = _folded(self.components, self.contributions)
        return replace(self, components=components, contributions=values)

    def top(self, count: int = 10, seed: int = 0) -> "pd.DataFrame":
        """Return the components with the largest absolute mean contributions, largest first.

        Returns:
            component, kind, layer, head (neuron), mean, low, high: a 95 % bootstrap interval over prompts,
            missing for one prompt.
        """
        import pandas as pd

        order = np.argsort(-np.abs(self.mean), kind="stable")[:count]
        changes = [bootstrap_mean(self.contributions[:, index], seed=seed) for index in order]
        frame = pd.DataFrame(_columns([self.components[index] for index in order]))
        return frame.assign(**{name: [getattr(c, name) for c in changes] for name in ("mean", "low", "high")})

    def to_frame(self) -> "pd.DataFrame":
        """Return one row a prompt and component: prompt, component, kind, layer, head (neuron),
        contribution."""
        import pandas as pd

        count = len(self.components)
        components = pd.DataFrame(_columns(self.components))
        frame = pd.concat([components] * len(self.prompts), ignore_index=True)
        frame.insert(0, "prompt", np.repeat(np.arange(len(self.prompts)), count))
        return frame.assign(contribution=self.contributions.ravel())

    def summary(self, rows: int = 15) -> "RenderableType":
        """Return the components with the largest contributions, averaged over prompts, and their sum."""
        answer = repr(self.right[0]) + ("" if self.wrong is None else f" − {self.wrong[0]!r}")
        where = repr(self.prompts[0]) if len(self.prompts) == 1 else f"{len(self.prompts)} prompts (mean)"
        title = f"{self.quantity} {answer} after {where}\n"
        return stack(
            title, _parts(self.components, {"logit": (self.mean, 0.0, float(self.logits.mean()))}, rows)
        )

    def plot(self, ax: "Axes | None" = None, count: int = 20) -> "Figure":
        """Draw the largest mean contributions, with intervals over prompts, and return the figure.

        Args:
            ax: axes to draw into; a new figure if not set.
            count: number of components.
        """
        from workbench.plots.components import plot_logits
        from workbench.plots.primitives import plain

        answer = repr(self.right[0]) + ("" if self.wrong is None else f" − {self.wrong[0]!r}")
        over = f", mean of {len(self.prompts)} prompts" if len(self.prompts) > 1 else ""
        title = f"{self.quantity} {plain(answer)}: {self.logits.mean():+.2f}{over}"
        frame = self.top(count)
        return plot_logits(frame, title=title, omitted=len(self.components) - len(frame), ax=ax)


def attribute_text(
    model: ModelLike,
    text: str,
    *,
    tokenizer: "PreTrainedTokenizerFast | None" = None,
    protocol: str = "native",
    pll: str = "original",
    neurons: bool = False,
    biases: bool = False,
) -> TextAttribution:
    """Decompose each token's log-probability into contributions of embeddings, heads, MLPs and biases.

    Args:
        model: half-precision weights are computed in float32.
        text: without special tokens; the protocol adds its own.
        tokenizer: the model's own, if the model does not carry it.
        protocol: a key of `workbench.evals.protocols.PROTOCOLS`; a mean over tokens is taken as a sum.
        pll: `original` or `within_word_l2r`, for masked models.
        neurons: list each neuron instead of each MLP.
        biases: list each bias instead of their sum.

    Raises:
        InputError: empty text, text longer than the context, a protocol or tokenizer that does not fit.
    """
    _, model, own = open_model(model)
    tokenizer = own if tokenizer is None else tokenizer
    chosen = find_protocol(protocol, model.config.objective, pll)
    with ready(model) as network:
        return _attribute(network, tokenizer, text, chosen, pll, "the text", neurons, biases)


def attribute_pair(
    model: ModelLike,
    sentence_good: str,
    sentence_bad: str,
    *,
    tokenizer: "PreTrainedTokenizerFast | None" = None,
    protocol: str = "native",
    pll: str = "original",
    neurons: bool = False,
    biases: bool = False,
) -> PairAttribution:
    """Decompose a model's preference between the sentences of a pair, at the position where they first
    differ and over the whole sentences.

    The sentences may differ in length or in many places; if one is a prefix of the other, the shown position
    is the first token that only the longer one has. Norms between component and readout are frozen. Direct
    means: effects of a component on later components are not included.

    Args:
        model: causal or masked; half-precision weights are computed in float32.
        sentence_good: the grammatical sentence.
        sentence_bad: the ungrammatical sentence.
        tokenizer: the model's own, if the model does not carry it.
        protocol: a key of `workbench.evals.protocols.PROTOCOLS`; a mean over tokens is taken as a sum.
        pll: `original` or `within_word_l2r`, for masked models.
        neurons: list each neuron instead of each MLP; memory is one number a token and neuron.
        biases: list each bias instead of their sum.

    Raises:
        InputError: equal or empty sentences, one longer than the context, a protocol or tokenizer that
            does not fit.
    """
    _, model, own = open_model(model)
    tokenizer = own if tokenizer is None else tokenizer
    chosen = find_protocol(protocol, model.config.objective, pll)
    if sentence_good == sentence_bad:
        raise InputError("the two sentences are equal; change a word in one of them.")
    with ready(model) as network:
        good, bad = (
            _attribute(network, tokenizer, text, chosen, pll, name, neurons, biases)
            for text, name in ((sentence_good, "the first sentence"), (sentence_bad, "the second sentence"))
        )
    place = first_difference(good.ids, bad.ids)
    causal = model.config.objective == "clm"
    if causal:
        # The shared prefix was run twice; the same numbers on both sides cancel exactly.
        bad.log_probs[:place] = good.log_probs[:place]
        bad.contributions[:place] = good.contributions[:place]
    same_context = place < min(len(good.ids), len(bad.ids)) and (
        causal
        or (
            bool(good.places[place] == bad.places[place])
            and np.array_equal(good.contexts[good.rows[place]], bad.contexts[bad.rows[place]])
        )
    )
    return PairAttribution(good, bad, place, same_context, chosen, None if causal else pll)


def first_difference(a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray) -> int:
    """Return the first index at which two sequences differ; the shorter length if one is a prefix.

    Raises:
        InputError: they are equal.
    """
    for index, (first, second) in enumerate(zip(a, b, strict=False)):
        if first != second:
            return index
    if len(a) == len(b):
        raise InputError("the two sentences have the same tokens; change a word in one of them.")
    return min(len(a), len(b))


def _attribute(
    model: "HookedTransformer",
    tokenizer: "PreTrainedTokenizerFast | None",
    text: str,
    protocol: Protocol,
    pll: str,
    name: str,
    neurons: bool,
    biases: bool,
) -> TextAttribution:
    scored = scored_tokens(model, tokenizer, text, protocol, pll, name)
    ids, contexts, rows, places = (torch.from_numpy(part).to(model.device) for part in scored)
    outputs = record_outputs(model, contexts, rows, places, neurons)
    direction, bias, log_probs = log_prob_directions(model, outputs.final, ids)
    bias = None if model.readout_bias is None else bias
    components, contributions = decompose(model, outputs, direction, bias, neurons=neurons, biases=biases)
    return TextAttribution(
        text=text,
        ids=scored.ids,
        tokens=tuple(token_texts(tokenizer, scored.ids.tolist())),
        log_probs=log_probs.cpu().numpy(),
        contributions=contributions.cpu().numpy(),
        components=components,
        uniform=-math.log(model.config.d_vocab),
        contexts=scored.contexts,
        rows=scored.rows,
        places=scored.places,
    )


@torch.no_grad()
def attribute_logits(
    model: ModelLike,
    prompts: str | list[str] | Int[Tensor, "prompt pos"],
    right: Any,
    wrong: Any = None,
    *,
    position: int | Sequence[int] | None = None,
    neurons: bool = False,
    biases: bool = False,
) -> LogitAttribution:
    """Decompose the logit of the right answer, or right minus wrong, into contributions of components.

    A logit is linear in the stream once the norms between a component and the unembedding are frozen at
    their scale in this run (Elhage et al. 2021; by heads in Wang et al. 2022, arXiv:2211.00593), so the
    contributions sum to it exactly. A single logit has an arbitrary offset that all tokens share; prefer a
    difference. `b_V` reaches the stream through the heads and counts with them.

    Args:
        model: causal or masked; half precision is computed in float32.
        prompts: text or texts (BOS is prepended), or token ids.
        right: the answer, one token as text or id, for all prompts or one for each.
        wrong: the answer it is compared with; None for the logit of the right answer alone.
        position: where the answer is predicted, for all prompts or for each; negative from the row's end. If
            not set the last token, or a masked model's mask: `The<mask> likes` for a token with its space.
        neurons: list each neuron instead of each MLP; memory is one number a prompt and neuron.
        biases: list each bias instead of their sum.

    Raises:
        InputError: answers that are not one token each or are the same, a position outside the prompt, or a
            masked model's prompt without exactly one mask.
    """
    with ready(as_model(model)) as network:
        tokens, real = network.to_input(prompts, None, None)
        places = read_positions(network, tokens, real, position)
        count = len(tokens)
        good = answers(network, right, count, "right").to(tokens.device)
        bad = None if wrong is None else answers(network, wrong, count, "wrong").to(tokens.device)
        if bad is not None and bool((good == bad).any()):
            raise InputError("the right and the wrong answer are the same token; choose two.")
        options = {} if real is None else {"attention_mask": real}
        rows = torch.arange(count, device=tokens.device)
        outputs = record_outputs(network, tokens, rows, places, neurons, **options)
        weight, unembed_bias = network.readout_weight.detach().double(), network.readout_bias
        direction = weight[good] if bad is None else weight[good] - weight[bad]
        bias = None
        if unembed_bias is not None:
            unembed_bias = unembed_bias.detach().double()
            bias = unembed_bias[good] if bad is None else unembed_bias[good] - unembed_bias[bad]
        logits = (outputs.final.double() * direction).sum(-1) + (0 if bias is None else bias)
        components, values = decompose(network, outputs, direction, bias, neurons=neurons, biases=biases)
        texts = tokens if real is None else [row[mask] for row, mask in zip(tokens, real, strict=True)]
        ids = network.tokenizer is None
        shown = tuple(
            " ".join(map(str, row.tolist())) if ids else str(network.to_string(row)) for row in texts
        )
    return LogitAttribution(
        prompts=shown,
        positions=places.cpu().numpy(),
        right=tuple(token_text(network.tokenizer, token) for token in good.tolist()),
        wrong=None if bad is None else tuple(token_text(network.tokenizer, token) for token in bad.tolist()),
        logits=logits.cpu().numpy(),
        contributions=values.cpu().numpy(),
        components=components,
    )


def _folded(
    components: Sequence[Component], values: Float[np.ndarray, "*rows component"]
) -> tuple[tuple[Component, ...], Float[np.ndarray, "*rows coarse"]]:
    """Sum the contributions of each MLP's neurons, and of all biases."""
    indices: dict[Component, list[int]] = {}
    for index, component in enumerate(components):
        if component.kind == "neuron":
            component = Component(component.layer, "mlp")
        elif component.kind == "bias":
            component = Component(None, "biases")
        indices.setdefault(component, []).append(index)
    return tuple(indices), np.stack([values[..., chosen].sum(-1) for chosen in indices.values()], -1)


def _columns(components: Sequence[Component]) -> dict[str, Any]:
    """Return the columns of a frame that name components; `neuron` only if there are any."""
    import pandas as pd

    numbers = ["layer", "head", *["neuron"] * any(c.neuron is not None for c in components)]
    return {
        "component": [c.label for c in components],
        "kind": [c.kind for c in components],
        **{name: pd.array([getattr(c, name) for c in components], dtype="Int64") for name in numbers},
    }


@dataclass(frozen=True, eq=False, repr=False)
class LayerWeights(Result):
    """The learned weights of a `residual="weighted"` model over its earlier layers (Charpentier & Samuel
    2023, arXiv:2311.02265, ELC-BERT); each row sums to one."""

    weights: Float[np.ndarray, "reader source"]
    """Weight of each source in what a reader reads; NaN for later sources."""
    readers: tuple[str, ...]
    """The blocks from the second on, and the readout. The first block reads the embedding."""
    sources: tuple[str, ...]
    """The embedding and all blocks."""

    def to_frame(self) -> "pd.DataFrame":
        """Return one row a reader and source that it can read: reads, from, weight."""
        import pandas as pd

        reader, source = np.nonzero(~np.isnan(self.weights))
        return pd.DataFrame(
            {
                "reads": np.array(self.readers, dtype=object)[reader],
                "from": np.array(self.sources, dtype=object)[source],
                "weight": self.weights[reader, source],
            }
        )

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw the weights as a heat map and return the figure."""
        from workbench.plots.components import plot_layer_weights

        return plot_layer_weights(self.weights, self.readers, self.sources, ax)


def layer_weights(model: ModelLike) -> LayerWeights:
    """Return the weights over earlier layers of a model with `residual="weighted"`.

    Raises:
        InputError: the model's residual stream is plain.
    """
    model = as_model(model)
    if model.config.residual != "weighted":
        raise InputError(
            f"model.residual = {model.config.residual!r} has no layer weights; only 'weighted' has."
        )
    count = model.config.n_layers
    weights = np.full((count, count + 1), np.nan)
    for index, block in enumerate(model.blocks):
        mix = cast("LayerMix", block.mix)
        weights[index, : index + 2] = mix.logits.detach().double().softmax(-1).cpu().numpy()
    return LayerWeights(
        weights=weights,
        readers=(*(f"block {index}" for index in range(1, count)), "readout"),
        sources=("embedding", *(f"block {index}" for index in range(count))),
    )

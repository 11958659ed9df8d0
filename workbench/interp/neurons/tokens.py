"""The tokens that a neuron promotes, suppresses and reads, from its weights alone.

Geva et al. 2022 (arXiv:2203.14680): a neuron adds its row of `W_out` to the residual stream, and the
unembedding turns that into logits: `(W_out[i] * gain) @ W_U`, centred as the norms centre it, and over the
vocabulary, for a softmax does not see a common shift. Scores are logits for a unit of activation and a
denominator of one in each norm: they rank tokens, and say nothing without the activation.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError, shown
from workbench.interp.neurons.paths import WithoutDenominators, mlp_paths
from workbench.interp.neurons.rows import neuron_layers
from workbench.interp.parts import Part, find_parts

if TYPE_CHECKING:
    import pandas as pd

SCORES_AT_ONCE = 2**24
"""Scores [neuron, d_vocab] held at once."""


class Scored(NamedTuple):
    """A token and what a neuron gives it."""

    token: int
    text: str
    score: float


@dataclasses.dataclass(frozen=True)
class NeuronTokens:
    """The tokens at both ends of one neuron's list."""

    layer: int
    neuron: int
    side: str
    """`output`: promoted and suppressed. `input`: tokens whose embeddings excite and inhibit it."""
    promoted: tuple[Scored, ...]
    """Highest score first."""
    suppressed: tuple[Scored, ...]
    """Lowest score first."""

    def to_frame(self) -> "pd.DataFrame":
        """One row a token: end (promoted or suppressed), rank, token, text, score."""
        import pandas as pd

        rows = [
            (end, rank, *scored)
            for end, those in (("promoted", self.promoted), ("suppressed", self.suppressed))
            for rank, scored in enumerate(those)
        ]
        return pd.DataFrame(rows, columns=["end", "rank", "token", "text", "score"])


@dataclasses.dataclass(frozen=True)
class AllNeuronTokens:
    """The same for every neuron of some layers, as arrays."""

    layers: Int[np.ndarray, " layer"]
    promoted: Int[np.ndarray, "layer neuron rank"]
    promoted_scores: Float[np.ndarray, "layer neuron rank"]
    suppressed: Int[np.ndarray, "layer neuron rank"]
    suppressed_scores: Float[np.ndarray, "layer neuron rank"]
    texts: dict[int, str]
    """Of every token that is named."""

    def of(self, layer: int, neuron: int) -> NeuronTokens:
        """One neuron's.

        Raises:
            InputError: it is not among them.
        """
        if layer not in self.layers or not 0 <= neuron < self.promoted.shape[1]:
            have = ", ".join(f"L{one}" for one in self.layers)
            raise InputError(
                f"L{layer}N{neuron} is not there; there are N0 to N{self.promoted.shape[1] - 1} of {have}."
            )
        at = (int(np.flatnonzero(self.layers == layer)[0]), neuron)
        ends = [
            tuple(
                Scored(int(t), self.texts[int(t)], float(s)) for t, s in zip(ids[at], scores[at], strict=True)
            )
            for ids, scores in (
                (self.promoted, self.promoted_scores),
                (self.suppressed, self.suppressed_scores),
            )
        ]
        return NeuronTokens(layer, neuron, "output", *ends)

    def to_frame(self) -> "pd.DataFrame":
        """One row a neuron: layer, neuron, promoted and suppressed tokens as lists of text."""
        import pandas as pd

        words = np.vectorize(self.texts.__getitem__, otypes=[object])
        count = self.promoted.shape[1]
        return pd.DataFrame(
            {
                "layer": np.repeat(self.layers, count),
                "neuron": np.tile(np.arange(count), len(self.layers)),
                "promoted": list(words(self.promoted).reshape(-1, self.promoted.shape[2])),
                "suppressed": list(words(self.suppressed).reshape(-1, self.suppressed.shape[2])),
            }
        )


@torch.no_grad()
def promoted_tokens(
    model: Any, layer: int, neuron: int, count: int = 10, among: Sequence[int] | None = None
) -> NeuronTokens:
    """The tokens whose logits a neuron raises and lowers most.

    Denominators of norms are left out. In a post-norm model all norms behind the neuron count with their
    gains; a masked model's head counts with the slope that its activation has where the normed stream is
    zero; a weighted residual stream with its learned weight. With several hidden layers (mlp_depth) the
    neurons are the last one's.

    Args:
        model: a `HookedTransformer`.
        layer: its block.
        neuron: its number there.
        count: tokens at each end.
        among: only these tokens: those of a corpus, for the vectors of tokens that training never met stand
            at both ends of many lists.

    Raises:
        InputError: a neuron or token that is not there, or a count that is not 1 to the number of tokens.
    """
    ids = _checked(model, layer, neuron, count, among)
    vector = model.blocks[layer].mlp.W_out[neuron].double()
    return _ends(model, layer, neuron, "output", _readers(model)[layer] @ vector, count, ids)


@torch.no_grad()
def all_promoted_tokens(
    model: Any,
    layers: Sequence[int] | None = None,
    count: int = 10,
    among: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AllNeuronTokens:
    """`promoted_tokens` of every neuron, many in one product.

    Args:
        model: a `HookedTransformer`.
        layers: only these blocks.
        count: tokens at each end.
        among: only these tokens.
        progress: told the neurons done and their number.

    Raises:
        InputError: a block without an MLP, or tokens or a count as `promoted_tokens`.
    """
    chosen = neuron_layers(model.config, layers)
    ids = _checked(model, chosen[0], 0, count, among)
    readers, width = _readers(model), model.config.mlp_width
    size = max(1, SCORES_AT_ONCE // model.config.d_vocab)
    wide = torch.promote_types(model.dtype, torch.float32)
    parts: list[list[Tensor]] = []
    done = 0
    for layer in chosen:
        reader = readers[layer][ids].to(wide)
        for rows in model.blocks[layer].mlp.W_out.to(wide).split(size):
            scores = rows @ reader.T
            high, low = scores.topk(count), scores.topk(count, largest=False)
            parts.append([ids[high.indices], high.values, ids[low.indices], low.values])
            done += len(rows)
            if progress is not None:
                progress(done, len(chosen) * width)
    high, highs, low, lows = (
        torch.cat(column).view(len(chosen), width, count).cpu().numpy() for column in zip(*parts, strict=True)
    )
    named = np.unique(np.concatenate([high.ravel(), low.ravel()])).tolist()
    texts = dict(zip(named, _texts(model, named), strict=True))
    return AllNeuronTokens(np.array(chosen), high, highs.astype(float), low, lows.astype(float), texts)


@torch.no_grad()
def input_tokens(
    model: Any, layer: int, neuron: int, count: int = 10, among: Sequence[int] | None = None
) -> NeuronTokens:
    """The tokens whose embeddings, read where the neuron reads, raise and lower its `hook_pre` most.

    The direct path alone, `(W_E * gain) @ W_in`, centred as above: what attention and earlier MLPs make of a
    token is left out, so it says most in the first blocks. In a gated MLP `W_gate` stands for `W_in`, for it
    decides whether the neuron fires.

    Args:
        model: a `HookedTransformer`.
        layer: its block.
        neuron: its number there.
        count: tokens at each end.
        among: only these tokens.

    Raises:
        InputError: as `promoted_tokens`, or a neuron that does not read the residual stream (mlp_depth > 1).
    """
    ids = _checked(model, layer, neuron, count, among)
    if model.config.mlp_depth > 1:
        raise InputError(
            f"L{layer}N{neuron} reads other neurons, for mlp_depth is {model.config.mlp_depth}; no token's "
            "embedding stands before it."
        )
    block, embed = model.blocks[layer], model.embed
    weight = (block.mlp.W_in if block.mlp.W_gate is None else block.mlp.W_gate)[:, neuron].double()
    if model.config.norm_place == "post":
        norm = block.ln1 if block.kind == "am" else None
    else:
        norm = block.ln2
    weight = _before(norm, weight)
    if embed.up_weight is not None:
        weight = weight @ embed.up_weight.double()
    scores = embed.W_E.double() @ _before(embed.norm, weight)
    return _ends(model, layer, neuron, "input", scores - scores.mean(), count, ids)


def _before(norm: Any, weight: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
    """Weights behind a norm as weights before it, its denominator left out."""
    if norm is None:
        return weight
    weight = weight * norm.w.double()
    return weight - weight.mean() if hasattr(norm, "b") else weight


def _readers(model: Any) -> dict[int, Float[Tensor, "d_vocab d_model"]]:
    """By layer: what a vector that its MLP writes is multiplied with to give centred logits; float64."""
    weight = model.readout_weight.double()
    kept = WithoutDenominators(model)
    return {layer: path.direction for layer, path in mlp_paths(model, kept, weight - weight.mean(0))}


def _ends(
    model: Any,
    layer: int,
    neuron: int,
    side: str,
    scores: Float[Tensor, " d_vocab"],
    count: int,
    ids: Int[Tensor, " token"],
) -> NeuronTokens:
    ends = []
    for largest in (True, False):
        end = scores[ids].topk(count, largest=largest)
        tokens = ids[end.indices].tolist()
        ends.append(tuple(map(Scored, tokens, _texts(model, tokens), end.values.tolist())))
    return NeuronTokens(layer, neuron, side, *ends)


def _texts(model: Any, tokens: list[int]) -> list[str]:
    if model.tokenizer is None:
        return [str(token) for token in tokens]
    return model.to_str_tokens(torch.tensor(tokens))


def _checked(
    model: Any, layer: int, neuron: int, count: int, among: Sequence[int] | None
) -> Int[Tensor, " token"]:
    """The tokens to choose from."""
    find_parts(model.config, Part(layer, "neuron", neuron))
    every = torch.arange(model.config.d_vocab, device=model.device)
    if among is not None:
        every = torch.as_tensor(among, device=model.device).long().unique()
        if len(every) and not 0 <= int(every[0]) <= int(every[-1]) < model.config.d_vocab:
            low, high = int(every[0]), int(every[-1])
            raise InputError(f"tokens run from {low} to {high}; the vocabulary has {model.config.d_vocab}.")
    if not 1 <= count <= len(every):
        what = "the vocabulary" if among is None else "the tokens given"
        raise InputError(f"{shown(count)} tokens at each end: choose 1 to {len(every)}, {what}.")
    return every

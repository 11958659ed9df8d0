"""The tokens that a neuron promotes, suppresses and reads, from its weights alone.

Geva et al. 2022 (arXiv:2203.14680): a neuron adds its row of `W_out` to the residual stream, and the
unembedding turns that into logits, `(W_out[i] * gain) @ W_U`. Scores are centred over the vocabulary, because
a softmax ignores a common shift, and are for a unit of activation and denominators of one in all norms: they
rank tokens, and say nothing about how strongly the neuron is active.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.console import OnProgress, progress_bar
from workbench.data.tokenizer import token_text
from workbench.errors import InputError, shown
from workbench.interp.components import Component, find_components
from workbench.interp.contributions import FrozenPath, path_from_readout, walk_back
from workbench.interp.neurons.examples import NeuronName, neuron_layers, parse_neuron
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model

if TYPE_CHECKING:
    import pandas as pd

    from workbench.model.transformer import Block, HookedTransformer

SCORES_AT_ONCE = 2**24
"""Scores [neuron, d_vocab] in memory at a time."""


class TokenScore(NamedTuple):
    """A token and its score."""

    token: int
    text: str
    score: float


@dataclasses.dataclass(frozen=True, repr=False)
class NeuronTokens(Result):
    """The tokens with the highest and lowest scores of one neuron."""

    layer: int
    neuron: int
    side: str
    """`output`: tokens whose logits it changes most; `input`: tokens whose embeddings change it most."""
    promoted: tuple[TokenScore, ...]
    """Highest score first."""
    suppressed: tuple[TokenScore, ...]
    """Lowest score first."""

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per token: end (promoted or suppressed), rank, token, text, score."""
        import pandas as pd

        rows = [
            (end, rank, *score)
            for end, scores in (("promoted", self.promoted), ("suppressed", self.suppressed))
            for rank, score in enumerate(scores)
        ]
        return pd.DataFrame(rows, columns=["end", "rank", "token", "text", "score"])


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class AllNeuronTokens(Result):
    """The promoted and suppressed tokens of every neuron of some layers."""

    layers: Int[np.ndarray, " layer"]
    promoted: Int[np.ndarray, "layer neuron rank"]
    promoted_scores: Float[np.ndarray, "layer neuron rank"]
    suppressed: Int[np.ndarray, "layer neuron rank"]
    suppressed_scores: Float[np.ndarray, "layer neuron rank"]
    texts: dict[int, str]
    """Text of every token above."""

    def of(self, layer: int, neuron: int) -> NeuronTokens:
        """Return the tokens of one neuron.

        Raises:
            InputError: the neuron is not among these.
        """
        width = self.promoted.shape[1]
        if layer not in self.layers or not 0 <= neuron < width:
            layers = ", ".join(f"L{one}" for one in self.layers)
            raise InputError(
                f"L{layer}N{neuron} was not read; the neurons read are N0 to N{width - 1} of {layers}."
            )
        at = int(np.flatnonzero(self.layers == layer)[0]), neuron

        def end(tokens: np.ndarray, scores: np.ndarray) -> tuple[TokenScore, ...]:
            pairs = zip(tokens[at].tolist(), scores[at].tolist(), strict=True)
            return tuple(TokenScore(token, self.texts[token], score) for token, score in pairs)

        promoted = end(self.promoted, self.promoted_scores)
        return NeuronTokens(layer, neuron, "output", promoted, end(self.suppressed, self.suppressed_scores))

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per neuron: layer, neuron, promoted and suppressed tokens as lists of text."""
        import pandas as pd

        texts = np.vectorize(self.texts.__getitem__, otypes=[object])
        _, width, count = self.promoted.shape
        return pd.DataFrame(
            {
                "layer": np.repeat(self.layers, width),
                "neuron": np.tile(np.arange(width), len(self.layers)),
                "promoted": list(texts(self.promoted).reshape(-1, count)),
                "suppressed": list(texts(self.suppressed).reshape(-1, count)),
            }
        )


@torch.no_grad()
def promoted_tokens(
    model: ModelLike,
    layer: int | NeuronName,
    neuron: int | None = None,
    count: int = 10,
    among: Sequence[int] | None = None,
) -> NeuronTokens:
    """Return the tokens whose logits a neuron raises and lowers most.

    The denominators of norms are ignored. In a post-norm model the gains of all norms after the neuron are
    applied; a masked model's head is applied with the slope that its activation has where the normed stream
    is zero, and a weighted residual stream with its learned weights. With several hidden layers (mlp_depth)
    the neurons are those of the last one.

    Args:
        model: a run, a `HookedTransformer` or the name of a run.
        layer: the block, or the neuron as `"L2N17"` or `(2, 17)`.
        neuron: the neuron in that block.
        count: tokens at each end.
        among: only these tokens, such as those of a corpus, because the vectors of tokens that never occurred
            in training are at both ends of many lists.

    Raises:
        InputError: a neuron or token that is out of range, or a count outside 1 to the number of tokens.
    """
    network = as_model(model)
    layer, neuron = _neuron(network, layer, neuron)
    ids = _token_choice(network, count, among)
    vector = _block(network, layer).mlp.W_out[neuron].double()  # type: ignore[union-attr]
    return _ends(network, (layer, neuron), "output", _readers(network)[layer] @ vector, count, ids)


@torch.no_grad()
def all_promoted_tokens(
    model: ModelLike,
    layers: Sequence[int] | None = None,
    count: int = 10,
    among: Sequence[int] | None = None,
    progress: bool | OnProgress | None = None,
) -> AllNeuronTokens:
    """Return the `promoted_tokens` of every neuron, computed as matrix products.

    Args:
        model: a run, a `HookedTransformer` or the name of a run.
        layers: only these blocks.
        count: tokens at each end.
        among: only these tokens.
        progress: see `progress_bar`.

    Raises:
        InputError: a block without an MLP, or tokens or a count as for `promoted_tokens`.
    """
    network = as_model(model)
    layers = neuron_layers(network.config, layers)
    ids = _token_choice(network, count, among)
    readers, width = _readers(network), network.config.mlp_width
    size = max(1, SCORES_AT_ONCE // network.config.d_vocab)
    dtype = torch.promote_types(network.dtype, torch.float32)
    parts: list[list[Tensor]] = []
    done, total = 0, len(layers) * width
    with progress_bar(progress, "Promoted tokens") as on_progress:
        for layer in layers:
            reader = readers[layer][ids].to(dtype)
            for rows in _block(network, layer).mlp.W_out.to(dtype).split(size):  # type: ignore[union-attr]
                scores = rows @ reader.T
                high, low = scores.topk(count), scores.topk(count, largest=False)
                parts.append([ids[high.indices], high.values, ids[low.indices], low.values])
                done += len(rows)
                on_progress(done / total, f"{done:,} of {total:,} neurons")
    high, highs, low, lows = (
        torch.cat(column).view(len(layers), width, count).cpu().numpy() for column in zip(*parts, strict=True)
    )
    tokens = np.unique(np.concatenate([high.ravel(), low.ravel()])).tolist()
    texts = dict(zip(tokens, _texts(network, tokens), strict=True))
    return AllNeuronTokens(np.array(layers), high, highs.astype(float), low, lows.astype(float), texts)


@torch.no_grad()
def input_tokens(
    model: ModelLike,
    layer: int | NeuronName,
    neuron: int | None = None,
    count: int = 10,
    among: Sequence[int] | None = None,
) -> NeuronTokens:
    """Return the tokens whose embeddings raise and lower a neuron's `hook_pre` most.

    Only the direct path counts, `(W_E * gain) @ W_in`, centred as above. What attention and earlier MLPs make
    of a token is ignored, so the result is most reliable in the first blocks. In a gated MLP `W_gate` takes
    the place of `W_in`, because it decides whether the neuron is active.

    Args:
        model: a run, a `HookedTransformer` or the name of a run.
        layer: the block, or the neuron as `"L2N17"` or `(2, 17)`.
        neuron: the neuron in that block.
        count: tokens at each end.
        among: only these tokens.

    Raises:
        InputError: as `promoted_tokens`, or a neuron that does not read the residual stream (mlp_depth > 1).
    """
    network = as_model(model)
    layer, neuron = _neuron(network, layer, neuron)
    ids = _token_choice(network, count, among)
    if network.config.mlp_depth > 1:
        raise InputError(
            f"L{layer}N{neuron} reads other neurons (mlp_depth is {network.config.mlp_depth}), so no token's "
            "embedding reaches it directly."
        )
    block, embed = _block(network, layer), network.embed
    mlp = block.mlp
    weight = (mlp.W_in if mlp.W_gate is None else mlp.W_gate)[:, neuron].double()  # type: ignore[union-attr]
    if network.config.norm_place == "post":
        norm = block.ln1 if block.kind == "am" else None
    else:
        norm = block.ln2
    weight = _before_norm(norm, weight)
    if embed.up_weight is not None:
        weight = weight @ embed.up_weight.double()
    scores = embed.W_E.double() @ _before_norm(embed.norm, weight)
    return _ends(network, (layer, neuron), "input", scores - scores.mean(), count, ids)


def _before_norm(norm: nn.Module | None, weight: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
    """Return weights that read a norm's output as weights that read its input, without its denominator."""
    if norm is None:
        return weight
    weight = weight * cast(Tensor, norm.w).double()
    return weight - weight.mean() if hasattr(norm, "b") else weight


def _block(model: "HookedTransformer", layer: int) -> "Block":
    return cast("Block", model.blocks[layer])


def _neuron(model: "HookedTransformer", layer: int | NeuronName, neuron: int | None) -> tuple[int, int]:
    component = Component(layer, "neuron", neuron) if isinstance(layer, int) else parse_neuron(layer)
    if component is None or component.unit is None:
        raise InputError(f"Expected a neuron such as 'L0N17' or (0, 17), found {shown(layer)!r}.")
    return find_components(model.config, component)[0].place


def _token_choice(
    model: "HookedTransformer", count: int, among: Sequence[int] | None
) -> Int[Tensor, " token"]:
    """Return the tokens to choose from."""
    d_vocab = model.config.d_vocab
    tokens = torch.arange(d_vocab, device=model.device)
    if among is not None:
        tokens = torch.as_tensor(among, device=model.device).long().unique()
        if len(tokens) and not 0 <= int(tokens[0]) <= int(tokens[-1]) < d_vocab:
            low, high = int(tokens[0]), int(tokens[-1])
            raise InputError(f"Token ids run from {low} to {high}; the vocabulary has {d_vocab}.")
    if not 1 <= count <= len(tokens):
        source = "the vocabulary" if among is None else "the given tokens"
        raise InputError(f"count must be 1 to {len(tokens)}, the size of {source}; found {shown(count)}.")
    return tokens


def _ends(
    model: "HookedTransformer",
    place: tuple[int, int],
    side: str,
    scores: Float[Tensor, " d_vocab"],
    count: int,
    ids: Int[Tensor, " token"],
) -> NeuronTokens:
    ends = []
    for largest in (True, False):
        end = scores[ids].topk(count, largest=largest)
        tokens = ids[end.indices].tolist()
        ends.append(tuple(map(TokenScore, tokens, _texts(model, tokens), end.values.tolist())))
    return NeuronTokens(*place, side, *ends)


def _texts(model: "HookedTransformer", tokens: list[int]) -> list[str]:
    if model.tokenizer is None:
        return [str(token) for token in tokens]
    return [token_text(model.tokenizer, token) for token in tokens]


# From the readout back to the neurons: the walk of `contributions.decompose`, stopping at each MLP.


def mlp_paths(
    model: "HookedTransformer", activations: Mapping[str, Tensor], direction: Float[Tensor, "read width"]
) -> Iterator[tuple[int, FrozenPath]]:
    """Yield each block that has an MLP, from the last to the first, and the path at the output of the MLP.

    `path.direction @ out_weight` is what a unit of each neuron adds to the quantity that is explained.

    Args:
        model: the model.
        activations: what is frozen, by hook name, [read ...].
        direction: in the space that the unembedding reads.
    """
    for index, module, path in walk_back(model, path_from_readout(model, activations, direction)):
        if module == "mlp":
            yield index, path.branch()


def _readers(model: "HookedTransformer") -> dict[int, Float[Tensor, "d_vocab d_model"]]:
    """Return, by layer, the matrix that turns a vector written by its MLP into centred logits; float64."""
    weight = model.readout_weight.double()
    frozen = _UnitDenominators(model)
    return {layer: path.direction for layer, path in mlp_paths(model, frozen, weight - weight.mean(0))}


class _UnitDenominators(dict[str, Tensor]):
    """The frozen activations of a path without a run: all denominators of norms are one.

    The activation of a masked model's head has the slope that it has where the normed stream is zero, and a
    weighted residual stream its learned weights.
    """

    @torch.no_grad()
    def __init__(self, model: "HookedTransformer") -> None:
        super().__init__()
        last = len(model.blocks) - 1
        block = _block(model, last)
        if model.mlm_head is not None:
            head, norm = model.mlm_head, model.ln_final
            if model.config.norm_place == "post":
                norm = block.ln1 if block.ln2 is None else block.ln2
            centre = getattr(norm, "b", None)
            pre = head.bias if centre is None else head.weight @ centre + head.bias
            pre = torch.where(pre.abs() < 1e-6, 1e-6, pre.double())  # post / pre has a limit at 0
            self["mlm_head.hook_pre"], self["mlm_head.hook_post"] = pre[None], head.activation(pre)[None]
        if model.config.residual == "weighted":
            self[f"blocks.{last}.hook_mix"] = block.mix.logits.softmax(-1)[None]  # type: ignore[union-attr]

    def __missing__(self, name: str) -> Tensor:
        return torch.ones(1, 1, dtype=torch.float64)

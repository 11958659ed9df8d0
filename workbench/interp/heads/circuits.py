"""What a head's weights alone say: its circuits through the vocabulary, copying, and composition.

Elhage et al. 2021 (transformer-circuits.pub/2021/framework). QK: which token, as a query, scores which as a
key; OV: which token, when attended to, raises which token's logit. Norms stand with their gains and centring
and without their denominators; biases and positions are left out; the activation in a masked model's head is
taken as the identity. No matrix of d_vocab x d_vocab is ever made.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import FactoredMatrix

from workbench.errors import InputError
from workbench.evals.scoring import ready
from workbench.interp.patching.sites import find_site, layers_with

if TYPE_CHECKING:
    import pandas as pd


def _after_norm(norm: Any, weight: Tensor) -> Tensor:
    """A map [... d_model d] that reads a norm's output, as one that reads its input."""
    if norm is None:
        return weight
    weight = norm.w[:, None] * weight
    return weight - weight.mean(-2, keepdim=True) if hasattr(norm, "b") else weight


def head_maps(model: Any, layer: int) -> dict[str, Tensor]:
    """Q, K, V [head d_model d] as they read the residual stream, and O [head d d_model] as it is written."""
    block = model.blocks[layer]
    attn = block.attn
    norm = None if model.config.norm_place == "post" else block.ln1
    maps = {name: _after_norm(norm, getattr(attn, f"W_{name}").detach()) for name in "QKV"}
    out = attn.W_O.detach()
    if attn.head_scale is not None:
        out = attn.head_scale.detach()[:, None, None] * out
    if block.ln1_post is not None:
        centred = hasattr(block.ln1_post, "b")
        out = (out - out.mean(-1, keepdim=True) if centred else out) * block.ln1_post.w
    return maps | {"O": out}


@torch.no_grad()
def _token_vectors(model: Any) -> Float[Tensor, "d_vocab d_model"]:
    """What each token puts into the residual stream, without its position."""
    vectors = model.embed.W_E if model.embed.W_type is None else model.embed.W_E + model.embed.W_type[0]
    return model.embed.complete(vectors[None])[0]


@torch.no_grad()
def _readout(model: Any) -> Float[Tensor, "d_model d_vocab"]:
    """From the residual stream to the logits, without norms' denominators, biases and activations."""
    weight = model.readout_weight.T
    if model.mlm_head is not None:
        weight = model.mlm_head.weight.T @ _after_norm(model.mlm_head.ln, weight)
    elif model.config.tied and model.embed.up_weight is not None:
        weight = model.embed.up_weight @ weight
    return _after_norm(model.ln_final, weight)


def _checked(model: Any, layer: int, head: int) -> None:
    have = layers_with(model.config, find_site("pattern"))
    if layer not in have or not 0 <= head < model.config.n_heads:
        raise InputError(
            f"there is no head {head} in layer {layer}: heads run from 0 to {model.config.n_heads - 1}, "
            f"layers with attention are {', '.join(map(str, have))}."
        )


@torch.no_grad()
def ov_circuit(model: Any, layer: int, head: int) -> FactoredMatrix:
    """Row: token attended to; column: token whose logit it raises. Factors of width d_value.

    Raises:
        InputError: no such head.
    """
    _checked(model, layer, head)
    with ready(model) as network:
        maps = head_maps(network, layer)
        return FactoredMatrix(_token_vectors(network) @ maps["V"][head], maps["O"][head] @ _readout(network))


@torch.no_grad()
def qk_circuit(model: Any, layer: int, head: int) -> FactoredMatrix:
    """Row: query token; column: key token; value: the attention score, scale included.

    Raises:
        InputError: no such head.
    """
    _checked(model, layer, head)
    with ready(model) as network:
        maps, vectors = head_maps(network, layer), _token_vectors(network)
        keys = vectors @ maps["K"][head] / network.config.scale
        return FactoredMatrix(vectors @ maps["Q"][head], keys.T)


@torch.no_grad()
def copying_scores(model: Any) -> Float[np.ndarray, "layer head"]:
    """Sum of the OV circuit's eigenvalues over the sum of their sizes: 1 copies, -1 suppresses, 0 neither.

    The eigenvalues of W_E W_V W_O W_U that are not 0 are those of W_O (W_U W_E) W_V, [d_value d_value].
    Layers are those with attention.

    Raises:
        InputError: the model has no attention.
    """
    layers = layers_with(model.config, find_site("pattern"))
    with ready(model) as network:
        through = (_readout(network) @ _token_vectors(network)).double()
        found = []
        for layer in layers:
            maps = head_maps(network, layer)
            values = torch.linalg.eigvals(maps["O"].double() @ through @ maps["V"].double())
            size = values.abs().sum(-1)
            found.append(torch.where(size > 0, values.sum(-1).real / size.clamp(min=1e-300), 0.0))
    return torch.stack(found).cpu().numpy()


@dataclasses.dataclass(frozen=True)
class TokenPairs:
    """The extreme entries of a circuit through the vocabulary, the most extreme first."""

    rows: Int[np.ndarray, " pair"]
    columns: Int[np.ndarray, " pair"]
    values: Float[np.ndarray, " pair"]
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]

    def to_frame(self) -> "pd.DataFrame":
        """One row a pair: row, column, value, row_token, column_token."""
        import pandas as pd

        return pd.DataFrame(
            {
                "row": self.rows, "column": self.columns, "value": self.values,
                "row_token": self.row_labels, "column_token": self.column_labels,
            }
        )  # fmt: skip

    def plot(self, ax: Any = None) -> Any:
        """A bar for each pair; needs matplotlib. Returns the axes."""
        from workbench.plots.circuits import plot_pairs

        return plot_pairs(self, ax)


@torch.no_grad()
def top_pairs(
    circuit: FactoredMatrix,
    count: int = 20,
    *,
    largest: bool = True,
    among: Any = None,
    tokenizer: Any = None,
    chunk: int = 1024,
) -> TokenPairs:
    """The `count` largest (or smallest) entries; `chunk` rows of the circuit are there at a time.

    Args:
        circuit: what `ov_circuit` or `qk_circuit` gave.
        count: how many.
        largest: else the smallest.
        among: ids of the only tokens that may be in a pair, such as those that a text has; tokens that
            training never saw have vectors of chance, and often the extreme entries.
        tokenizer: names the tokens; ids stand for them without one.
        chunk: rows at a time.
    """
    A, B = circuit.A, circuit.B
    kept = torch.arange(len(A)) if among is None else torch.as_tensor(among, dtype=torch.long)
    if among is not None:
        A, B = A[kept], B[:, kept]
    width = B.shape[1]
    best = A.new_empty(0)
    where = torch.empty(0, dtype=torch.long, device=best.device)
    for start in range(0, len(A), chunk):
        part = (A[start : start + chunk] @ B).flatten()
        values, places = part.topk(min(count, len(part)), largest=largest)
        best, where = torch.cat([best, values]), torch.cat([where, places + start * width])
        best, order = best.topk(min(count, len(best)), largest=largest)
        where = where[order]
    rows, columns = (kept[part.cpu()].tolist() for part in (where // width, where % width))

    def label(token: int) -> str:
        return str(token) if tokenizer is None else tokenizer.decode([token])

    return TokenPairs(
        np.array(rows), np.array(columns), best.double().cpu().numpy(),
        tuple(map(label, rows)), tuple(map(label, columns)),
    )  # fmt: skip

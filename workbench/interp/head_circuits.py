"""Heads as their weights alone define them: QK and OV circuits through the vocabulary, copying scores, and
composition between layers (Elhage et al. 2021, transformer-circuits.pub/2021/framework).

QK: the attention score of a query token and a key token. OV: the logit that a token raises when it is
attended to. Norms are included with their gains and centring but without their denominators; biases and
positions are ignored; the activation in a masked model's head is replaced by the identity. No matrix of
d_vocab x d_vocab is ever formed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import FactoredMatrix

from workbench.console import OnProgress, make_table, progress_bar, stack
from workbench.data.tokenizer import token_text
from workbench.evals.scoring import ready
from workbench.interp.components import Component, find_head, find_site, layers_with
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model
from workbench.stats import derive

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from transformers import PreTrainedTokenizerFast

    from workbench.model.config import ModelConfig
    from workbench.model.transformer import HookedTransformer

SEEN = 5
"""Minimum count of a token in `circuit_pairs`."""


@torch.no_grad()
def ov_circuit(model: ModelLike, head: str | tuple[int, int] | Component) -> FactoredMatrix:
    """Return the OV circuit of a head; row: token attended to; column: token whose logit it raises.

    Args:
        model: half-precision weights are computed in float32.
        head: such as `"L2H1"` or `(2, 1)`.

    Returns:
        [d_vocab d_vocab], as factors of width d_value.

    Raises:
        InputError: the model has no such head.
    """
    with ready(as_model(model)) as network:
        layer, unit = find_head(network.config, head).place
        maps = head_maps(network, layer)
        return FactoredMatrix(_token_vectors(network) @ maps["V"][unit], maps["O"][unit] @ _readout(network))


@torch.no_grad()
def qk_circuit(model: ModelLike, head: str | tuple[int, int] | Component) -> FactoredMatrix:
    """Return the QK circuit of a head; row: query token; column: key token; value: attention score, scaled.

    Args:
        model: half-precision weights are computed in float32.
        head: such as `"L2H1"` or `(2, 1)`.

    Returns:
        [d_vocab d_vocab], as factors of width d_head.

    Raises:
        InputError: the model has no such head.
    """
    with ready(as_model(model)) as network:
        layer, unit = find_head(network.config, head).place
        maps, vectors = head_maps(network, layer), _token_vectors(network)
        keys = vectors @ maps["K"][unit] / network.config.scale
        return FactoredMatrix(vectors @ maps["Q"][unit], keys.T)


@torch.no_grad()
def copying_scores(model: ModelLike) -> Float[np.ndarray, "layer head"]:
    """Return the sum of each OV circuit's eigenvalues over the sum of their absolute values.

    1 copies, -1 suppresses, 0 neither. The non-zero eigenvalues of W_E W_V W_O W_U are those of
    W_O (W_U W_E) W_V, [d_value d_value]. Layers are those with attention.

    Raises:
        InputError: the model has no attention.
    """
    with ready(as_model(model)) as network:
        through = (_readout(network) @ _token_vectors(network)).double()
        scores = []
        for layer in layers_with(network.config, find_site("pattern")):
            maps = head_maps(network, layer)
            values = torch.linalg.eigvals(maps["O"].double() @ through @ maps["V"].double())
            size = values.abs().sum(-1)
            scores.append(torch.where(size > 0, values.sum(-1).real / size.clamp(min=1e-300), 0.0))
    return torch.stack(scores).cpu().numpy()


@dataclass(frozen=True, eq=False, repr=False)
class TokenPairs(Result):
    """The extreme entries of a circuit through the vocabulary, the most extreme first."""

    rows: Int[np.ndarray, " pair"]
    columns: Int[np.ndarray, " pair"]
    values: Float[np.ndarray, " pair"]
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]

    def to_frame(self) -> "pd.DataFrame":
        """Return one row a pair: row, column, value, row_token, column_token."""
        import pandas as pd

        return pd.DataFrame(
            {
                "row": self.rows, "column": self.columns, "value": self.values,
                "row_token": self.row_labels, "column_token": self.column_labels,
            }
        )  # fmt: skip

    def plot(self, ax: "Axes | None" = None) -> "Figure":
        """Draw a bar for each pair and return the figure."""
        from workbench.plots.heads import plot_token_pairs

        return plot_token_pairs(self.to_frame(), ax)


@torch.no_grad()
def top_pairs(
    circuit: FactoredMatrix,
    count: int = 20,
    *,
    largest: bool = True,
    among: Sequence[int] | Int[np.ndarray, " token"] | Int[Tensor, " token"] | None = None,
    tokenizer: "PreTrainedTokenizerFast | None" = None,
    chunk: int = 1024,
) -> TokenPairs:
    """Return the `count` largest (or smallest) entries of a circuit.

    Args:
        circuit: from `ov_circuit` or `qk_circuit`.
        count: number of entries.
        largest: else the smallest.
        among: the only token ids that may be in a pair, such as those that occur in a text; tokens that
            were never trained on have random vectors, and often the extreme entries.
        tokenizer: names the tokens; without one they are labelled with their ids.
        chunk: rows of the circuit that are formed at a time.
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
        values, cells = part.topk(min(count, len(part)), largest=largest)
        best, where = torch.cat([best, values]), torch.cat([where, cells + start * width])
        best, order = best.topk(min(count, len(best)), largest=largest)
        where = where[order]
    rows, columns = (kept[part.cpu()].tolist() for part in (where // width, where % width))

    return TokenPairs(
        np.array(rows), np.array(columns), best.double().cpu().numpy(),
        *(tuple(token_text(tokenizer, token) for token in side) for side in (rows, columns)),
    )  # fmt: skip


def circuit_pairs(
    model: ModelLike,
    heads: Iterable[str | tuple[int, int] | Component],
    unigram: Int[np.ndarray, " d_vocab"],
    count: int = 10,
    *,
    progress: bool | OnProgress | None = None,
) -> "pd.DataFrame":
    """Return the strongest token pairs of the OV and QK circuits of several heads.

    Args:
        model: half-precision weights are computed in float32.
        heads: such as `"L2H1"` or `(2, 1)`.
        unigram: count of each token in some text; only tokens that occur `SEEN` times are in a pair, or all
            that occur if none does so often.
        count: pairs of each circuit.
        progress: see `workbench.console.progress_bar`.

    Returns:
        row, column, value, row_token, column_token, layer, head, circuit. OV: a token attended to, and the
        token whose logit it raises; QK: a query token, and the key token that it scores highest.
    """
    import pandas as pd

    model = as_model(model)
    among = np.flatnonzero(unigram >= SEEN)
    among = among if len(among) else np.flatnonzero(unigram)
    chosen, frames = [find_head(model.config, head) for head in heads], []
    with progress_bar(progress, "Head circuits") as on_progress:
        for done, head in enumerate(chosen, 1):
            for name, circuit in (("OV", ov_circuit), ("QK", qk_circuit)):
                pairs = top_pairs(circuit(model, head), count, among=among, tokenizer=model.tokenizer)
                frames.append(pairs.to_frame().assign(layer=head.layer, head=head.unit, circuit=name))
            on_progress(done / len(chosen), f"{done:,} of {len(chosen):,} heads")
    return pd.concat(frames, ignore_index=True)


def head_maps(model: "HookedTransformer", layer: int) -> dict[str, Tensor]:
    """Return Q, K, V [head d_model d] as they read the residual stream, and O [head d d_model] as it is
    added to it."""
    block: Any = model.blocks[layer]
    norm = None if model.config.norm_place == "post" else block.ln1
    maps = {name: _after_norm(norm, getattr(block.attn, f"W_{name}").detach()) for name in "QKV"}
    out = block.attn.W_O.detach()
    if block.attn.head_scale is not None:
        out = block.attn.head_scale.detach()[:, None, None] * out
    if block.ln1_post is not None:
        centred = hasattr(block.ln1_post, "b")
        out = (out - out.mean(-1, keepdim=True) if centred else out) * block.ln1_post.w
    return maps | {"O": out}


def _after_norm(norm: nn.Module | None, weight: Tensor) -> Tensor:
    """Return a map [... d_model d] of a norm's output as a map of its input, without the denominator."""
    if norm is None:
        return weight
    weight = norm.w[:, None] * weight  # type: ignore[index]
    return weight - weight.mean(-2, keepdim=True) if hasattr(norm, "b") else weight


def _token_vectors(model: "HookedTransformer") -> Float[Tensor, "d_vocab d_model"]:
    """Return the residual stream of each token, without its position."""
    vectors = model.embed.W_E if model.embed.W_type is None else model.embed.W_E + model.embed.W_type[0]
    return model.embed.complete(vectors[None])[0].detach()


def _readout(model: "HookedTransformer") -> Float[Tensor, "d_model d_vocab"]:
    """Return the map from the residual stream to the logits, without denominators, biases and activations."""
    weight = model.readout_weight.T
    if model.mlm_head is not None:
        weight = model.mlm_head.weight.T @ _after_norm(model.mlm_head.ln, weight)
    elif model.config.tied and model.embed.up_weight is not None:
        weight = model.embed.up_weight @ weight
    return _after_norm(model.ln_final, weight).detach()


# Composition: how strongly later heads read what earlier heads write. For heads 1 < 2 and row vectors, with
# W_OV = W_V W_O and W_QK = W_Q W_K^T, the Frobenius norms
#
#     Q: |W_OV1 W_QK2| / (|W_OV1| |W_QK2|)    K: the same with W_QK2^T    V: the same with W_OV2
#
# If the two were randomly rotated against each other, the mean square would be 1 / d_model whatever their
# spectra; random heads of the same widths give the baseline and its spread.

COMPOSITIONS = ("Q", "K", "V")


@dataclass(frozen=True, eq=False, repr=False)
class Composition(Result):
    """Composition of each pair of heads; NaN where the first is not in an earlier layer, or writes or
    reads nothing."""

    axes = ("kind", "earlier_layer", "earlier_head", "later_layer", "later_head")

    value: Float[np.ndarray, "kind earlier_layer earlier_head later_layer later_head"]
    layers: Int[np.ndarray, " layer"]
    random: Float[np.ndarray, " kind"]
    """Mean of random heads of the same widths."""
    random_high: Float[np.ndarray, " kind"]
    """Their 97.5 % quantile."""

    def to_frame(self) -> "pd.DataFrame":
        """Return one row a kind and pair of heads, with the random baseline, sorted by the difference from
        it: kind, earlier_layer, earlier_head, later_layer, later_head, value, random, random_high."""
        import pandas as pd

        kind, *at = np.nonzero(~np.isnan(self.value))
        frame = pd.DataFrame(
            {
                "kind": np.array(COMPOSITIONS, dtype=object)[kind],
                "earlier_layer": self.layers[at[0]],
                "earlier_head": at[1],
                "later_layer": self.layers[at[2]],
                "later_head": at[3],
                "value": self.value[(kind, *at)],
                "random": self.random[kind],
                "random_high": self.random_high[kind],
            }
        )
        order = (frame.value - frame.random).sort_values(ascending=False, kind="stable").index
        return frame.loc[order].reset_index(drop=True)

    def summary(self, rows: int = 12) -> "RenderableType":
        """Return the strongest compositions, compared with random heads."""
        frame = self.to_frame()
        chance = ", ".join(
            f"{kind} {mean:.3f} (97.5 %: {high:.3f})"
            for kind, mean, high in zip(COMPOSITIONS, self.random, self.random_high, strict=True)
        )
        title = f"composition of earlier and later heads; random heads of the same widths: {chance}\n"
        if frame.empty:
            return stack(title, "No head has an earlier one: the model has one layer with attention.")
        cells = [
            [
                f"L{row['earlier_layer']}H{row['earlier_head']} → L{row['later_layer']}H{row['later_head']}",
                row["kind"], f"{row['value']:.3f}", f"{row['random']:.3f}",
                "yes" if row["value"] > row["random_high"] else "no",
            ]
            for row in frame.head(rows).to_dict("records")
        ]  # fmt: skip
        above = int((frame.value > frame.random_high).sum())
        return stack(
            title,
            make_table(["heads", "kind", "value", "random", "above chance"], cells, 2),
            f"\n{above} of {len(frame)} exceed 97.5 % of random heads.",
        )

    def plot(self, ax: "Axes | Sequence[Axes] | None" = None) -> "Figure":
        """Draw Q-, K- and V-composition of earlier with later heads above random; return the figure."""
        from workbench.plots.heads import plot_composition

        layers = [int(layer) for layer in self.layers]
        return plot_composition(self.to_frame(), layers, self.value.shape[2], self.random, ax)


@torch.no_grad()
def composition(model: ModelLike, *, draws: int = 100, seed: int = 0) -> Composition:
    """Measure Q-, K- and V-composition between the heads of earlier and later layers, in float64.

    Args:
        model: norms' gains and centring are part of what a head reads.
        draws: random pairs of heads for the baseline.
        seed: of those.

    Raises:
        InputError: the model has no attention.
    """
    model = as_model(model)
    config = model.config
    layers = layers_with(config, find_site("pattern"))
    maps = [{name: part.double() for name, part in head_maps(model, layer).items()} for layer in layers]
    writes, reads = list(map(_writes, maps)), list(map(_reads, maps))
    value = np.full((3, len(layers), config.n_heads, len(layers), config.n_heads), np.nan)
    for later, read in enumerate(reads):
        for earlier, written in enumerate(writes[:later]):
            for kind, name in enumerate(COMPOSITIONS):
                product = torch.einsum("hid,kde->hkie", written, read[name])
                sizes = _norm(written)[:, None] * _norm(read[name])
                value[kind, earlier, :, later] = (_norm(product) / sizes).cpu().numpy()
    random = _random_compositions(config, draws, seed)
    return Composition(value, np.array(layers), random.mean(1), np.quantile(random, 0.975, axis=1))


def _norm(matrices: Tensor) -> Tensor:
    return matrices.flatten(-2).norm(dim=-1)


def _triangle(tall: Float[Tensor, "*head d_model d"]) -> Float[Tensor, "*head rank d"]:
    """Return R of Q R = `tall`: |tall X| = |R X|, without the dimension d_model."""
    return torch.linalg.qr(tall, mode="r").R


def _writes(maps: dict[str, Tensor]) -> Float[Tensor, "*head rank d_model"]:
    """Return a small matrix whose products with later matrices have the same norms as those of W_OV."""
    return _triangle(maps["V"]) @ maps["O"]


def _reads(maps: dict[str, Tensor]) -> dict[str, Float[Tensor, "*head d_model rank"]]:
    """Return, by kind, a narrow matrix whose products with earlier matrices have the same norms as those of
    W_QK, W_QK^T or W_OV."""
    return {
        "Q": maps["Q"] @ _triangle(maps["K"]).mT,
        "K": maps["K"] @ _triangle(maps["Q"]).mT,
        "V": maps["V"] @ _triangle(maps["O"].mT).mT,
    }


def _random_compositions(config: "ModelConfig", draws: int, seed: int) -> Float[np.ndarray, "kind draw"]:
    random = torch.Generator().manual_seed(derive(seed, "composition"))
    widths = {"Q": config.head_width, "K": config.head_width, "V": config.value_width}
    values = []
    for _ in range(draws):
        first, second = (
            {
                name: torch.randn(config.d_model, width, generator=random).double()
                for name, width in widths.items()
            }
            | {"O": torch.randn(config.value_width, config.d_model, generator=random).double()}
            for _ in range(2)
        )
        written, read = _writes(first), _reads(second)
        values.append(
            [float(_norm(written @ read[k]) / (_norm(written) * _norm(read[k]))) for k in COMPOSITIONS]
        )
    return np.array(values).T

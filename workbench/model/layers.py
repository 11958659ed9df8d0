"""Layers of the transformer: norms, MLPs, positions, embeddings and the head of a masked model.

Hook points are lazy: `has_hooks` is True if a tensor off the fast path must be computed.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.model.config import ModelConfig


def has_hooks(*points: HookPoint) -> bool:
    """Return True if any hook point has a forward or backward hook, however it was added."""
    return any(point._forward_hooks or point._backward_hooks or point._forward_pre_hooks for point in points)


class _HookedNorm(nn.Module):
    """Base of the norms: `hook_scale` is the denominator, `hook_normalized` the result before the gain."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.shape = (width,)
        self.w = nn.Parameter(torch.ones(width))
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()


class LayerNorm(_HookedNorm):
    """LayerNorm (Ba et al. 2016) with gain `w` and bias `b`."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)
        self.b = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        if not has_hooks(self.hook_scale, self.hook_normalized):
            return F.layer_norm(x, self.shape, self.w, self.b, self.eps)
        centred = x - x.mean(-1, keepdim=True)
        scale = self.hook_scale((centred.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized(centred / scale) * self.w + self.b


class RMSNorm(_HookedNorm):
    """RMSNorm (Zhang & Sennrich 2019) with gain `w`."""

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        if not has_hooks(self.hook_scale, self.hook_normalized):
            return F.rms_norm(x, self.shape, self.w, self.eps)
        scale = self.hook_scale((x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized(x / scale) * self.w


NORMS: dict[str, type[LayerNorm] | type[RMSNorm]] = {"LayerNorm": LayerNorm, "RMSNorm": RMSNorm}


def make_norm(config: ModelConfig, width: int | None = None) -> LayerNorm | RMSNorm | None:
    """Make a norm over `width` (default: `d_model`) entries; None in a model without norms."""
    kind = NORMS.get(config.norm)
    return None if kind is None else kind(config.d_model if width is None else width, config.eps)


def normed(norm: nn.Module | None, x: Tensor) -> Tensor:
    """Return `norm(x)`, or `x` without a norm."""
    return x if norm is None else norm(x)


def solu(x: Float[Tensor, "*batch d_mlp"]) -> Float[Tensor, "*batch d_mlp"]:
    """Return x softmax(x) over the neurons (Elhage et al. 2022, Softmax Linear Units)."""
    return x * x.softmax(-1)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "solu": solu,
    "solu_ln": solu,
}
"""All activations except `prelu`, whose slopes are weights of the layer."""


class Hidden(nn.Module):
    """One hidden layer: `post = activation(pre)`, times `pre_linear` if gated (Shazeer 2020).

    Weights are stored as `torch.nn.functional.linear` takes them, [out in]. In a gated layer `gate_weight`
    feeds the activation (`hook_pre`) and `in_weight` the linear factor (`hook_pre_linear`), as in
    TransformerLens.
    """

    def __init__(self, config: ModelConfig, width: int, norm_after: bool) -> None:
        super().__init__()
        d_mlp = config.mlp_width
        self.activation = ACTIVATIONS.get(config.activation)
        self.in_weight = nn.Parameter(torch.empty(d_mlp, width))
        self.gate_weight = nn.Parameter(torch.empty(d_mlp, width)) if config.gated else None
        self.b_in = nn.Parameter(torch.zeros(d_mlp)) if config.mlp_bias else None
        self.slope = nn.Parameter(torch.full((d_mlp,), 0.25)) if self.activation is None else None
        after = NORMS.get(config.norm, NORMS["LayerNorm"])
        self.ln = after(d_mlp, config.eps) if norm_after else None
        self.hook_pre = HookPoint()
        if config.gated:
            self.hook_pre_linear = HookPoint()
        if norm_after:
            self.hook_mid = HookPoint()
        self.hook_post = HookPoint()

    def hidden(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_mlp"]:
        """Return the layer's output before any projection back to the residual stream."""
        if self.gate_weight is None:
            post = self._activate(self.hook_pre(F.linear(x, self.in_weight, self.b_in)))
        else:
            pre = self.hook_pre(F.linear(x, self.gate_weight))
            linear = self.hook_pre_linear(F.linear(x, self.in_weight, self.b_in))
            post = self._activate(pre) * linear
        if self.ln is not None:
            post = normed(self.ln, self.hook_mid(post))
        return self.hook_post(post)

    def _activate(self, pre: Tensor) -> Tensor:
        if self.activation is not None:
            return self.activation(pre)
        assert self.slope is not None
        return F.prelu(pre.flatten(0, -2), self.slope).view(pre.shape)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_mlp"]:
        return self.hidden(x)


class MLP(Hidden):
    """Feed-forward module: hidden layers, the last of which is this module itself, and the output projection.

    `W_in` and `W_gate` belong to the first hidden layer, which reads the residual stream, `W_out` to the
    last, which writes to it; all are views in TransformerLens' orientation.
    """

    def __init__(self, config: ModelConfig) -> None:
        earlier = config.mlp_depth - 1
        widths = [config.d_model] + [config.mlp_width] * earlier
        norm_in_each = config.activation == "solu_ln"
        super().__init__(config, widths[-1], norm_in_each or config.norm_place == "normformer")
        self.out_weight = nn.Parameter(torch.empty(config.d_model, config.mlp_width))
        self.b_out = nn.Parameter(torch.zeros(config.d_model)) if config.mlp_bias else None
        self.inner = nn.ModuleList(Hidden(config, width, norm_in_each) for width in widths[:-1])

    @property
    def _first(self) -> Hidden:
        return self.inner[0] if len(self.inner) else self  # type: ignore[return-value]

    @property
    def W_in(self) -> Float[Tensor, "d_model d_mlp"]:
        return self._first.in_weight.T

    @property
    def W_gate(self) -> Float[Tensor, "d_model d_mlp"] | None:
        gate = self._first.gate_weight
        return None if gate is None else gate.T

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        return self.out_weight.T

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        for layer in self.inner:
            x = layer(x)
        return F.linear(self.hidden(x), self.out_weight, self.b_out)


class LayerMix(nn.Module):
    """Mean of all outputs so far with learned softmax weights, initially equal (Charpentier & Samuel 2023,
    ELC-BERT).

    Args:
        count: number of outputs: those of the embedding and of the blocks so far.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(count))

    def forward(
        self, written: Sequence[Float[Tensor, "batch pos d_model"]], hook: HookPoint
    ) -> Float[Tensor, "batch pos d_model"]:
        weights = hook(self.logits.softmax(-1))
        return torch.einsum("n,nbpd->bpd", weights, torch.stack(list(written)))


# Positions: vectors added to the embedding, rotated queries and keys, or biases added to the scores.


class _Tables:
    """Tables in float64 on the CPU that are copied to each type and device on first use.

    They are not buffers, so that casting the model to bfloat16 does not round the angles.
    """

    def __init__(self, *tables: Tensor) -> None:
        self._exact = tables
        self._copies: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def like(self, x: Tensor) -> tuple[Tensor, ...]:
        key = (x.dtype, x.device)
        if key not in self._copies:
            self._copies[key] = tuple(table.to(x) for table in self._exact)
        return self._copies[key]


def _angles(n_ctx: int, count: int, base: float) -> Float[Tensor, "n_ctx count"]:
    wavelengths = base ** (torch.arange(count, dtype=torch.float64, device="cpu") / count)
    return torch.arange(n_ctx, dtype=torch.float64, device="cpu")[:, None] / wavelengths


@lru_cache(maxsize=4)
def _rotary_tables(n_ctx: int, half: int, base: float, adjacent: bool) -> _Tables:
    """Return cosines and signed sines of all positions, shared by all layers."""
    angles = _angles(n_ctx, half, base)
    cos, sin = angles.cos(), angles.sin()
    if adjacent:
        pairs = torch.stack([cos, cos], -1), torch.stack([-sin, sin], -1)
        return _Tables(*(table.flatten(1) for table in pairs))
    return _Tables(torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1))


class LearnedPositions(nn.Module):
    """One trained vector per position (Vaswani et al. 2017)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.offset = config.position_offset
        self.W_pos = nn.Parameter(torch.empty(config.n_ctx + self.offset, config.embed_width))

    def forward(
        self, positions: Int[Tensor, "#batch pos"], like: Tensor
    ) -> Float[Tensor, "#batch pos d_embed"]:
        return F.embedding(positions + self.offset if self.offset else positions, self.W_pos)


class SinusoidalPositions(nn.Module):
    """Fixed vectors (Vaswani et al. 2017, section 3.5): dimension 2i is sin(p / 10000^(2i/d)), 2i + 1 the
    cosine of the same angle."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        angles = _angles(config.n_ctx, config.embed_width // 2, 10000.0)
        self._tables = _Tables(torch.stack([angles.sin(), angles.cos()], -1).flatten(1))

    def forward(
        self, positions: Int[Tensor, "#batch pos"], like: Tensor
    ) -> Float[Tensor, "#batch pos d_embed"]:
        return self._tables.like(like)[0][positions]


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021) of dimensions i and i + d_head / 2, or of adjacent dimensions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.adjacent = config.rotary_adjacent
        half = config.head_width // 2
        self._tables = _rotary_tables(config.n_ctx, half, config.rotary_base, self.adjacent)

    def forward(
        self, x: Float[Tensor, "batch pos head d_head"], positions: Int[Tensor, "#batch pos"]
    ) -> Float[Tensor, "batch pos head d_head"]:
        cos, sin = (table[positions].unsqueeze(-2) for table in self._tables.like(x))
        if self.adjacent:
            swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        else:
            half = x.shape[-1] // 2
            swapped = torch.cat([x[..., half:], x[..., :half]], -1)
        return x * cos + swapped * sin


class Alibi(nn.Module):
    """Bias linear in the distance, with a slope for each head (Press et al. 2022, arXiv:2108.12409).

    Slopes are the paper's for powers of two; other numbers of heads add the odd ones of the next power, as in
    its code. In a masked model the bias is symmetric.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._tables = _Tables(torch.tensor(alibi_slopes(config.n_heads), dtype=torch.float64, device="cpu"))

    def forward(
        self, distance: Int[Tensor, "#batch pos key_pos"], like: Tensor
    ) -> Float[Tensor, "#batch head pos key_pos"]:
        slopes = self._tables.like(like)[0]
        return -slopes[:, None, None] * distance.abs()[:, None]


def alibi_slopes(n_heads: int) -> list[float]:
    """Return the slope of each head."""
    power = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    return slopes + [2 ** (-4 * (2 * i + 1) / power) for i in range(n_heads - power)]


class T5Bias(nn.Module):
    """Learned bias for each head and bucket of distances, shared by all layers (Raffel et al. 2020).

    Small distances have a bucket each, larger ones share logarithmic buckets; in a masked model half of the
    buckets are for keys to the right.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.buckets, self.farthest = config.relative_buckets, config.farthest
        self.causal = config.attention == "causal"
        self.W_bias = nn.Parameter(torch.empty(config.relative_buckets, config.n_heads))

    def forward(
        self, distance: Int[Tensor, "#batch pos key_pos"], like: Tensor
    ) -> Float[Tensor, "#batch head pos key_pos"]:
        return F.embedding(self._bucket(distance), self.W_bias).permute(0, 3, 1, 2)

    def _bucket(self, distance: Tensor) -> Tensor:
        count, first = self.buckets, 0
        if not self.causal:
            count //= 2
            first, distance = (distance < 0) * count, distance.abs()
        distance = distance.clamp(min=0)
        exact = count // 2
        ratio = torch.log(distance.clamp(min=1).double() / exact) / math.log(self.farthest / exact)
        far = (exact + (ratio * (count - exact)).long()).clamp(max=count - 1)
        return first + torch.where(distance < exact, distance, far)


VECTORS: dict[str, type[Any]] = {"learned": LearnedPositions, "sinusoidal": SinusoidalPositions}
"""Positions added to the embedding."""

BIASES: dict[str, type[Any]] = {"alibi": Alibi, "t5": T5Bias}
"""Positions added to the attention scores of every layer."""


class MLMHead(nn.Module):
    """Dense layer, activation and norm before the unembedding of a masked model (Devlin et al. 2019, BERT).

    Its width is `d_embed` in a factorised model. `prelu`, whose slopes belong to an MLP's neurons, is
    replaced by GELU.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.readout_width
        self.activation = ACTIVATIONS.get(config.activation, F.gelu)
        self.weight = nn.Parameter(torch.empty(width, config.d_model))
        self.bias = nn.Parameter(torch.zeros(width))
        self.ln = make_norm(config, width)
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_readout"]:
        pre = self.hook_pre(F.linear(x, self.weight, self.bias))
        return normed(self.ln, self.hook_post(self.activation(pre)))


class Embed(nn.Module):
    """Token embeddings [d_vocab d_embed], with BERT's token types and norm (Devlin et al. 2019) and ALBERT's
    projection to `d_model` (Lan et al. 2020), if configured."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.embed_width
        self.W_E = nn.Parameter(torch.empty(config.d_vocab, width))
        self.W_type = nn.Parameter(torch.empty(config.token_types, width)) if config.token_types else None
        self.norm = make_norm(config, width) if config.embed_norm else None
        factorised = config.d_embed is not None
        self.up_weight = nn.Parameter(torch.empty(config.d_model, width)) if factorised else None
        self.up_bias = nn.Parameter(torch.zeros(config.d_model)) if factorised else None

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_embed"]:
        return F.embedding(tokens, self.W_E)

    def complete(self, x: Float[Tensor, "batch pos d_embed"]) -> Float[Tensor, "batch pos d_model"]:
        """Turn the sum of the embeddings into the residual stream: norm and projection."""
        x = normed(self.norm, x)
        return x if self.up_weight is None else F.linear(x, self.up_weight, self.up_bias)

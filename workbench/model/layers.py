"""Token vectors, plain or factorised."""

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
from workbench.model.hooks import listened

# LayerNorm (Ba et al. 2016) and RMSNorm (Zhang & Sennrich 2019), with transformer-lens' two hook points.


class _HookedNorm(nn.Module):
    """`hook_scale` is the denominator; `hook_normalized` the result before gain and bias."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.shape = (width,)
        self.w = nn.Parameter(torch.ones(width))
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()


class LayerNorm(_HookedNorm):
    """Centre, divide by the standard deviation, multiply by `w`, add `b`."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)
        self.b = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        if not listened(self.hook_scale, self.hook_normalized):
            return F.layer_norm(x, self.shape, self.w, self.b, self.eps)
        centred = x - x.mean(-1, keepdim=True)
        scale = self.hook_scale((centred.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized(centred / scale) * self.w + self.b


class RMSNorm(_HookedNorm):
    """Divide by the root mean square, multiply by `w`."""

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        if not listened(self.hook_scale, self.hook_normalized):
            return F.rms_norm(x, self.shape, self.w, self.eps)
        scale = self.hook_scale((x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized(x / scale) * self.w


NORMS: dict[str, type[LayerNorm] | type[RMSNorm]] = {"LayerNorm": LayerNorm, "RMSNorm": RMSNorm}


def make_norm(config: ModelConfig, width: int | None = None) -> LayerNorm | RMSNorm | None:
    """The configuration's norm over `width` (or `d_model`) entries; None in a model without norms."""
    made = NORMS.get(config.norm)
    return None if made is None else made(config.d_model if width is None else width, config.eps)


def normed(norm: nn.Module | None, x: Tensor) -> Tensor:
    """`norm(x)`, or `x` where there is no norm."""
    return x if norm is None else norm(x)


# The feed-forward block: plain (Vaswani et al. 2017), gated (Shazeer 2020), of one hidden layer or more.


def solu(x: Float[Tensor, "*batch d_mlp"]) -> Float[Tensor, "*batch d_mlp"]:
    """x softmax(x) over the neurons (Elhage et al. 2022, Softmax Linear Units); no fused kernel."""
    return x * x.softmax(-1)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "solu": solu,
    "solu_ln": solu,
}
"""All but `prelu`, whose slopes are weights of the layer."""


class Hidden(nn.Module):
    """One hidden layer: `post = activation(pre)`, times `pre_linear` if gated.

    Weights are stored as `torch.nn.functional.linear` reads them, [out in]. In a gated layer
    `gate_weight` feeds the activation (`hook_pre`) and `in_weight` the linear factor
    (`hook_pre_linear`), as in transformer-lens.
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
        """The layer's output, before any projection back."""
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
    """Hidden layers, the last of them this module's own, then `out = post @ W_out + b_out`.

    `W_in` and `W_gate` are the first hidden layer's, which reads the residual stream, `W_out` the last
    one's, which writes to it; all are views in transformer-lens' orientation.
    """

    def __init__(self, config: ModelConfig) -> None:
        earlier = config.mlp_depth - 1
        widths = [config.d_model] + [config.mlp_width] * earlier
        each = config.activation == "solu_ln"
        super().__init__(config, widths[-1], each or config.norm_place == "normformer")
        self.out_weight = nn.Parameter(torch.empty(config.d_model, config.mlp_width))
        self.b_out = nn.Parameter(torch.zeros(config.d_model)) if config.mlp_bias else None
        self.inner = nn.ModuleList(Hidden(config, width, each) for width in widths[:-1])

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


# A residual stream with learned weights over all earlier layers.


class LayerMix(nn.Module):
    """The mean of what was written so far, with learned weights (Charpentier & Samuel 2023, ELC-BERT).

    Weights are a softmax, so they are positive and sum to one; they start equal.

    Args:
        count: how many outputs are mixed: the embedding's and those of the blocks so far.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(count))

    def forward(
        self, written: Sequence[Float[Tensor, "batch pos d_model"]], hook: HookPoint
    ) -> Float[Tensor, "batch pos d_model"]:
        weights = hook(self.logits.softmax(-1))
        return torch.einsum("n,nbpd->bpd", weights, torch.stack(list(written)))


# Where a token stands: vectors added to the embedding, turned queries and keys, or biased scores.


class _Tables:
    """Tables in float64 on the CPU, kept out of the buffers: a model cast to bfloat16 must not round its
    angles. Each type and device gets its copy on first use."""

    def __init__(self, *tables: Tensor) -> None:
        self._exact = tables
        self._made: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def like(self, x: Tensor) -> tuple[Tensor, ...]:
        key = (x.dtype, x.device)
        if key not in self._made:
            self._made[key] = tuple(table.to(x) for table in self._exact)
        return self._made[key]


def _angles(n_ctx: int, count: int, base: float) -> Float[Tensor, "n_ctx count"]:
    wavelengths = base ** (torch.arange(count, dtype=torch.float64, device="cpu") / count)
    return torch.arange(n_ctx, dtype=torch.float64, device="cpu")[:, None] / wavelengths


@lru_cache(maxsize=4)
def _rotary_tables(n_ctx: int, half: int, base: float, adjacent: bool) -> _Tables:
    """Cosines and signed sines of all positions, once for all layers."""
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
    """Fixed vectors (Vaswani et al. 2017, section 3.5): dimension 2i is sin(p / 10000^(2i/d)), 2i + 1 its
    cosine."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        angles = _angles(config.n_ctx, config.embed_width // 2, 10000.0)
        self._tables = _Tables(torch.stack([angles.sin(), angles.cos()], -1).flatten(1))

    def forward(
        self, positions: Int[Tensor, "#batch pos"], like: Tensor
    ) -> Float[Tensor, "#batch pos d_embed"]:
        return self._tables.like(like)[0][positions]


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021): dimension i turns with i + d_head / 2, or with its neighbour."""

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
    """Scores fall with distance, each head at its own slope (Press et al. 2022, arXiv:2108.12409).

    Slopes are the paper's for powers of two; other numbers of heads take the odd ones of the next power,
    as its code does. A masked model falls off both ways.
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
    """The slope of each head."""
    power = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    return slopes + [2 ** (-4 * (2 * i + 1) / power) for i in range(n_heads - power)]


class T5Bias(nn.Module):
    """One number for each head and bucket of distances, the same in all layers (Raffel et al. 2020).

    Small distances have a bucket each, larger ones share logarithmically; a masked model spends half of
    the buckets on keys to the right.
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
"""Positions that are added to the embedding."""

BIASES: dict[str, type[Any]] = {"alibi": Alibi, "t5": T5Bias}
"""Positions that are added to every layer's attention scores."""


# What stands between the residual stream and the unembedding of a masked model.


class MLMHead(nn.Module):
    """Dense layer, activation, norm (Devlin et al. 2019, BERT); a factorised model narrows to `d_embed`.

    The learnable slope of `prelu` has no counterpart here: such a model's head uses exact GELU.
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
    """Token vectors [d_vocab d_embed], and what turns the sum of all embeddings into the residual stream:
    a norm (Devlin et al. 2019, BERT) and a projection up to `d_model` (Lan et al. 2020, ALBERT)."""

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
        """From the sum of the embeddings to the residual stream."""
        x = normed(self.norm, x)
        return x if self.up_weight is None else F.linear(x, self.up_weight, self.up_bias)

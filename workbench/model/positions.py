"""Where a token stands: vectors added to the embedding, turned queries and keys, or biased scores."""

import math
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.model.config import ModelConfig


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

"""Where a token stands: learned vectors added to the embedding, or rotated queries and keys."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.model.config import ModelConfig


class LearnedPositions(nn.Module):
    """One trained vector per position (Vaswani et al. 2017)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.W_pos = nn.Parameter(torch.empty(config.n_ctx, config.d_model))

    def forward(self, positions: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        return self.W_pos[positions]


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021), half-split layout: dimension i turns with i + d_head / 2."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        half = config.head_width // 2
        wavelengths = config.rotary_base ** (torch.arange(half, dtype=torch.float64) / half)
        # Kept in float64 and out of the buffers: a model cast to bfloat16 must not round its angles.
        self._angles = torch.arange(config.n_ctx, dtype=torch.float64)[:, None] / wavelengths
        self._tables: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def tables(self, like: Tensor) -> tuple[Float[Tensor, "n_ctx d_head"], Float[Tensor, "n_ctx d_head"]]:
        """Cosines and signed sines of all positions in `like`'s type, on its device."""
        key = (like.dtype, like.device)
        if key not in self._tables:
            cos, sin = self._angles.cos(), self._angles.sin()
            self._tables[key] = torch.cat([cos, cos], -1).to(like), torch.cat([-sin, sin], -1).to(like)
        return self._tables[key]

    def forward(
        self, x: Float[Tensor, "batch pos head d_head"], positions: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos head d_head"]:
        half = x.shape[-1] // 2
        cos, sin = (table[positions].unsqueeze(-2) for table in self.tables(x))
        swapped = torch.cat([x[..., half:], x[..., :half]], -1)
        return x * cos + swapped * sin

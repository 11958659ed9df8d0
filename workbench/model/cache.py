"""Keys and values of the tokens already read, so that generation reads each token once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.model.config import ModelConfig


class LayerCache:
    """One layer's keys and values, [batch head n_ctx d], of which `length` positions are filled."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0

    def append(
        self, k: Float[Tensor, "batch head pos d_head"], v: Float[Tensor, "batch head pos d_value"]
    ) -> tuple[Tensor, Tensor]:
        """Store new keys and values; returns all of them so far."""
        end = self.length + k.shape[2]
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def join(
        self,
        q: Float[Tensor, "batch head pos d_head"],
        k: Float[Tensor, "batch kv_head pos d_head"],
        v: Float[Tensor, "batch kv_head pos d_value"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What attention computes with: these queries, and all keys and values. A cache may lay them out in
        other rows than the tokens came in, [row head query_pos d]."""
        return q, *self.append(k, v)

    def part(self, z: Float[Tensor, "row query_pos head d_value"]) -> Tensor:
        """Attention's results in the tokens' own rows again."""
        return z


class KeyValueCache:
    """The caches of all layers that attend, and the positions of what was read."""

    def __init__(self, config: ModelConfig, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        def empty(width: int) -> Tensor:
            return torch.empty(batch, config.kv_heads, config.n_ctx, width, dtype=dtype, device=device)

        self.layers = [
            LayerCache(empty(config.head_width), empty(config.value_width)) if "a" in block else None
            for block in config.blocks
        ]
        self.length = 0
        """Number of positions read so far."""
        self._positions = torch.empty(batch, config.n_ctx, dtype=torch.long, device=device)

    def append_positions(self, positions: Int[Tensor, "#batch pos"]) -> Int[Tensor, "batch key_pos"]:
        """Note where new tokens stand; returns the positions of all so far."""
        end = self.length + positions.shape[1]
        self._positions[:, self.length : end] = positions
        self.length = end
        return self._positions[:, :end]

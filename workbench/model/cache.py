"""Keys and values of the tokens already read, so that generation reads each token once."""

import torch
from torch import Tensor

from workbench.model.config import ModelConfig


class LayerCache:
    """One layer's keys and values, [batch head n_ctx d_head], of which `length` positions are filled."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values, [batch head pos d_head]; returns all of them so far."""
        end = self.length + k.shape[2]
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KeyValueCache:
    """The caches of all layers."""

    def __init__(self, config: ModelConfig, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (batch, config.n_heads, config.n_ctx, config.head_width)
        self.layers = [LayerCache(shape, dtype, device) for _ in range(config.n_layers)]

    @property
    def length(self) -> int:
        """Number of positions read so far."""
        return self.layers[0].length

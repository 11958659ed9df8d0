"""The keys that each query may attend to, and the key-value cache of generation."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.model.config import ModelConfig


class AttentionMask:
    """Mask, positions and position bias that all attention modules of one forward pass share.

    Distances are between the tokens' positions, not their indices in the row, so several stories packed in
    one row and the branches of a prefix tree attend as each would alone.

    Args:
        positions: position of each token in its text.
        key_positions: position of each key.
        mask: True where a query may attend; default: the causal or full pattern.
        causal: True if a query sees only keys up to its own index in the row.
        in_order: True if the positions of all rows are 0, 1, 2, ...
        queries: position of each query, if a cache lays the tokens out in other rows (`LayerCache.join`).

    Attributes:
        bias: added to the scores of all layers (ALiBi, T5); None without.
    """

    def __init__(
        self,
        positions: Int[Tensor, "#batch pos"],
        key_positions: Int[Tensor, "#batch key_pos"],
        mask: Bool[Tensor, "#batch 1 query_pos key_pos"] | None,
        causal: bool,
        in_order: bool,
        queries: Int[Tensor, "#batch query_pos"] | None = None,
    ) -> None:
        self.positions, self.key_positions = positions, key_positions
        self.queries = positions if queries is None else queries
        self.causal, self.in_order = causal, in_order
        self.bias: Float[Tensor, "#batch head query_pos key_pos"] | None = None
        self._given = mask
        self._allowed: dict[int, Tensor | None] = {}
        self._additive: dict[tuple[int, torch.dtype], Tensor] = {}

    @property
    def distance(self) -> Int[Tensor, "#batch query_pos key_pos"]:
        """Query position minus key position: positive for earlier keys."""
        return self.queries[:, :, None] - self.key_positions[:, None, :]

    def window_applies(self, window: int) -> bool:
        """Return True if the sliding window may mask a key."""
        return window > 0 and not (self.in_order and window >= self.key_positions.shape[1])

    def is_plain(self, window: int) -> bool:
        """Return True if the pattern is causal or full, without bias, over a whole sequence."""
        whole = self.queries.shape[1] == self.key_positions.shape[1] or not self.causal
        return self._given is None and self.bias is None and whole and not self.window_applies(window)

    def allowed(self, window: int) -> Bool[Tensor, "#batch 1 query_pos key_pos"] | None:
        """Return True where a query may attend to a key; None if it may everywhere."""
        if window not in self._allowed:
            allowed = self._given
            count = self.queries.shape[1]
            if allowed is None and self.causal and count > 1:
                allowed = causal_mask(count, self.key_positions.shape[1], self.queries.device)
            if self.window_applies(window):
                distance = self.distance if self.causal else self.distance.abs()
                near = distance[:, None] < window
                allowed = near if allowed is None else allowed & near
            self._allowed[window] = allowed
        return self._allowed[window]

    def additive(
        self, window: int, dtype: torch.dtype
    ) -> Float[Tensor, "#batch #head query_pos key_pos"] | None:
        """Return the bias with -inf at masked keys; None if there is neither."""
        allowed = self.allowed(window)
        if allowed is None:
            return self.bias
        key = (window, dtype)
        if key not in self._additive:
            bias = allowed.new_zeros((), dtype=dtype) if self.bias is None else self.bias
            self._additive[key] = torch.where(allowed, bias, float("-inf"))
        return self._additive[key]


def causal_mask(queries: int, keys: int, device: torch.device) -> Bool[Tensor, "1 1 query_pos key_pos"]:
    """Return True where a key is not after the query; the last query is at the last key."""
    return torch.ones(1, 1, queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


class LayerCache:
    """Keys and values of one layer, [batch head n_ctx d], of which `length` positions are filled."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0

    def append(
        self, k: Float[Tensor, "batch head pos d_head"], v: Float[Tensor, "batch head pos d_value"]
    ) -> tuple[Tensor, Tensor]:
        """Store new keys and values and return all of them so far."""
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
        """Return the queries, keys and values that attention computes with.

        A subclass may lay the tokens out in other rows than they came in, [row head query_pos d].
        """
        return q, *self.append(k, v)

    def part(self, z: Float[Tensor, "row query_pos head d_value"]) -> Tensor:
        """Return attention's results in the rows that the tokens came in (the inverse of `join`)."""
        return z


class KeyValueCache:
    """Caches of all layers with attention, and the positions of the tokens so far."""

    def __init__(self, config: ModelConfig, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        def empty(width: int) -> Tensor:
            return torch.empty(batch, config.kv_heads, config.n_ctx, width, dtype=dtype, device=device)

        self.layers = [
            LayerCache(empty(config.head_width), empty(config.value_width)) if "a" in block else None
            for block in config.blocks
        ]
        self.length = 0
        """Number of tokens so far."""
        self._positions = torch.empty(batch, config.n_ctx, dtype=torch.long, device=device)

    def append_positions(self, positions: Int[Tensor, "#batch pos"]) -> Int[Tensor, "batch key_pos"]:
        """Store the positions of new tokens and return those of all tokens so far."""
        end = self.length + positions.shape[1]
        self._positions[:, self.length : end] = positions
        self.length = end
        return self._positions[:, :end]

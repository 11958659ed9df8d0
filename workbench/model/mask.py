"""Keys and values of the tokens already read, so that generation reads each token once."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.model.config import ModelConfig

# Which keys each query may see, and how far away they stand.


class AttentionMask:
    """What all attention modules of one forward pass share.

    Distances come from the tokens' positions, not their places in the row, so that several stories in a
    row and the branches of a prefix tree see what each would see alone.

    Args:
        positions: place of each token in its text.
        key_positions: place of each key.
        mask: True where a query may attend; if absent, the causal or full pattern.
        causal: whether a query sees only keys up to its own place in the row.
        in_order: whether the positions are 0, 1, 2, ... for all rows.
        queries: place of each query, where attention lays the tokens out anew (`LayerCache.join`).
        bias: added to the scores, already the same for all layers (ALiBi, T5).
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
        self._masks: dict[int, Tensor | None] = {}
        self._additive: dict[tuple[int, torch.dtype], Tensor] = {}

    @property
    def distance(self) -> Int[Tensor, "#batch query_pos key_pos"]:
        """Query's position minus key's: above 0 for what came before."""
        return self.queries[:, :, None] - self.key_positions[:, None, :]

    def bites(self, window: int) -> bool:
        """Whether a window can hide anything here."""
        return window > 0 and not (self.in_order and window >= self.key_positions.shape[1])

    def is_plain(self, window: int) -> bool:
        """Whether the pattern is that of a whole sequence: everything, or everything before."""
        whole = self.queries.shape[1] == self.key_positions.shape[1] or not self.causal
        return self._given is None and self.bias is None and whole and not self.bites(window)

    def mask(self, window: int) -> Bool[Tensor, "#batch 1 query_pos key_pos"] | None:
        """True where a query may attend to a key; None if everywhere."""
        if window not in self._masks:
            self._masks[window] = self._mask(window)
        return self._masks[window]

    def _mask(self, window: int) -> Tensor | None:
        seen = self._given
        count = self.queries.shape[1]
        if seen is None and self.causal and count > 1:
            seen = causal_mask(count, self.key_positions.shape[1], self.queries.device)
        if self.bites(window):
            distance = self.distance
            near = (distance if self.causal else distance.abs())[:, None] < window
            seen = near if seen is None else seen & near
        return seen

    def additive(
        self, window: int, dtype: torch.dtype
    ) -> Float[Tensor, "#batch #head query_pos key_pos"] | None:
        """The bias, with -inf where nothing may be seen; None if there is neither."""
        mask = self.mask(window)
        if mask is None:
            return self.bias
        key = (window, dtype)
        if key not in self._additive:
            base = mask.new_zeros((), dtype=dtype) if self.bias is None else self.bias
            self._additive[key] = torch.where(mask, base, float("-inf"))
        return self._additive[key]


def causal_mask(queries: int, keys: int, device: torch.device) -> Bool[Tensor, "1 1 query_pos key_pos"]:
    """True where a key is not after the query, the last query being the last key."""
    return torch.ones(1, 1, queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


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

"""Multi-head attention: a fused kernel, or explicit steps when a hook is attached to them."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.model.config import ModelConfig
from workbench.model.kernels import causal_attention, kept_pattern_attention, kept_pattern_is_faster
from workbench.model.layers import Rotary, has_hooks
from workbench.model.mask import AttentionMask, LayerCache


class Attention(nn.Module):
    """Self-attention (Vaswani et al. 2017) with TransformerLens' hook points.

    `hook_attn_scores`, `hook_pattern` and `hook_result` are computed only when a hook is attached; otherwise
    attention is `scaled_dot_product_attention`, with windows, ALiBi and T5 biases as its mask. Both paths
    agree to rounding. Masked scores are -inf at `hook_attn_scores`. Shaw's relative values need the pattern
    itself, so they always take the explicit path.

    Weights are stored fused, as `torch.nn.functional.linear` takes them; `W_Q`, `W_K`, `W_V`, `W_O` and their
    biases have TransformerLens' shapes, one row for each query head: views, or copies for keys and values
    that several query heads share.

    Args:
        config: the shape.
        window: sliding window in tokens, the query itself included; 0 for none.
    """

    def __init__(self, config: ModelConfig, window: int = 0) -> None:
        super().__init__()
        self.n_heads, self.kv_heads, self.window = config.n_heads, config.kv_heads, window
        self.scale = config.scale
        d_head, d_value = config.head_width, config.value_width
        self.widths = (self.n_heads * d_head, self.kv_heads * d_head, self.kv_heads * d_value)
        self.qkv_weight = nn.Parameter(torch.empty(sum(self.widths), config.d_model))
        self.qkv_bias = nn.Parameter(torch.zeros(sum(self.widths))) if config.qkv_bias else None
        self.out_weight = nn.Parameter(torch.empty(config.d_model, self.n_heads * d_value))
        self.out_bias = nn.Parameter(torch.zeros(config.d_model)) if config.out_bias else None
        normformer = config.norm_place == "normformer"
        self.head_scale = nn.Parameter(torch.ones(self.n_heads)) if normformer else None
        shaw, self.farthest = config.positions == "shaw", config.farthest
        tables = 2 * self.farthest + 1
        self.rel_key = nn.Parameter(torch.empty(tables, d_head)) if shaw else None
        self.rel_value = nn.Parameter(torch.empty(tables, d_value)) if shaw else None
        self.rotary = Rotary(config) if config.positions == "rotary" else None
        self.hook_attn_in = HookPoint()
        self.hook_q_input, self.hook_k_input, self.hook_v_input = HookPoint(), HookPoint(), HookPoint()
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        if self.rotary is not None:
            self.hook_rot_q, self.hook_rot_k = HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        self.hook_z, self.hook_result = HookPoint(), HookPoint()
        # The fully fused kernel needs three equal parts and nothing between the projection and the scores.
        self._fusible = self.widths == (self.widths[0],) * 3 and not (shaw or normformer or self.rotary)

    def _split(self, fused: Tensor) -> tuple[Tensor, ...]:
        """Split the last axis into [head d] of queries, keys and values."""
        heads = (self.n_heads, self.kv_heads, self.kv_heads)
        parts = fused.split(self.widths, -1)
        return tuple(part.unflatten(-1, (count, -1)) for part, count in zip(parts, heads, strict=True))

    def _weight(self, which: int) -> Float[Tensor, "kv_head d_model d_head"]:
        return self._split(self.qkv_weight.T)[which].transpose(0, 1)

    def _bias(self, which: int) -> Float[Tensor, "kv_head d_head"]:
        zeros = self.qkv_weight.new_zeros(sum(self.widths))
        return self._split(zeros if self.qkv_bias is None else self.qkv_bias)[which]

    def _per_query_head(self, x: Tensor, axis: int = 0) -> Tensor:
        """Repeat key or value heads for each query head that uses them."""
        group = self.n_heads // self.kv_heads
        return x if group == 1 else x.repeat_interleave(group, axis)

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        return self._weight(0)

    @property
    def W_K(self) -> Float[Tensor, "head d_model d_head"]:
        return self._per_query_head(self._weight(1))

    @property
    def W_V(self) -> Float[Tensor, "head d_model d_value"]:
        return self._per_query_head(self._weight(2))

    @property
    def W_O(self) -> Float[Tensor, "head d_value d_model"]:
        return self.out_weight.T.unflatten(0, (self.n_heads, -1))

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"]:
        return self._bias(0)

    @property
    def b_K(self) -> Float[Tensor, "head d_head"]:
        return self._per_query_head(self._bias(1))

    @property
    def b_V(self) -> Float[Tensor, "head d_value"]:
        return self._per_query_head(self._bias(2))

    @property
    def b_O(self) -> Float[Tensor, " d_model"]:
        return self.out_weight.new_zeros(self.out_weight.shape[0]) if self.out_bias is None else self.out_bias

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        mask: AttentionMask,
        cache: LayerCache | None = None,
        split: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return the attention output, bias included.

        Args:
            x: the normalised residual stream.
            mask: allowed keys and the tokens' positions.
            cache: keys and values of the earlier tokens; those of this call are appended.
            split: normalised inputs of queries, keys and values for each head, [batch pos head d_model], from
                `fork`.
        """
        fast = cache is None and kept_pattern_is_faster(x, x.shape[1])
        if split is None:
            fused = F.linear(x, self.qkv_weight, self.qkv_bias)
            if fast and self._fusible and mask.causal and mask.is_plain(self.window) and self._no_hooks():
                z = causal_attention(fused, self.n_heads, self.scale)
                return F.linear(z, self.out_weight, self.out_bias)
            q, k, v = self._split(fused)
        else:
            q, k, v = (
                torch.einsum("bphd,hde->bphe", part, self._weight(i)) + self._bias(i)
                for i, part in enumerate(split)
            )
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        if self.rotary is not None:
            q = self.hook_rot_q(self.rotary(q, mask.positions))
            k = self.hook_rot_k(self.rotary(k, mask.positions))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if cache is not None:
            q, k, v = cache.join(q, k, v)
        k, v = self._per_query_head(k, 1), self._per_query_head(v, 1)
        if self.rel_key is not None or has_hooks(self.hook_attn_scores, self.hook_pattern):
            z = self._explicit(q, k, v, mask)
        elif fast:
            z = kept_pattern_attention(q, k, v, mask.additive(self.window, q.dtype), self.scale)
        else:
            z = self._fused(q, k, v, mask)
        z = z.transpose(1, 2) if cache is None else cache.part(z.transpose(1, 2))
        if self.head_scale is not None:
            z = z * self.head_scale[:, None]
        z = self.hook_z(z)
        if not has_hooks(self.hook_result):
            return F.linear(z.flatten(-2), self.out_weight, self.out_bias)
        result = self.hook_result(torch.einsum("bphe,hed->bphd", z, self.W_O))
        out = result.sum(-2)
        return out if self.out_bias is None else out + self.out_bias

    def keys_values(
        self, x: Float[Tensor, "batch pos d_model"], mask: AttentionMask
    ) -> tuple[Float[Tensor, "batch kv_head pos d_head"], Float[Tensor, "batch kv_head pos d_value"]]:
        """Return the keys and values that `forward` would cache, without computing queries.

        Args:
            x: the normalised residual stream.
            mask: holds the tokens' positions.
        """
        first = self.widths[0]
        bias = None if self.qkv_bias is None else self.qkv_bias[first:]
        parts = F.linear(x, self.qkv_weight[first:], bias).split(self.widths[1:], -1)
        k, v = (part.unflatten(-1, (self.kv_heads, -1)) for part in parts)
        k, v = self.hook_k(k), self.hook_v(v)
        if self.rotary is not None:
            k = self.hook_rot_k(self.rotary(k, mask.positions))
        return k.transpose(1, 2), v.transpose(1, 2)

    def fork(self, x: Float[Tensor, "batch pos d_model"]) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return the inputs of each head's queries, keys and values before the norm; None without hooks.

        These are three copies of the residual stream [batch pos head d_model], after `hook_attn_in` and
        `hook_{q,k,v}_input`. Keys and values have `kv_heads` heads; `hook_attn_in` has the query heads, of
        which the first of each group is used.
        """
        inputs = (self.hook_q_input, self.hook_k_input, self.hook_v_input)
        if not has_hooks(self.hook_attn_in, *inputs):
            return None
        heads = self.hook_attn_in(x.unsqueeze(-2).repeat(1, 1, self.n_heads, 1))
        shared = heads[:, :, :: self.n_heads // self.kv_heads]
        q, k, v = (
            point(part.clone() if has_hooks(point) else part)
            for point, part in zip(inputs, (heads, shared, shared), strict=True)
        )
        return q, k, v

    def _no_hooks(self) -> bool:
        points = (self.hook_q, self.hook_k, self.hook_v, self.hook_attn_scores, self.hook_pattern)
        return not has_hooks(*points, self.hook_z, self.hook_result)

    def _fused(
        self, q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask
    ) -> Float[Tensor, "batch head pos d_value"]:
        plain = mask.is_plain(self.window)
        return F.scaled_dot_product_attention(
            q, k, v,
            attn_mask=None if plain else mask.allowed(self.window) if mask.bias is None
            else mask.additive(self.window, q.dtype),
            is_causal=plain and mask.causal,
            scale=1 / self.scale,
        )  # fmt: skip

    def _explicit(
        self, q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask
    ) -> Float[Tensor, "batch head pos d_value"]:
        scores = q @ k.transpose(-1, -2)
        steps = None
        if self.rel_key is not None:
            steps = self._steps(mask).expand(scores.shape)
            scores = scores + (q @ self.rel_key.T).gather(-1, steps)
        scores = scores / self.scale
        if mask.bias is not None:
            scores = scores + mask.bias
        allowed = mask.allowed(self.window)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, float("-inf"))
        pattern = self.hook_pattern(self.hook_attn_scores(scores).softmax(-1))
        z = pattern @ v
        if steps is not None:
            assert self.rel_value is not None
            by_step = pattern.new_zeros(*pattern.shape[:-1], len(self.rel_value))
            z = z + by_step.scatter_add(-1, steps, pattern) @ self.rel_value
        return z

    def _steps(self, mask: AttentionMask) -> Int[Tensor, "#batch 1 pos key_pos"]:
        """Return the row of Shaw's tables for each query and key: the clipped relative position."""
        return (-mask.distance).clamp(-self.farthest, self.farthest)[:, None] + self.farthest

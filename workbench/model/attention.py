"""Multi-head attention: one fused kernel, or every step in the open when somebody listens."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.model.cache import LayerCache
from workbench.model.config import ModelConfig
from workbench.model.hooking import listened
from workbench.model.kernels import causal_attention, kept_pattern_is_faster
from workbench.model.positions import Rotary


class Attention(nn.Module):
    """Self-attention (Vaswani et al. 2017) with transformer-lens' hook points.

    `hook_attn_scores`, `hook_pattern` and `hook_result` are computed only when they have a
    listener; without one attention is `scaled_dot_product_attention`. The two paths agree to
    rounding. Scores that a query may not see are -inf at `hook_attn_scores`.

    Weights are stored fused, as `torch.nn.functional.linear` reads them; `W_Q`, `W_K`, `W_V`,
    `W_O` and their biases are views in transformer-lens' shapes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.d_head = config.n_heads, config.head_width
        self.causal = config.attention == "causal"
        self.scale = config.scale
        heads = self.n_heads * self.d_head
        self.qkv_weight = nn.Parameter(torch.empty(3 * heads, config.d_model))
        self.qkv_bias = nn.Parameter(torch.zeros(3 * heads)) if config.qkv_bias else None
        self.out_weight = nn.Parameter(torch.empty(config.d_model, heads))
        self.out_bias = nn.Parameter(torch.zeros(config.d_model)) if config.out_bias else None
        self.rotary = Rotary(config) if config.positions == "rotary" else None
        self.hook_attn_in = HookPoint()
        self.hook_q_input, self.hook_k_input, self.hook_v_input = HookPoint(), HookPoint(), HookPoint()
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        if self.rotary is not None:
            self.hook_rot_q, self.hook_rot_k = HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        self.hook_z, self.hook_result = HookPoint(), HookPoint()

    def _weight(self, which: int) -> Float[Tensor, "head d_model d_head"]:
        return self.qkv_weight.unflatten(0, (3, self.n_heads, self.d_head))[which].transpose(1, 2)

    def _bias(self, which: int) -> Float[Tensor, "head d_head"]:
        if self.qkv_bias is None:
            return self.qkv_weight.new_zeros(self.n_heads, self.d_head)
        return self.qkv_bias.unflatten(0, (3, self.n_heads, self.d_head))[which]

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        return self._weight(0)

    @property
    def W_K(self) -> Float[Tensor, "head d_model d_head"]:
        return self._weight(1)

    @property
    def W_V(self) -> Float[Tensor, "head d_model d_head"]:
        return self._weight(2)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        return self.out_weight.T.unflatten(0, (self.n_heads, self.d_head))

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"]:
        return self._bias(0)

    @property
    def b_K(self) -> Float[Tensor, "head d_head"]:
        return self._bias(1)

    @property
    def b_V(self) -> Float[Tensor, "head d_head"]:
        return self._bias(2)

    @property
    def b_O(self) -> Float[Tensor, " d_model"]:
        return self.out_weight.new_zeros(self.out_weight.shape[0]) if self.out_bias is None else self.out_bias

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        positions: Int[Tensor, "batch pos"] | None,
        mask: Bool[Tensor, "#batch 1 pos key_pos"] | None = None,
        cache: LayerCache | None = None,
        split: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """One attention output, bias included.

        Args:
            x: the normalised residual stream.
            positions: place of each token, for rotary positions.
            mask: True where a query may attend; if absent, the causal or full pattern.
            cache: keys and values of the earlier tokens; this call's are appended.
            split: the inputs of queries, keys and values for each head, [batch pos head d_model],
                when somebody listens to them.
        """
        if split is None:
            fused = F.linear(x, self.qkv_weight, self.qkv_bias)
            if self._unwatched(mask, cache) and kept_pattern_is_faster(x, x.shape[1]):
                z = causal_attention(fused, self.n_heads, self.scale)
                return F.linear(z, self.out_weight, self.out_bias)
            q, k, v = fused.unflatten(-1, (3, self.n_heads, self.d_head)).unbind(-3)
        else:
            q, k, v = (
                torch.einsum("bphd,hde->bphe", part, self._weight(i)) + self._bias(i)
                for i, part in enumerate(split)
            )
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        if self.rotary is not None:
            assert positions is not None
            q = self.hook_rot_q(self.rotary(q, positions))
            k = self.hook_rot_k(self.rotary(k, positions))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        past = 0
        if cache is not None:
            past = cache.length
            k, v = cache.append(k, v)
        if listened(self.hook_attn_scores, self.hook_pattern):
            z = self._explicit(q, k, v, mask, past)
        else:
            causal = self.causal and mask is None
            if causal and past:
                causal, mask = False, _causal_mask(q.shape[2], k.shape[2], q.device)
            z = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=1 / self.scale)
        z = self.hook_z(z.transpose(1, 2))
        if not listened(self.hook_result):
            return F.linear(z.flatten(-2), self.out_weight, self.out_bias)
        result = self.hook_result(torch.einsum("bphe,hed->bphd", z, self.W_O))
        out = result.sum(-2)
        return out if self.out_bias is None else out + self.out_bias

    def fork(self, x: Float[Tensor, "batch pos d_model"]) -> tuple[Tensor, Tensor, Tensor] | None:
        """The residual stream as each head's queries, keys and values read it, before the norm.

        Three tensors [batch pos head d_model] that have passed `hook_attn_in` and
        `hook_{q,k,v}_input`; None while nobody listens to those.
        """
        inputs = (self.hook_q_input, self.hook_k_input, self.hook_v_input)
        if not listened(self.hook_attn_in, *inputs):
            return None
        heads = self.hook_attn_in(x.unsqueeze(-2).repeat(1, 1, self.n_heads, 1))
        q, k, v = (point(heads.clone() if listened(point) else heads) for point in inputs)
        return q, k, v

    def _unwatched(self, mask: Tensor | None, cache: LayerCache | None) -> bool:
        seen = (self.hook_q, self.hook_k, self.hook_v, self.hook_attn_scores, self.hook_pattern)
        plain = self.causal and self.rotary is None and mask is None and cache is None
        return plain and not listened(*seen, self.hook_z, self.hook_result)

    def _explicit(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, past: int
    ) -> Float[Tensor, "batch head pos d_head"]:
        scores = (q @ k.transpose(-1, -2)) / self.scale
        if mask is None and self.causal:
            mask = _causal_mask(q.shape[2], k.shape[2], q.device)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        scores = self.hook_attn_scores(scores)
        return self.hook_pattern(scores.softmax(-1)) @ v


def _causal_mask(queries: int, keys: int, device: torch.device) -> Bool[Tensor, "query_pos key_pos"]:
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)

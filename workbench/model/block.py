"""One pre-norm transformer block: attention and MLP, each added to the residual stream."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.model.attention import Attention
from workbench.model.cache import LayerCache
from workbench.model.config import ModelConfig
from workbench.model.mlp import MLP
from workbench.model.norms import NORMS


class Block(nn.Module):
    """`mid = pre + attn(ln1(pre))`, `post = mid + mlp(ln2(mid))` (Radford et al. 2019)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.ln1, self.ln2 = NORMS[config.norm](config), NORMS[config.norm](config)
        self.attn, self.mlp = Attention(config), MLP(config)
        self.hook_mlp_in = HookPoint()
        self.hook_resid_pre, self.hook_resid_mid, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_out, self.hook_mlp_out = HookPoint(), HookPoint()

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        positions: Int[Tensor, "batch pos"] | None,
        mask: Bool[Tensor, "#batch 1 pos key_pos"] | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        pre = self.hook_resid_pre(x)
        forked = self.attn.fork(pre)
        if forked is None:
            attended = self.attn(self.ln1(pre), positions, mask, cache)
        else:
            q, k, v = (self.ln1(part) for part in forked)
            attended = self.attn(pre, positions, mask, cache, split=(q, k, v))
        mid = self.hook_resid_mid(pre + self.hook_attn_out(self._drop(attended)))
        out = self.mlp(self.ln2(self.hook_mlp_in(mid)))
        return self.hook_resid_post(mid + self.hook_mlp_out(self._drop(out)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x

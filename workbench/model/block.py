"""One block: attention, MLP, or both, each added to the residual stream."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.model.attention import Attention
from workbench.model.cache import LayerCache
from workbench.model.config import ModelConfig
from workbench.model.mixing import LayerMix
from workbench.model.mlp import MLP
from workbench.model.norms import make_norm, normed
from workbench.model.sight import Sight


class Block(nn.Module):
    """The usual pre-norm block is `mid = pre + attn(ln1(pre))`, `post = mid + mlp(ln2(mid))` (Radford et al.
    2019). A parallel one reads `pre` twice; a post-norm one puts each norm behind its sum (Vaswani et al.
    2017).

    Args:
        config: the shape.
        index: number of the block.
        kind: `am`, `a`, `m` or `(am)`.
        n_before: attention modules in the blocks before, which decides this one's window.
    """

    def __init__(self, config: ModelConfig, index: int, kind: str, n_before: int) -> None:
        super().__init__()
        self.kind, self.dropout = kind, config.dropout
        self.post_norm = config.norm_place == "post"
        attends, feeds, parallel = "a" in kind, "m" in kind, kind == "(am)"
        former = config.norm_place == "normformer"
        self.ln1 = make_norm(config) if attends else None
        self.ln2 = make_norm(config) if feeds and not (parallel and self.post_norm) else None
        self.attn = Attention(config, config.window(n_before)) if attends else None
        self.mlp = MLP(config) if feeds else None
        self.ln1_post = make_norm(config) if attends and former else None
        self.mix = LayerMix(index + 2) if config.residual == "weighted" else None
        self.hook_resid_pre, self.hook_resid_post = HookPoint(), HookPoint()
        if attends:
            self.hook_attn_out = HookPoint()
        if feeds:
            self.hook_mlp_in, self.hook_mlp_out = HookPoint(), HookPoint()
        if kind == "am":
            self.hook_resid_mid = HookPoint()
        if self.post_norm:
            self.hook_normalized_resid_post = HookPoint()
        if self.mix is not None:
            self.hook_mix = HookPoint()

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        sight: Sight,
        cache: LayerCache | None = None,
        written: list[Tensor] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream behind the block.

        Args:
            x: the residual stream.
            sight: who may see whom.
            cache: keys and values of the earlier tokens.
            written: what the embedding and the blocks before wrote; this block's output is appended.
        """
        pre = self.hook_resid_pre(x)
        if self.kind == "am":
            attended = self._attend(pre, sight, cache)
            mid = self.hook_resid_mid(pre + attended)
            if self.post_norm:
                mid = normed(self.ln1, mid)
            fed = self._feed(mid)
            post = mid + fed
            total = attended + fed if self.mix is not None else None
        else:
            total = self._attend(pre, sight, cache) if self.attn is not None else None
            if self.mlp is not None:
                fed = self._feed(pre)
                total = fed if total is None else total + fed
            assert total is not None
            post = pre + total
        if self.mix is not None:
            assert written is not None
            assert total is not None
            written.append(total)
            post = self.mix(written, self.hook_mix)
        post = self.hook_resid_post(post)
        if not self.post_norm:
            return post
        last = self.ln2 if self.ln2 is not None else self.ln1
        return self.hook_normalized_resid_post(normed(last, post))

    def keys_values(self, x: Float[Tensor, "batch pos d_model"], sight: Sight) -> tuple[Tensor, Tensor]:
        """The keys and values of tokens whose queries nobody asks for."""
        assert self.attn is not None
        return self.attn.keys_values(x if self.post_norm else normed(self.ln1, x), sight)

    def _attend(self, pre: Tensor, sight: Sight, cache: LayerCache | None) -> Tensor:
        assert self.attn is not None
        norm = None if self.post_norm else self.ln1
        forked = self.attn.fork(pre)
        if forked is None:
            out = self.attn(normed(norm, pre), sight, cache)
        else:
            q, k, v = (normed(norm, part) for part in forked)
            out = self.attn(pre, sight, cache, split=(q, k, v))
        return self.hook_attn_out(self._drop(normed(self.ln1_post, out)))

    def _feed(self, x: Tensor) -> Tensor:
        assert self.mlp is not None
        x = self.hook_mlp_in(x)
        return self.hook_mlp_out(self._drop(self.mlp(x if self.post_norm else normed(self.ln2, x))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x


def share_weights(blocks: nn.ModuleList, what: str) -> None:
    """Make all blocks use the weights of the first that has them (Lan et al. 2020, ALBERT).

    Args:
        blocks: of one model.
        what: `all`, `attention` or `mlp`. Norms are shared in `all` only; layer weights never.
    """
    parts = {"all": ("attn", "mlp", "ln1", "ln2", "ln1_post"), "attention": ("attn",), "mlp": ("mlp",)}[what]
    for part in parts:
        having = [module for block in blocks if (module := getattr(block, part)) is not None]
        for module in having[1:]:
            for name, parameter in having[0].named_parameters():
                *path, last = name.split(".")
                owner = module.get_submodule(".".join(path))
                setattr(owner, last, parameter)

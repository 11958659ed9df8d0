"""A run whose residual streams, keys and values are kept, for others to start from."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.interp.patching.differences import Differences, Products
from workbench.model.sight import Sight


class Base:
    """A run whose residual streams, keys and values are kept.

    Args:
        model: a `HookedTransformer` in eval mode.
        tokens: one row a pair, padded on the right.
        attention_mask: 1 at tokens; needed by masked models whose rows differ in length.
        also: further hook points whose activations are kept.
        rounded: keep linear maps' products too, so that runs near this one can be computed in bfloat16.
    """

    def __init__(
        self,
        model: Any,
        tokens: Int[Tensor, "pair pos"],
        attention_mask: Tensor | None = None,
        also: Sequence[str] = (),
        rounded: bool = False,
    ) -> None:
        self.model, self.tokens, self.attention_mask = model, tokens, attention_mask
        self.causal = model.config.attention == "causal"
        kept: dict[str, Tensor] = {}
        listened = {*base_hooks(model), *also}
        self._products = Products() if rounded else None
        watching = nullcontext() if self._products is None else self._products.watching(model)
        hooks = [(n, lambda x, hook: kept.update({hook.name: x})) for n in listened]
        with model.hooks(fwd_hooks=hooks), watching:
            model.stream(tokens, attention_mask=attention_mask)
        self.kept = {name: kept[name] for name in also}
        """The further activations, by hook name."""
        layers = range(model.config.n_layers)
        last = "hook_normalized_resid_post" if model.config.norm_place == "post" else "hook_resid_post"
        names = [f"blocks.{layer}.hook_resid_pre" for layer in layers] + [f"blocks.{layers[-1]}.{last}"]
        self.streams = [kept[name] for name in names]
        """What each block read, [pair pos d_model], and what the last one left."""
        weighted = model.config.residual == "weighted"
        self.written = [self.streams[0]] if weighted else []
        """What the embedding and each block wrote, where the model weighs them."""
        for layer in layers if weighted else ():
            outs = [f"blocks.{layer}.hook_{part}_out" for part in ("attn", "mlp")]
            parts = [kept[name] for name in outs if name in kept]
            self.written.append(parts[0] if len(parts) == 1 else parts[0] + parts[1])
        turned = "rot_k" if model.config.positions == "rotary" else "k"
        attends = {layer for layer in layers if model.blocks[layer].attn is not None}
        self.keys = {layer: kept[f"blocks.{layer}.attn.hook_{turned}"] for layer in attends}
        """Of each block that attends, [pair pos kv_head d_head]; turned, where positions are rotary."""
        self.values = {layer: kept[f"blocks.{layer}.attn.hook_v"] for layer in attends}
        mask = model._mask(tokens, attention_mask, None)
        self.mask = mask if mask is None or len(mask) > 1 else mask.expand(len(tokens), -1, -1, -1)

    def near(
        self, layer: int, pair: Int[Tensor, "#row #token"], pos: Int[Tensor, "#row #token"]
    ) -> AbstractContextManager[Any]:
        """Inside it, a block's linear maps of these tokens are by differences, if this run is `rounded`.

        Args:
            layer: the block.
            pair: each token's row in this run.
            pos: its position.
        """
        return nullcontext() if self._products is None else Differences(self._products, layer, pair, pos)

    def sight(
        self,
        places: Int[Tensor, "#row query_pos"],
        pair: Int[Tensor, " row"] | None = None,
        tokens: Int[Tensor, "1 token"] | None = None,
    ) -> Sight:
        """What queries at `places` see, in rows of some pairs or of all.

        Args:
            places: of the queries.
            pair: whose row; None for each pair's own.
            tokens: places of the tokens, where they are not laid out as the queries are.
        """
        keys = torch.arange(self.tokens.shape[1], device=places.device)[None]
        whole = tokens is not None and places.shape == keys.shape
        mask = None
        if self.mask is not None:
            mask = self.mask if pair is None else self.mask[pair]
            if not whole:
                at = places[:, None, :, None].expand(len(mask), 1, -1, mask.shape[-1])
                mask = mask.gather(2, at)
        elif self.causal and not whole:
            mask = keys[:, None, None] <= places[:, None, :, None]
        sight = Sight(places if tokens is None else tokens, keys, mask, self.causal, True, places)
        if self.model.position_bias is not None:
            sight.bias = self.model.position_bias(sight.distance, self.streams[0])
        return sight


def base_hooks(model: Any) -> list[str]:
    """The hook points of what a `Base` keeps."""
    config = model.config
    wanted = [
        "hook_resid_pre",
        "attn.hook_v",
        f"attn.hook_{'rot_k' if config.positions == 'rotary' else 'k'}",
    ]
    if config.residual == "weighted":
        wanted += ["hook_attn_out", "hook_mlp_out"]
    names = [f"blocks.{layer}.{name}" for layer in range(config.n_layers) for name in wanted]
    last = "hook_normalized_resid_post" if config.norm_place == "post" else "hook_resid_post"
    return [name for name in (*names, f"blocks.{config.n_layers - 1}.{last}") if name in model.hook_dict]

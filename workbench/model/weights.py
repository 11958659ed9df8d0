"""Weights in transformer-lens' names and shapes, as views or stacks of what is trained."""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.model.config import ModelConfig

if TYPE_CHECKING:
    _Model = Any  # the rest of HookedTransformer
else:
    _Model = object


class WeightViews(_Model):
    """Mixed into `HookedTransformer`. `model.blocks[i].attn.W_Q` is a view of the trained weight;
    `model.W_Q` is a stack over layers, a copy."""

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        return self.embed.W_E

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_model"]:
        if self.pos_embed is None:
            raise AttributeError("W_pos: this model has rotary positions and no position vectors.")
        return self.pos_embed.W_pos

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        return self.readout_weight.T

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        return self.readout_weight.new_zeros(self.config.d_vocab)

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        return torch.stack([block.attn.W_Q for block in self.blocks])

    @property
    def W_K(self) -> Float[Tensor, "layer head d_model d_head"]:
        return torch.stack([block.attn.W_K for block in self.blocks])

    @property
    def W_V(self) -> Float[Tensor, "layer head d_model d_head"]:
        return torch.stack([block.attn.W_V for block in self.blocks])

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        return torch.stack([block.attn.W_O for block in self.blocks])

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        return torch.stack([block.mlp.W_in for block in self.blocks])

    @property
    def W_gate(self) -> Float[Tensor, "layer d_model d_mlp"]:
        return torch.stack([block.mlp.W_gate for block in self.blocks])

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        return torch.stack([block.mlp.W_out for block in self.blocks])

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        return torch.stack([block.attn.b_Q for block in self.blocks])

    @property
    def b_K(self) -> Float[Tensor, "layer head d_head"]:
        return torch.stack([block.attn.b_K for block in self.blocks])

    @property
    def b_V(self) -> Float[Tensor, "layer head d_head"]:
        return torch.stack([block.attn.b_V for block in self.blocks])

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        return torch.stack([block.attn.b_O for block in self.blocks])

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        zeros = self.readout_weight.new_zeros(self.config.mlp_width)
        return torch.stack([zeros if block.mlp.b_in is None else block.mlp.b_in for block in self.blocks])

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        zeros = self.readout_weight.new_zeros(self.config.d_model)
        return torch.stack([zeros if block.mlp.b_out is None else block.mlp.b_out for block in self.blocks])

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """Sum of all biases that the blocks before `layer` wrote into the residual stream.

        Args:
            layer: blocks 0 to `layer - 1` are counted.
            mlp_input: count the attention bias of block `layer` too.
            include_mlp_biases: count `b_out`.
        """
        total = self.b_O[: layer + mlp_input].sum(0)
        return total + self.b_out[:layer].sum(0) if include_mlp_biases else total

    def tokens_to_residual_directions(
        self, tokens: str | int | Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape d_model"]:
        """The direction in the normalised residual stream that raises each token's logit.

        It is `ln_final.w * W_U[:, token]`: the gain is part of the direction, so that a dot product
        with `cache.apply_ln_to_stack(...)`, which centres and divides but has no gain, gives the
        logit without folding any weights. The bias `ln_final.b @ W_U` stays outside.
        """
        if isinstance(tokens, str):
            tokens = self.to_single_token(tokens)
        directions = self.readout_weight[tokens] * self.ln_final.w
        return directions.squeeze(0) if isinstance(tokens, Tensor) and tokens.numel() == 1 else directions


def lens_config(config: ModelConfig, dtype: torch.dtype, device: torch.device):
    """Our configuration as the `TransformerLensConfig` that transformer-lens' tools read."""
    from transformer_lens.config import TransformerLensConfig

    rms = config.norm == "RMSNorm"
    return TransformerLensConfig(
        d_model=config.d_model,
        d_head=config.head_width,
        n_layers=config.n_layers,
        n_ctx=config.n_ctx,
        n_heads=config.n_heads,
        d_mlp=config.mlp_width,
        d_vocab=config.d_vocab,
        device=str(device),
        positional_embedding_type="standard" if config.positions == "learned" else "rotary",
        gated_mlp=config.gated,
        uses_rms_norm=rms,
        final_rms=rms,
        eps=config.eps,
        act_fn=config.activation,
        normalization_type="RMS" if rms else "LN",
        dtype=dtype,
    )

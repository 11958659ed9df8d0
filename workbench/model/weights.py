"""Weights in transformer-lens' names and shapes, as views or stacks of what is trained."""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError

if TYPE_CHECKING:
    _Model = Any  # the rest of HookedTransformer
else:
    _Model = object


class WeightViews(_Model):
    """Mixed into `HookedTransformer`. `model.blocks[i].attn.W_Q` is a view of the trained weight;
    `model.W_Q` is a stack over layers, a copy, with zeros where a layer has no attention."""

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_embed"]:
        return self.embed.W_E

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_embed"]:
        if self.config.positions != "learned":
            raise AttributeError(
                f"W_pos: this model has {self.config.positions} positions and no learned position vectors."
            )
        return self.pos_embed.W_pos[self.config.position_offset :]

    @property
    def W_U(self) -> Float[Tensor, "d_readout d_vocab"]:
        return self.readout_weight.T

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        return self._or_zeros(self.unembed_bias, self.config.d_vocab)

    def _or_zeros(self, found: Tensor | None, *shape: int) -> Tensor:
        return self.readout_weight.new_zeros(shape) if found is None else found

    def _stack(self, module: str, name: str, *shape: int) -> Tensor:
        """A weight of all layers; zeros where a layer has no such module or bias."""
        owners = (getattr(block, module) for block in self.blocks)
        return torch.stack([self._or_zeros(getattr(owner, name, None), *shape) for owner in owners])

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        c = self.config
        return self._stack("attn", "W_Q", c.n_heads, c.d_model, c.head_width)

    @property
    def W_K(self) -> Float[Tensor, "layer head d_model d_head"]:
        c = self.config
        return self._stack("attn", "W_K", c.n_heads, c.d_model, c.head_width)

    @property
    def W_V(self) -> Float[Tensor, "layer head d_model d_value"]:
        c = self.config
        return self._stack("attn", "W_V", c.n_heads, c.d_model, c.value_width)

    @property
    def W_O(self) -> Float[Tensor, "layer head d_value d_model"]:
        c = self.config
        return self._stack("attn", "W_O", c.n_heads, c.value_width, c.d_model)

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        return self._stack("mlp", "W_in", self.config.d_model, self.config.mlp_width)

    @property
    def W_gate(self) -> Float[Tensor, "layer d_model d_mlp"]:
        return self._stack("mlp", "W_gate", self.config.d_model, self.config.mlp_width)

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        return self._stack("mlp", "W_out", self.config.mlp_width, self.config.d_model)

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        return self._stack("attn", "b_Q", self.config.n_heads, self.config.head_width)

    @property
    def b_K(self) -> Float[Tensor, "layer head d_head"]:
        return self._stack("attn", "b_K", self.config.n_heads, self.config.head_width)

    @property
    def b_V(self) -> Float[Tensor, "layer head d_value"]:
        return self._stack("attn", "b_V", self.config.n_heads, self.config.value_width)

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        return self._stack("attn", "b_O", self.config.d_model)

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        return self._stack("mlp", "b_in", self.config.mlp_width)

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        return self._stack("mlp", "b_out", self.config.d_model)

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

        Raises:
            InputError: a masked model with a head of its own, whose logits are not linear in the stream.
        """
        if self.mlm_head is not None:
            raise InputError("this model's mlm_head is not linear, so no direction raises a token's logit.")
        if isinstance(tokens, str):
            tokens = self.to_single_token(tokens)
        directions = self.readout_weight[tokens]
        if self.config.tied and self.embed.up_weight is not None:
            directions = directions @ self.embed.up_weight.T
        if self.ln_final is not None:
            directions = directions * self.ln_final.w
        return directions.squeeze(0) if isinstance(tokens, Tensor) and tokens.numel() == 1 else directions

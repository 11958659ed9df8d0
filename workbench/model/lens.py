"""What transformer-lens' tools expect of a model beside its hook points."""

from typing import TYPE_CHECKING, Any

import torch

from workbench.model.config import ModelConfig

if TYPE_CHECKING:
    _Model = Any  # the rest of HookedTransformer
else:
    _Model = object


class LensSurface(_Model):
    """Mixed into `HookedTransformer`."""

    @property
    def cfg(self):
        """The configuration as transformer-lens' tools read it."""
        made = self.__dict__.get("_lens_config")
        if made is None or made.dtype != self.dtype or made.device != str(self.device):
            made = self.__dict__["_lens_config"] = lens_config(self.config, self.dtype, self.device)
        return made

    # transformer-lens' tools switch these before they listen; here listening is enough.
    def set_use_attn_result(self, value: bool) -> None:
        """Accepted for transformer-lens' tools; `hook_result` fires whenever it has a listener."""
        self.cfg.use_attn_result = value

    def set_use_split_qkv_input(self, value: bool) -> None:
        """Accepted for transformer-lens' tools; `hook_{q,k,v}_input` fire whenever they have a listener."""
        self.cfg.use_split_qkv_input = value

    def set_use_hook_mlp_in(self, value: bool) -> None:
        """Accepted for transformer-lens' tools; `hook_mlp_in` always fires."""
        self.cfg.use_hook_mlp_in = value  # type: ignore[attr-defined]

    def set_use_attn_in(self, value: bool) -> None:
        """Accepted for transformer-lens' tools; `hook_attn_in` fires whenever it has a listener."""
        self.cfg.use_attn_in = value  # type: ignore[attr-defined]


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
        n_key_value_heads=None if config.kv_heads == config.n_heads else config.kv_heads,
        d_mlp=config.mlp_width,
        d_vocab=config.d_vocab,
        device=str(device),
        positional_embedding_type=_POSITIONS[config.positions],
        attn_only=not any("m" in kind for kind in config.blocks),
        gated_mlp=config.gated,
        uses_rms_norm=rms,
        final_rms=rms,
        eps=config.eps,
        act_fn=config.activation,
        normalization_type={"LayerNorm": "LN", "RMSNorm": "RMS", "none": None}[config.norm],
        dtype=dtype,
    )


_POSITIONS = {
    "learned": "standard",
    "sinusoidal": "standard",
    "rotary": "rotary",
    "alibi": "alibi",
    "t5": "relative_positional_bias",
    "shaw": "relative_positional_bias",
    "none": "none",
}

"""`ModelConfig`: every architectural question is one field, validated once."""

import dataclasses
from typing import Any, Literal

from workbench import settings
from workbench.errors import ConfigError

Positions = Literal["learned", "rotary"]
Norm = Literal["LayerNorm", "RMSNorm"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
AttentionKind = Literal["causal", "bidirectional"]
Objective = Literal["clm", "mlm"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of one transformer (pre-norm; Vaswani et al. 2017, Radford et al. 2019).

    Raises:
        ConfigError: a field out of range, or two fields that contradict each other.
    """

    d_model: int = 128
    """Width of the residual stream."""
    n_layers: int = 4
    n_heads: int = 4
    d_head: int | None = None
    """Query, key and value width of one head; `d_model / n_heads` if not set."""
    d_mlp: int | None = None
    """Hidden width of the feed-forward block; `4 * d_model` if not set."""
    d_vocab: int = 4000
    n_ctx: int = 256
    """Longest sequence in tokens, BOS included."""
    positions: Positions = "learned"
    rotary_base: float = 10000.0
    """Base of the rotary wavelengths (Su et al. 2021, RoFormer)."""
    norm: Norm = "LayerNorm"
    eps: float = 1e-5
    activation: Activation = "gelu"
    gated: bool = False
    """Multiply the activation by a second projection (Shazeer 2020: GEGLU, SwiGLU)."""
    attention: AttentionKind = "causal"
    objective: Objective | None = None
    """`clm` or `mlm`; if not set, the one that fits `attention`."""
    attention_scale: float | None = None
    """Scores are divided by this; `sqrt(d_head)` if not set, 1.0 for GPT-Neo."""
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    tied: bool = True
    """The unembedding is the embedding, transposed (Press & Wolf 2017)."""
    dropout: float = 0.0
    """Probability of dropping an entry of the embedding, the attention output and the MLP output."""
    init_std: float = 0.02
    """Normal initialisation; projections into the residual stream are divided by sqrt(2 n_layers)."""
    seed: int = 0
    """Seed of the initial weights."""

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "n_heads", "d_vocab", "n_ctx", "d_head", "d_mlp"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"model.{name} must be a whole number of at least 1; found {value!r}.")
        for name, options in _CHOICES.items():
            value = getattr(self, name)
            if value not in options and not (name == "objective" and value is None):
                raise ConfigError(f"model.{name} must be one of {', '.join(options)}; found {value!r}.")
        if self.d_head is None:
            if self.d_model % self.n_heads:
                raise ConfigError(
                    f"model.n_heads = {self.n_heads} does not divide model.d_model = {self.d_model}; "
                    "choose another number of heads, or set model.d_head."
                )
            object.__setattr__(self, "d_head", self.d_model // self.n_heads)
        if self.d_mlp is None:
            object.__setattr__(self, "d_mlp", 4 * self.d_model)
        fitting = "clm" if self.attention == "causal" else "mlm"
        if self.objective is None:
            object.__setattr__(self, "objective", fitting)
        if self.objective != fitting:
            raise ConfigError(
                f"model.objective = {self.objective} contradicts model.attention = {self.attention}: "
                "clm goes with causal, mlm with bidirectional."
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise ConfigError(f"model.d_head must be even for rotary positions; found {self.head_width}.")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"model.dropout must lie in [0, 1); found {self.dropout!r}.")
        for name in ("eps", "init_std", "rotary_base"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"model.{name} must be above 0; found {getattr(self, name)!r}.")
        if self.attention_scale is not None and not self.attention_scale > 0:
            raise ConfigError(f"model.attention_scale must be above 0; found {self.attention_scale!r}.")
        if self.d_vocab < 5:
            raise ConfigError(f"model.d_vocab must hold the 4 special tokens and more; found {self.d_vocab}.")

    @property
    def head_width(self) -> int:
        """`d_head` as a number (it is resolved when the configuration is made)."""
        assert self.d_head is not None
        return self.d_head

    @property
    def mlp_width(self) -> int:
        """`d_mlp` as a number (it is resolved when the configuration is made)."""
        assert self.d_mlp is not None
        return self.d_mlp

    @property
    def scale(self) -> float:
        """What attention scores are divided by."""
        return self.attention_scale if self.attention_scale is not None else self.head_width**0.5

    @property
    def n_params(self) -> int:
        """Number of trainable parameters, by formula (a law holds it to the module's own count)."""
        d, heads, mlp = self.d_model, self.n_heads * self.head_width, self.mlp_width
        norm = 2 * d if self.norm == "LayerNorm" else d
        attention = 4 * d * heads + (3 * heads if self.qkv_bias else 0) + (d if self.out_bias else 0)
        projections = 3 if self.gated else 2
        feed_forward = projections * d * mlp + ((mlp + d) if self.mlp_bias else 0)
        embedding = self.d_vocab * d * (1 if self.tied else 2)
        positions = self.n_ctx * d if self.positions == "learned" else 0
        return embedding + positions + self.n_layers * (attention + feed_forward + 2 * norm) + norm

    @property
    def flops_per_token(self) -> int:
        """Multiply-adds x 2 of one training token, forward and backward (Kaplan et al. 2020, 6N),
        matrix products only, with attention over half the context if causal."""
        d, heads = self.d_model, self.n_heads * self.head_width
        layer = 4 * d * heads + (3 if self.gated else 2) * d * self.mlp_width
        scores = heads * self.n_ctx * (1 if self.attention == "causal" else 2)
        return 6 * (self.n_layers * (layer + scores) + d * self.d_vocab)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for `config.json`."""
        return settings.to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`.

        Raises:
            ConfigError: unknown key, wrong type, or a value that `ModelConfig` refuses.
        """
        return settings.build(cls, values, "model")


_CHOICES: dict[str, tuple[str, ...]] = {
    "positions": ("learned", "rotary"),
    "norm": ("LayerNorm", "RMSNorm"),
    "activation": ("gelu", "gelu_tanh", "relu", "silu"),
    "attention": ("causal", "bidirectional"),
    "objective": ("clm", "mlm"),
}

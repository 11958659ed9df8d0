"""Named shapes. A preset is a mapping of `ModelConfig` fields; anything can be overridden."""

from typing import Any

from workbench.errors import ConfigError, nearest
from workbench.model.config import ModelConfig

PRESETS: dict[str, dict[str, Any]] = {
    "nano": dict(n_layers=2, d_model=64, n_heads=4, d_mlp=256, d_vocab=2000, n_ctx=128),
    "tiny": dict(n_layers=4, d_model=128, n_heads=4, d_mlp=512, d_vocab=4000, n_ctx=256),
    "small": dict(n_layers=4, d_model=256, n_heads=8, d_mlp=1024, d_vocab=8000, n_ctx=256),
    "base": dict(n_layers=4, d_model=512, n_heads=8, d_mlp=1024, d_vocab=10000, n_ctx=256),
    # AISE-TUDelft's GPT-Neo as trained: no attention scaling, no q/k/v bias, 9,585,664 parameters.
    # Its local window of 256 in every second layer is not a field yet.
    "gpt-neo-9m": dict(
        n_layers=2, d_model=512, n_heads=4, d_mlp=1024, d_vocab=10000, n_ctx=512,
        attention_scale=1.0, qkv_bias=False, activation="gelu_tanh",
    ),
}  # fmt: skip


def preset(name: str, **overrides: Any) -> ModelConfig:
    """The configuration called `name`, with `overrides` on top.

    Raises:
        ConfigError: no preset of that name (with the nearest one), or an override that does not fit.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset is called {name!r}. {nearest(name, PRESETS)}")
    return ModelConfig.from_dict({**PRESETS[name], **overrides})

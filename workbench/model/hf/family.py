"""What a family of foreign models can hold, and how its settings and tensors are called.

A family is a table: which of our fields it has at any value, which at one value only, what each of its
settings means, and which of its tensors is which of ours. Everything else here reads that table, so that
another family is one more file.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError
from workbench.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor


Settings = Mapping[str, Any]
"""The contents of a config.json."""
Tensors = dict[str, "Tensor"]
Rule = tuple[str, Callable[[ModelConfig], bool], str]
"""A field of ours, what must hold of a configuration, and what the family has (after its title)."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """One tensor of ours and the tensors of theirs that hold the same numbers."""

    ours: str
    theirs: str | tuple[str, ...]
    """Several are stacked along the first axis: queries, keys, values."""
    shape: tuple[int, ...]
    """Of ours."""
    rows: tuple[int, ...] = ()
    """Length of each part along the first axis, where there are several."""
    transposed: bool = False

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """Their names, each with its shape as they store it."""
        if isinstance(self.theirs, str):
            return {self.theirs: self.shape[::-1] if self.transposed else self.shape}
        return {name: (rows, *self.shape[1:]) for name, rows in zip(self.theirs, self.rows, strict=True)}


def norm_pairs(norms: list[tuple[str, str]], width: int) -> Iterator[Pair]:
    """Gain and bias of each norm."""
    for ours, theirs in norms:
        yield Pair(f"{ours}.w", f"{theirs}.weight", (width,))
        yield Pair(f"{ours}.b", f"{theirs}.bias", (width,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """The table of one family. See `gpt2.py` for a short one."""

    title: str
    model_type: str
    """As config.json names it."""
    architecture: str
    """The transformers class that has the readout."""
    prefix: str
    """In front of all tensor names but the readout's; left out in some files."""
    defaults: Mapping[str, Any]
    """Values of settings that a config.json may leave out."""
    names: Mapping[str, str]
    """Our field -> their setting, where the value is the same."""
    constants: Mapping[str, Any]
    """Our fields that are the same in every model of the family."""
    rules: tuple[Rule, ...]
    """What else must hold of a configuration of ours."""
    refused: Mapping[str, tuple[tuple[Any, ...], str]]
    """Their settings that we hold at some values only: those values, and what the others would mean."""
    read: Callable[[Settings], dict[str, Any]]
    """The fields that follow from more than one setting."""
    write: Callable[[ModelConfig], dict[str, Any]]
    """The settings that follow from more than one field."""
    pairs: Callable[[ModelConfig], Iterable[Pair]]
    """All tensors."""
    copies: Callable[[ModelConfig], dict[str, str]]
    """Tensors that a file may hold twice, or under the second name only: the second name -> the first. In a
    tied model both must be equal; in an untied one the second is not read."""
    harmless: str = r"(?!)"
    """A pattern of names that a file may hold and nobody reads."""
    arrange: Callable[[ModelConfig, int | None], ModelConfig] = lambda config, pad: config
    """The same function in the arrangement that the family has, given the tokenizer's padding id."""
    move: Callable[[ModelConfig, ModelConfig, Tensors], Tensors] = lambda before, after, ours: ours
    """The weights that go with it."""

    def config_of(self, settings: Settings) -> ModelConfig:
        """The shape that a config.json describes.

        Raises:
            ConfigError: a setting that no field of ours can hold, or one out of range.
        """
        given = {key: value for key, value in settings.items() if value is not None}
        full = {**self.defaults, **given}
        for key, (allowed, meaning) in {**_REFUSED, **self.refused}.items():
            if key in given and given[key] not in allowed:
                raise ConfigError(f"{key} = {given[key]!r}: {meaning}.")
        missing = [theirs for theirs in self.names.values() if theirs not in full]
        if missing:
            raise ConfigError(f"{missing[0]} is not set; every {self.title} model has it.")
        fields = {ours: full[theirs] for ours, theirs in self.names.items() if full[theirs] is not None}
        try:
            return ModelConfig.from_dict({**self.constants, **fields, **self.read(full)})
        except (TypeError, ValueError, AttributeError, KeyError, IndexError, ArithmeticError) as error:
            raise ConfigError(f"a setting has the wrong type ({error}).") from None

    def refusals(self, config: ModelConfig) -> list[str]:
        """Why the family cannot hold a configuration: a sentence for each field."""
        config = self.arrange(config, None)
        found = [
            f"model.{field} = {_shown(getattr(config, field))}: {self.title} "
            f"{_SENTENCES.get((field, value), f'has {value!r} only')}."
            for field, value in self.constants.items()
            if getattr(config, field) != value
        ]
        told = {sentence.partition(" ")[0] for sentence in found}
        for field, holds, has in (*_RULES, *self.rules):
            if f"model.{field}" not in told and not holds(config):
                found.append(f"model.{field} = {_shown(getattr(config, field))}: {self.title} {has}.")
                told.add(f"model.{field}")
        return found

    def settings_of(self, config: ModelConfig) -> dict[str, Any]:
        """The config.json of a configuration.

        Raises:
            ConfigError: naming the first field that the family cannot hold.
        """
        refused = self.refusals(config)
        if refused:
            raise ConfigError(refused[0])
        same = {theirs: getattr(config, ours) for ours, theirs in self.names.items()}
        return {
            "model_type": self.model_type,
            "architectures": [self.architecture],
            "dtype": "float32",
            **same,
            **self.write(config),
        }


def known(value: Any, names: Mapping[str, str], key: str) -> str:
    """Our name of one of their activations.

    Raises:
        ConfigError: we have no such activation.
    """
    if not isinstance(value, str) or value not in names:
        raise ConfigError(f"{key} = {value!r} is not an activation of ours; there are: {', '.join(names)}.")
    return names[value]


ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "swish": "silu",
}
"""Their names of activations -> ours; the first of several is the one that is written."""


def activation_of(config: ModelConfig) -> str:
    """Their name of a configuration's activation."""
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.activation)


def repeating(items: list[Any]) -> list[Any]:
    """The shortest beginning that gives the whole list when it is repeated."""
    for length in range(1, len(items) + 1):
        if len(items) % length == 0 and items[:length] * (len(items) // length) == items:
            return items[:length]
    return items


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


one_head_width: Rule = (
    "d_head",
    lambda c: c.head_width * c.n_heads == c.d_model,
    "has heads of width d_model / n_heads",
)
one_key_each: Rule = (
    "n_key_value_heads",
    lambda c: c.kv_heads == c.n_heads,
    "has keys and values of its own for each head",
)
usual_scale: Rule = (
    "attention_scale",
    lambda c: abs(c.scale - c.head_width**0.5) <= 1e-12 * c.scale,
    "divides attention scores by sqrt(d_head)",
)
no_windows: Rule = ("windows", lambda c: not any(c.windows), "attends to the whole context in all layers")

_RULES: tuple[Rule, ...] = (
    ("layout", lambda c: set(c.blocks) == {"am"}, "has an MLP behind each attention"),
    ("mlp_depth", lambda c: c.mlp_depth == 1, "has one hidden layer in its MLP"),
    ("d_value", lambda c: c.value_width == c.head_width, "has values as wide as its queries"),
    ("d_embed", lambda c: c.d_embed is None, "has embeddings as wide as the model"),
    ("sharing", lambda c: c.sharing == "none", "has weights of its own in each layer"),
    ("residual", lambda c: c.residual == "plain", "adds each module to the residual stream as it is"),
    (
        "activation",
        lambda c: c.activation in ACTIVATIONS.values(),
        f"has {', '.join(dict.fromkeys(ACTIVATIONS.values()))}",
    ),
)
"""What holds of all families."""

_SENTENCES: dict[tuple[str, Any], str] = {
    ("attention", "causal"): "reads from left to right",
    ("attention", "bidirectional"): "sees both sides",
    ("objective", "clm"): "predicts the next token",
    ("objective", "mlm"): "predicts masked tokens",
    ("positions", "learned"): "has learned positions",
    ("positions", "rotary"): "has rotary positions",
    ("position_offset", 0): "has no vectors before its first position",
    ("rotary_adjacent", False): "rotates dimensions half a head apart",
    ("norm", "LayerNorm"): "has LayerNorm",
    ("norm", "RMSNorm"): "has RMSNorm",
    ("norm_place", "pre"): "normalises what a module reads",
    ("norm_place", "post"): "normalises what a module leaves",
    ("gated", False): "has no gate in its MLP",
    ("gated", True): "has a gate in its MLP",
    ("mlp_bias", True): "has biases in its MLP",
    ("mlp_bias", False): "has no biases in its MLP here",
    ("qkv_bias", True): "has biases on queries, keys and values",
    ("qkv_bias", False): "has no biases on queries, keys and values",
    ("out_bias", True): "has a bias behind its attention",
    ("token_types", 0): "has no token types",
    ("embed_norm", False): "does not normalise its embeddings",
    ("embed_norm", True): "normalises its embeddings",
    ("mlm_head", False): "has no layer before its readout",
    ("mlm_head", True): "has a dense layer before its readout",
    ("unembed_bias", False): "has no bias on its logits",
    ("unembed_bias", True): "has a bias on its logits",
}

_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "is_encoder_decoder": ((False,), "a decoder that reads an encoder is not a model of ours"),
    "add_cross_attention": ((False,), "attention to another model's output is not a field of ours"),
    "is_decoder": ((False,), "a masked model's layers used from left to right are not a model of ours"),
    "position_embedding_type": (("absolute",), "only absolute positions of this family are held"),
    "quantization_config": ((), "the weights are quantised; save them in 16 or 32 bits first"),
    "pruned_heads": (({},), "heads that were cut out are not held; only whole layers are"),
}
"""Their settings that no family of ours holds at other values."""

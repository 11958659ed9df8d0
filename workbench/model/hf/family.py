"""Features that each family of Hugging Face models supports, and the names of its settings and tensors.

A family is a table (`Family`): which of our fields may have any value and which only one, what each of its
settings means, and which of its tensors hold which of ours. All conversion code reads that table, so another
family is one more file.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ConfigError, RunError
from workbench.model.config import ModelConfig

Settings = Mapping[str, Any]
"""The contents of a config.json."""
Tensors = dict[str, Tensor]
Rule = tuple[str, Callable[[ModelConfig], bool], str]
"""A field of ours, a predicate on configurations, and what the family has (a phrase after its title)."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """One tensor of ours and the tensors of theirs that hold the same values."""

    ours: str
    theirs: str | tuple[str, ...]
    """Several are stacked along the first axis: queries, keys, values."""
    shape: tuple[int, ...]
    """Shape of ours."""
    rows: tuple[int, ...] = ()
    """Length of each part along the first axis, where there are several."""
    transposed: bool = False

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """Names of theirs, each with its shape in their layout."""
        if isinstance(self.theirs, str):
            return {self.theirs: self.shape[::-1] if self.transposed else self.shape}
        return {name: (rows, *self.shape[1:]) for name, rows in zip(self.theirs, self.rows, strict=True)}


def norm_pairs(norms: list[tuple[str, str]], width: int) -> Iterator[Pair]:
    """Yield gain and bias of each norm."""
    for ours, theirs in norms:
        yield Pair(f"{ours}.w", f"{theirs}.weight", (width,))
        yield Pair(f"{ours}.b", f"{theirs}.bias", (width,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """The table of one family; see `gpt2.py` for a short one."""

    title: str
    model_type: str
    """Name of the family in config.json."""
    architecture: str
    """Class of transformers that includes the readout."""
    prefix: str
    """Prefix of all tensor names except the readout's; missing in some files."""
    defaults: Mapping[str, Any]
    """Defaults of settings that config.json may omit."""
    names: Mapping[str, str]
    """Our field -> their setting with the same value."""
    constants: Mapping[str, Any]
    """Our fields that have one value in every model of the family."""
    rules: tuple[Rule, ...]
    """Further conditions on a configuration of ours."""
    refused: Mapping[str, tuple[tuple[Any, ...], str]]
    """Their settings that we support at some values only: those values, and what other values would mean."""
    read: Callable[[Settings], dict[str, Any]]
    """Return the fields that follow from more than one setting."""
    write: Callable[[ModelConfig], dict[str, Any]]
    """Return the settings that follow from more than one field."""
    pairs: Callable[[ModelConfig], Iterable[Pair]]
    """Return all tensors."""
    copies: Callable[[ModelConfig], dict[str, str]]
    """Return second name -> first name of tensors that a file may hold twice, or under the second name only.
    In a tied model both must be equal; in an untied one the second is not read."""
    harmless: str = r"(?!)"
    """Pattern of tensor names in a file that are ignored."""
    arrange: Callable[[ModelConfig, int | None], ModelConfig] = lambda config, pad: config
    """Return an equivalent configuration that the family can hold, given the tokenizer's padding id."""
    move: Callable[[ModelConfig, ModelConfig, Tensors], Tensors] = lambda before, after, ours: ours
    """Return the weights of the configuration that `arrange` returned."""

    def config_of(self, settings: Settings) -> ModelConfig:
        """Return the configuration that a config.json describes.

        Raises:
            ConfigError: a setting that `ModelConfig` cannot represent, or one out of range.
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
        """Return why the family cannot hold a configuration: a sentence for each field."""
        config = self.arrange(config, None)
        sentences = [
            f"model.{field} = {_shown(getattr(config, field))}: {self.title} "
            f"{_SENTENCES.get((field, value), f'has {value!r} only')}."
            for field, value in self.constants.items()
            if getattr(config, field) != value
        ]
        fields = {sentence.partition(" ")[0] for sentence in sentences}
        for field, holds, has in (*RULES, *self.rules):
            if f"model.{field}" not in fields and not holds(config):
                sentences.append(f"model.{field} = {_shown(getattr(config, field))}: {self.title} {has}.")
                fields.add(f"model.{field}")
        return sentences

    def settings_of(self, config: ModelConfig) -> dict[str, Any]:
        """Return the config.json of a configuration.

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
    """Return our name of one of their activations.

    Raises:
        ConfigError: we have no such activation.
    """
    if not isinstance(value, str) or value not in names:
        options = ", ".join(names)
        raise ConfigError(f"{key} = {value!r} is not a supported activation; choose from: {options}.")
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
"""Their names of activations -> ours; the first of several is the one to write."""


def activation_of(config: ModelConfig) -> str:
    """Return their name of a configuration's activation."""
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.activation)


def repeating(items: list[Any]) -> list[Any]:
    """Return the shortest prefix that repeats to the whole list."""
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
    "has separate keys and values for each head",
)
usual_scale: Rule = (
    "attention_scale",
    lambda c: abs(c.scale - c.head_width**0.5) <= 1e-12 * c.scale,
    "divides attention scores by sqrt(d_head)",
)
no_windows: Rule = ("windows", lambda c: not any(c.windows), "attends to the whole context in all layers")

RULES: tuple[Rule, ...] = (
    ("layout", lambda c: set(c.blocks) == {"am"}, "has an MLP after each attention module"),
    ("mlp_depth", lambda c: c.mlp_depth == 1, "has one hidden layer in its MLP"),
    ("d_value", lambda c: c.value_width == c.head_width, "has values as wide as its queries"),
    ("d_embed", lambda c: c.d_embed is None, "has embeddings as wide as the model"),
    ("sharing", lambda c: c.sharing == "none", "has separate weights in each layer"),
    ("residual", lambda c: c.residual == "plain", "adds each module's output to the residual stream"),
    (
        "activation",
        lambda c: c.activation in ACTIVATIONS.values(),
        f"has {', '.join(dict.fromkeys(ACTIVATIONS.values()))}",
    ),
)
"""Conditions of all families."""

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
    ("norm_place", "pre"): "normalises the input of each module",
    ("norm_place", "post"): "normalises the stream after each module",
    ("gated", False): "has no gate in its MLP",
    ("gated", True): "has a gate in its MLP",
    ("mlp_bias", True): "has biases in its MLP",
    ("mlp_bias", False): "has no biases in its MLP here",
    ("qkv_bias", True): "has biases on queries, keys and values",
    ("qkv_bias", False): "has no biases on queries, keys and values",
    ("out_bias", True): "has a bias on its attention output",
    ("token_types", 0): "has no token types",
    ("embed_norm", False): "does not normalise its embeddings",
    ("embed_norm", True): "normalises its embeddings",
    ("mlm_head", False): "has no layer before its readout",
    ("mlm_head", True): "has a dense layer before its readout",
    ("unembed_bias", False): "has no bias on its logits",
    ("unembed_bias", True): "has a bias on its logits",
}

_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "is_encoder_decoder": ((False,), "a decoder that reads an encoder is not supported"),
    "add_cross_attention": ((False,), "attention to another model's output is not supported"),
    "is_decoder": ((False,), "a masked model's layers used from left to right are not supported"),
    "position_embedding_type": (("absolute",), "only absolute positions are supported"),
    "quantization_config": ((), "the weights are quantised; save them in 16 or 32 bits first"),
    "pruned_heads": (({},), "pruned heads are not supported"),
}
"""Settings that are supported at these values only, in all families."""


# Tensors

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def to_ours(
    family: Family, config: ModelConfig, tensors: Mapping[str, Tensor], where: str, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Convert the tensors of a family's file to our state dict, without copying those that fit as they are.

    Args:
        family: the family.
        config: from `family.config_of`.
        tensors: by name, with or without the family's prefix.
        where: prefix of messages, such as the path of the file.
        dtype: converts all tensors; None leaves them.

    Raises:
        RunError: a tensor is missing, left over, of the wrong shape or type, or holds NaN or infinity.
    """
    pairs = list(family.pairs(config))
    wanted = {name: shape for pair in pairs for name, shape in pair.parts.items()}
    copies = family.copies(config)
    found = _named(family, tensors, wanted.keys() | copies.keys(), where)
    for second, first in copies.items():
        if second not in found:
            continue
        copy = found.pop(second)
        if first not in found:
            found[first] = copy
        elif config.tied and not torch.equal(copy, found[first]):
            raise RunError(
                f"{where}: {second} differs from {first}, and tie_word_embeddings says that they are one; "
                "set it to false in config.json if they are two."
            )
    for name, shape in wanted.items():
        if name not in found:
            raise RunError(f"{where}: the tensor {name} {list(shape)} is missing.")
        _check_tensor(found[name], name, shape, where)
    extra = sorted(found.keys() - wanted.keys())
    if extra:
        shape = list(found[extra[0]].shape)
        raise RunError(f"{where}: the tensor {extra[0]} {shape} has no place in {family.title}.")
    ours = {}
    for pair in pairs:
        parts = [found[name] if dtype is None else found[name].to(dtype) for name in pair.parts]
        value = torch.cat(parts) if len(parts) > 1 else parts[0]
        ours[pair.ours] = value.T.contiguous() if pair.transposed else value.contiguous()
    return ours


def to_theirs(family: Family, config: ModelConfig, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert our state dict to the family's tensors, without copying those that fit as they are.

    Args:
        family: one that can hold `config`.
        config: the model's.
        ours: its state dict.
    """
    theirs: dict[str, Tensor] = {}
    for pair in family.pairs(config):
        value = ours[pair.ours].detach()
        if isinstance(pair.theirs, str):
            theirs[pair.theirs] = value.T if pair.transposed else value
        else:
            theirs |= zip(pair.theirs, value.split(pair.rows), strict=True)
    if not config.tied:
        theirs |= {second: theirs[first].clone() for second, first in family.copies(config).items()}
    return theirs


def _named(
    family: Family, tensors: Mapping[str, Tensor], expected: set[str], where: str
) -> dict[str, Tensor]:
    """Return the tensors by their full names, without those that are ignored."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        # The first BERT files call a norm's gain and bias gamma and beta.
        full = re.sub(r"LayerNorm\.(gamma|beta)$", lambda m: f"LayerNorm.{_OLD_NORM[m[1]]}", name)
        if full not in expected and not re.fullmatch(family.harmless, full):
            full = full if full.startswith(family.prefix) else family.prefix + full
            if full not in expected and not re.fullmatch(family.harmless, full):
                full = name
        if re.fullmatch(family.harmless, full):
            continue
        if full in found:
            raise RunError(f"{where}: the tensor {full} is there twice, with and without its prefix.")
        found[full] = tensor
    return found


_OLD_NORM = {"gamma": "weight", "beta": "bias"}


def _check_tensor(tensor: Tensor, name: str, shape: tuple[int, ...], where: str) -> None:
    if tuple(tensor.shape) != shape:
        raise RunError(
            f"{where}: the tensor {name} has shape {list(tensor.shape)}; config.json asks for {list(shape)}."
        )
    if tensor.dtype not in _FLOATS:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise RunError(f"{where}: the tensor {name} is {kind}; float16, bfloat16 and float32 are read.")
    # The sum is not finite if any entry is not, and is faster to check; but it may overflow by itself.
    if not bool(tensor.sum().isfinite()) and not bool(tensor.isfinite().all()):
        raise RunError(f"{where}: the tensor {name} holds NaN or infinity.")


# Folders in Hugging Face's layout: config.json and model.safetensors, whole or in parts

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_JSON_LIMIT = 50_000_000
MODEL_FOLDER = f"a model is a folder with {CONFIG}, {WEIGHTS} and tokenizer.json"


def read_weights(folder: Path, family: Family, config: ModelConfig) -> dict[str, Tensor]:
    """Read a folder's weights as our state dict in float32; they are memory-mapped where possible.

    Raises:
        RunError: no safetensors, damaged ones, or tensors that do not fit config.json; the message names it.
    """
    files = weight_files(Path(folder))
    tensors: dict[str, Tensor] = {}
    for file in files:
        part = _read_safetensors(file)
        twice = tensors.keys() & part.keys()
        if twice:
            raise RunError(f"{file}: the tensor {min(twice)} is in another part too.")
        tensors |= part
    where = str(files[0] if len(files) == 1 else folder)
    return to_ours(family, config, tensors, where, torch.float32)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder: `model.safetensors`, or the parts that its index names.

    Raises:
        RunError: there are none, or parts are missing.
    """
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        if any(folder.glob("pytorch_model*.bin")):
            raise RunError(
                f"{folder} holds pytorch_model.bin, a pickle, which can run code and is never opened here; "
                "if you trust it, load it with transformers and write model.safetensors with save_pretrained."
            )
        raise RunError(f"{folder / WEIGHTS} is missing.")
    parts = read_object(folder / INDEX).get("weight_map")
    names = set(parts.values()) if isinstance(parts, dict) else set()
    if not names or not all(isinstance(n, str) and n == Path(n).name for n in names):
        raise RunError(f"{folder / INDEX} should map each tensor to a file of this folder in weight_map.")
    for name in sorted(names):
        if not (folder / name).is_file():
            raise RunError(f"{folder / name} is missing; {INDEX} names it.")
    return [folder / name for name in sorted(names)]


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        RunError: it is missing, too large, or not an object.
    """
    value = None
    try:
        if not file.is_file():
            raise FileNotFoundError
        if file.stat().st_size > _JSON_LIMIT:
            raise RunError(f"{file} has {file.stat().st_size:,} bytes; that is no settings file.")
        with suppress(ValueError, RecursionError):
            value = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{file} is missing; {MODEL_FOLDER}.") from None
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}.") from None
    if not isinstance(value, dict):
        raise RunError(f"{file} is not a JSON object.")
    return value


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{file} is not a whole safetensors file ({reason}).") from None

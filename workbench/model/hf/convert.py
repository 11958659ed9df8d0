"""Whole models: from a folder, from transformers' object, and to one."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ConfigError, InputError, RunError, WorkbenchError, nearest
from workbench.model.config import ModelConfig
from workbench.model.hf.family import Family, Rule
from workbench.model.size import refuse_too_large
from workbench.stats import derive

# A family's tensors as ours, and ours as the family's. What does not fit is named.


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def to_ours(
    family: Family, config: ModelConfig, tensors: Mapping[str, Tensor], where: str, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """The tensors of a family's file as a state dict of ours. Nothing is copied that can be used as it is.

    Args:
        family: whose names they have.
        config: from `family.config_of`.
        tensors: by name, with or without the family's prefix.
        where: begins the messages, such as the file's path.
        dtype: what all become; None leaves them.

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
        _check(found[name], name, shape, where)
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
    """A state dict of ours under the family's names. Nothing is copied that can be used as it is.

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
    """The tensors by their full names, without those that nobody reads."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        # BERT's first files call a norm's gain and bias so.
        full = re.sub(r"LayerNorm\.(gamma|beta)$", lambda m: f"LayerNorm.{_NORM[m[1]]}", name)
        if full not in expected and not re.fullmatch(family.harmless, full):
            full = full if full.startswith(family.prefix) else family.prefix + full
            if full not in expected and not re.fullmatch(family.harmless, full):
                full = name
        if re.fullmatch(family.harmless, full):
            continue
        if full in found:
            raise RunError(f"{where}: the tensor {full} stands twice, with and without its prefix.")
        found[full] = tensor
    return found


_NORM = {"gamma": "weight", "beta": "bias"}


def _check(tensor: Tensor, name: str, shape: tuple[int, ...], where: str) -> None:
    if tuple(tensor.shape) != shape:
        raise RunError(
            f"{where}: the tensor {name} has shape {list(tensor.shape)}; config.json asks for {list(shape)}."
        )
    if tensor.dtype not in _FLOATS:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise RunError(f"{where}: the tensor {name} is {kind}; float16, bfloat16 and float32 are read.")
    # A sum is not finite if an entry is not; a sum alone may overflow.
    if not bool(tensor.sum().isfinite()) and not bool(tensor.isfinite().all()):
        raise RunError(f"{where}: the tensor {name} holds NaN or infinity.")


# A folder as Hugging Face's models are kept in: config.json and model.safetensors, whole or in parts.


CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_JSON_LIMIT = 50_000_000
_A_MODEL = f"a model is a folder with {CONFIG}, {WEIGHTS} and tokenizer.json"


def read_config(folder: Path) -> tuple[Family, ModelConfig]:
    """The family and shape that a folder's config.json describes.

    Raises:
        RunError: the folder or its config.json is missing or damaged, or a model of no family we know.
        ConfigError: a setting that no field of ours can hold, or a model larger than this machine's memory.
    """
    from workbench.model.hf import FAMILIES

    folder = Path(folder)
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise RunError(f"{folder} {found}; {_A_MODEL}.")
    file = folder / CONFIG
    settings = read_object(file)
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        hint = nearest(kind, FAMILIES) if kind else f"There are: {', '.join(FAMILIES)}."
        raise RunError(f"{file}: model_type is {kind!r}, which is no family we read. {hint}")
    try:
        config = FAMILIES[kind].config_of(settings)
        refuse_too_large(config)
    except WorkbenchError as error:
        raise ConfigError(f"{file}: {error}") from None
    return FAMILIES[kind], config


def read_weights(folder: Path, family: Family, config: ModelConfig) -> dict[str, Tensor]:
    """A folder's weights as a state dict of ours, float32. Large ones stay in the file until they are read.

    Raises:
        RunError: no safetensors, damaged ones, or tensors that do not fit config.json; the message names it.
    """
    files = weight_files(Path(folder))
    tensors: dict[str, Tensor] = {}
    for file in files:
        part = _read_safetensors(file)
        twice = tensors.keys() & part.keys()
        if twice:
            raise RunError(f"{file}: the tensor {min(twice)} stands in another part too.")
        tensors |= part
    where = str(files[0] if len(files) == 1 else folder)
    return to_ours(family, config, tensors, where, torch.float32)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: `model.safetensors`, else the parts that its index names.

    Raises:
        RunError: there are none, or parts are missing.
    """
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        if any(folder.glob("pytorch_model*.bin")):
            raise RunError(
                f"{folder} holds pytorch_model.bin, a pickle, which can run code and is never opened here; "
                "load it with transformers where you trust it, and save_pretrained writes model.safetensors."
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
    """A JSON file that holds an object.

    Raises:
        RunError: it is missing, too large, or something else.
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
        raise RunError(f"{file} is missing; {_A_MODEL}.") from None
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


# Our weights inside transformer-lens' own small model, for its tools and as an oracle.


_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu", "solu": "solu",
                "solu_ln": "solu_ln"}  # fmt: skip
_NORMS = {"LayerNorm": "LN", "RMSNorm": "RMS", "none": None}
_POSITIONS = {"learned": "standard", "rotary": "rotary"}

_RULES: tuple[Rule, ...] = (
    (
        "layout",
        lambda c: set(c.blocks) in ({"am"}, {"a"}),
        "has an MLP behind each attention, or none at all",
    ),
    ("windows", lambda c: not any(c.windows), "attends to the whole context"),
    ("d_value", lambda c: c.value_width == c.head_width, "has values as wide as its queries"),
    ("positions", lambda c: c.positions in _POSITIONS, "has learned or rotary positions"),
    ("norm_place", lambda c: c.norm_place == "pre", "normalises what a module reads"),
    ("activation", lambda c: c.activation in _ACTIVATIONS, f"has {', '.join(_ACTIVATIONS)}"),
    ("activation", lambda c: not (c.gated and c.activation == "solu_ln"), "has no norm in a gated MLP"),
    ("mlp_depth", lambda c: c.mlp_depth == 1, "has one hidden layer in its MLP"),
    ("mlp_bias", lambda c: not (c.gated and c.mlp_bias), "has no biases in a gated MLP"),
    ("norm", lambda c: c.activation != "solu_ln" or c.norm == "LayerNorm", "has LayerNorm in its MLP"),
    ("d_embed", lambda c: c.d_embed is None, "has embeddings as wide as the model"),
    ("embed_norm", lambda c: not c.embed_norm, "does not normalise its embeddings"),
    ("mlm_head", lambda c: not c.mlm_head, "has no layer before its readout"),
    ("unembed_bias", lambda c: not c.unembed_bias, "has no bias on its logits"),
    ("residual", lambda c: c.residual == "plain", "adds each module to the residual stream as it is"),
)


def to_bridge_state(model: Any) -> Any:
    """A `TransformerBridge.boot_native` with the model's weights: the same logits.

    transformer-lens' model has all attention biases, an unembedding of its own, scores divided by
    sqrt(d_head), and rotates neighbouring dimensions. So biases that we lack are 0 there, a tied embedding
    stands there twice, another scale is part of its queries, and its rotated dimensions are in another
    order; shared layers are repeated. It has no token types: that vector is part of its token vectors.

    Args:
        model: a `HookedTransformer`.

    Returns:
        The bridge, in eval mode, on the model's device and of its type.

    Raises:
        ConfigError: naming the first field that it cannot hold.
    """
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources import boot_native

    c: ModelConfig = model.config
    for field, holds, has in _RULES:
        if not holds(c):
            raise ConfigError(f"model.{field} = {getattr(c, field)!r}: transformer-lens' native model {has}.")
    bridge = boot_native(
        TransformerBridgeConfig(
            d_model=c.d_model, d_head=c.head_width, n_layers=c.n_layers, n_ctx=c.n_ctx, n_heads=c.n_heads,
            n_key_value_heads=None if c.kv_heads == c.n_heads else c.kv_heads, d_mlp=c.mlp_width,
            d_vocab=c.d_vocab, act_fn=_ACTIVATIONS[c.activation], gated_mlp=c.gated, eps=c.eps,
            normalization_type=_NORMS[c.norm], positional_embedding_type=_POSITIONS[c.positions],
            rotary_base=c.rotary_base, attn_only="m" not in c.blocks[0], init_weights=False,
            attention_dir=c.attention,
        ),
        tokenizer=model.tokenizer, device=model.device, dtype=model.dtype,
    )  # fmt: skip
    native = bridge.original_model
    target = dict(native.named_parameters())
    source = {name: value.detach() for name, value in _state(model).items()}
    with torch.no_grad():
        for name, parameter in target.items():
            parameter.copy_(source.pop(re.sub(r"_?original_component\.", "", name)))
    assert not source, source.keys()
    return bridge.eval()


def _state(model: Any) -> dict[str, Tensor]:
    """The native model's state dict."""
    c: ModelConfig = model.config
    embed = model.embed.W_E if model.embed.W_type is None else model.embed.W_E + model.embed.W_type[0]
    state = {"tok_embed.weight": embed, "head.weight": model.readout_weight}
    if model.pos_embed is not None:
        state["pos.weight"] = model.pos_embed.W_pos[c.position_offset :]
    state |= _norm("ln_out", model.ln_final)
    for i, block in enumerate(model.blocks):
        layer = f"layers.{i}"
        state |= _norm(f"{layer}.ln1", block.ln1) | _attention(f"{layer}.attn", block.attn, c)
        if block.mlp is not None:
            state |= _norm(f"{layer}.ln2", block.ln2) | _mlp(f"{layer}.mlp", block.mlp)
    return state


def _norm(name: str, norm: Any) -> dict[str, Tensor]:
    if norm is None:
        return {}
    bias = getattr(norm, "b", None)
    return {f"{name}.weight": norm.w} | ({} if bias is None else {f"{name}.bias": bias})


def _attention(name: str, attn: Any, c: ModelConfig) -> dict[str, Tensor]:
    bias = attn.qkv_weight.new_zeros(len(attn.qkv_weight)) if attn.qkv_bias is None else attn.qkv_bias
    state = {f"{name}.o.weight": attn.out_weight, f"{name}.o.bias": attn.b_O}
    for kind, tensor in (("weight", attn.qkv_weight), ("bias", bias)):
        q, k, v = tensor.split(attn.widths)
        if c.positions == "rotary" and not c.rotary_adjacent:
            q, k = _interleaved(q, c.head_width), _interleaved(k, c.head_width)
        q = q * (c.head_width**0.5 / c.scale)
        state |= {f"{name}.q.{kind}": q, f"{name}.k.{kind}": k, f"{name}.v.{kind}": v}
    return state


def _interleaved(x: Tensor, width: int) -> Tensor:
    """Rows of each head, halves next to each other."""
    return x.unflatten(0, (-1, 2, width // 2)).transpose(1, 2).flatten(0, 2)


def _mlp(name: str, mlp: Any) -> dict[str, Tensor]:
    if mlp.gate_weight is not None:
        return {
            f"{name}.gate.weight": mlp.gate_weight,
            f"{name}.in.weight": mlp.in_weight,
            f"{name}.out.weight": mlp.out_weight,
        }
    zeros = mlp.in_weight.new_zeros
    state = {
        f"{name}.fc_in.weight": mlp.in_weight,
        f"{name}.fc_in.bias": zeros(len(mlp.in_weight)) if mlp.b_in is None else mlp.b_in,
        f"{name}.fc_out.weight": mlp.out_weight,
        f"{name}.fc_out.bias": zeros(len(mlp.out_weight)) if mlp.b_out is None else mlp.b_out,
    }
    return state | _norm(f"{name}.ln", mlp.ln)


# A model checks itself when it is loaded from foreign weights.
#
# After an idea of nnterp (https://github.com/Butanium/nnterp): a model whose hooks are in the wrong place
# still answers, so the check is causal. Attention rows must sum to 1, and a pattern that is changed through
# its hook must change the logits.


TOKENS, LOGITS = 4, 512
"""A pattern needs several tokens; few of them, and few logits, cost one pass over the weights."""


@torch.no_grad()
def check_itself(model: Any, where: str) -> None:
    """One short forward pass of three equal rows, the last with other patterns.

    What rounding does is seen between the first two, and from the size of the logits; the last must differ
    by far more.

    Args:
        model: a `HookedTransformer` in eval mode.
        where: begins the messages.

    Raises:
        RunError: an attention row does not sum to 1, logits are not finite, or the patterns do not matter.
    """
    names = [name for name in model.hook_dict if name.endswith("attn.hook_pattern")]
    length = min(TOKENS, model.config.n_ctx)
    random = torch.Generator().manual_seed(derive(model.config.seed, "self-check"))
    tokens = torch.randint(0, model.config.d_vocab, (1, length), generator=random)
    tokens = tokens.expand(3, -1).to(model.device)
    sums: dict[str, Tensor] = {}

    def change(pattern: Tensor, hook: Any) -> Tensor:
        """Each query of the last row looks at the first key alone."""
        sums[hook.name] = pattern.sum(-1)
        pattern = pattern.clone()
        pattern[2], pattern[2, ..., 0] = 0.0, 1.0
        return pattern

    for name in names:
        model.hook_dict[name].add_hook(change)
    try:
        last = model.residual(tokens, attention_mask=torch.ones_like(tokens))[:, -1]
    finally:
        model.reset_hooks()
    logits = last @ model.readout_weight[:LOGITS].T
    if not bool(logits.isfinite().all()):
        raise RunError(f"{where}: the logits of {length} tokens are not finite; the weights are damaged.")
    for name in names:
        # float32 rounds a sum of a few probabilities by some 1e-7, bfloat16 by some 1e-2.
        allowed = 16 * torch.finfo(model.dtype).eps
        if name not in sums or float((sums[name] - 1).abs().max()) > allowed:
            raise RunError(
                f"{where}: the rows of {name} do not sum to 1; the model does not fit its weights."
            )
    rounding, changed = ((logits[0] - logits[row]).abs().max() for row in (1, 2))
    floor = 16 * torch.finfo(model.dtype).eps * logits.abs().max()
    if names and length > 1 and not bool(changed > 10 * rounding + floor):
        raise RunError(f"{where}: changing the attention patterns does not change the logits.")


def from_folder(folder: Path, tokenizer: Any = None, *, check: bool = True) -> Any:
    """The model of a folder in Hugging Face's layout, float32, in eval mode.

    Args:
        folder: holds config.json and model.safetensors (or its parts and their index).
        tokenizer: given to the model.
        check: let the model check itself (see `selfcheck`).

    Returns:
        A `HookedTransformer`. Weights that needed no change are read from the file when they are first
        used, so the file must not be overwritten in place while the model lives.

    Raises:
        RunError, ConfigError: the folder holds no model that can be read; the message names what is wrong.
    """
    from workbench.model.transformer import HookedTransformer

    family, config = read_config(folder)
    model = HookedTransformer.from_weights(config, read_weights(folder, family, config), tokenizer).eval()
    if check:
        check_itself(model, str(folder))
    return model


def from_hf(model: Any, tokenizer: Any = None) -> Any:
    """A transformers model as a `HookedTransformer`: copies of its weights, of its type and on its device.

    Args:
        model: such as `GPT2LMHeadModel`; see `FAMILIES`.
        tokenizer: given to the model.

    Raises:
        InputError: a model of no family we know.
        ConfigError: a setting that no field of ours can hold.
        RunError: weights that do not fit, or a model that fails its check.
    """
    from workbench.model.hf import FAMILIES
    from workbench.model.transformer import HookedTransformer

    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in FAMILIES:
        hint = nearest(kind, FAMILIES) if kind else f"There are: {', '.join(FAMILIES)}."
        raise InputError(f"{type(model).__name__} (model_type {kind!r}) is no family we read. {hint}")
    family, where = FAMILIES[kind], type(model).__name__
    config = family.config_of(model.config.to_dict())
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    theirs = {tensor.data_ptr() for tensor in tensors.values()}
    ours = to_ours(family, config, tensors, where, None)
    ours = {name: t.clone() if t.data_ptr() in theirs else t for name, t in ours.items()}
    made = HookedTransformer.from_weights(config, ours, tokenizer).eval()
    check_itself(made, where)
    return made


def to_hf(model: Any, family: str = "auto") -> Any:
    """A `HookedTransformer` as a transformers model: copies of its weights, in eval mode.

    Args:
        model: ours.
        family: a key of `FAMILIES`; `auto` for the one that can hold it.

    Raises:
        ConfigError: no family, or not this one, can hold it; the message names the fields.
    """
    import transformers

    settings, tensors = as_family(model.config, model.state_dict(), model.tokenizer, family)
    shape = transformers.AutoConfig.for_model(**settings)
    made = getattr(transformers, settings["architectures"][0])(shape).to(model.device, model.dtype)
    left = made.load_state_dict(tensors, strict=False)
    assert not left.unexpected_keys, left.unexpected_keys
    assert set(left.missing_keys) <= set(made.all_tied_weights_keys), left.missing_keys
    return made.eval()


def as_family(
    config: ModelConfig, weights: Mapping[str, Tensor], tokenizer: Any = None, family: str = "auto"
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model as the config.json and the tensors of a family.

    Args:
        config: ours.
        weights: a state dict of ours.
        tokenizer: its special tokens' ids go into config.json.
        family: a key of `FAMILIES`; `auto` for the one that can hold it.

    Raises:
        ConfigError: as `family_for`.
    """
    found = family_for(config, family)
    roles = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {role: getattr(tokenizer, role, None) for role in roles}
    arranged = found.arrange(config, ids["pad_token_id"])
    tensors = to_theirs(found, arranged, found.move(config, arranged, dict(weights)))
    return {**ids, **found.settings_of(arranged)}, tensors


def family_for(config: ModelConfig, family: str = "auto") -> Family:
    """The family called so, or the first that can hold a configuration.

    Raises:
        ConfigError: no such family, or none that can hold it: each says why, the nearest one first.
    """
    from workbench.model.hf import FAMILIES

    if family != "auto":
        if family not in FAMILIES:
            raise ConfigError(f"no family is called {family!r}. {nearest(family, FAMILIES)}")
        FAMILIES[family].settings_of(config)
        return FAMILIES[family]
    refused = {name: one.refusals(config) for name, one in FAMILIES.items()}
    for name, sentences in refused.items():
        if not sentences:
            return FAMILIES[name]
    nearest_one, *others = sorted(
        refused,
        key=lambda name: (FAMILIES[name].constants["objective"] != config.objective, len(refused[name])),
    )
    rest = "; ".join(f"{FAMILIES[name].title}: {_fields(refused[name])}" for name in others)
    why = " ".join(refused[nearest_one])
    raise ConfigError(f"no family can hold this model. {why} The others refuse {rest}.")


def _fields(sentences: list[str]) -> str:
    return ", ".join(sentence.partition(" ")[0].removeprefix("model.") for sentence in sentences)

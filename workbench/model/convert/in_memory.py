"""Whole models: from a folder, from transformers' object, and to one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.errors import ConfigError, InputError, nearest
from workbench.model.config import ModelConfig
from workbench.model.convert.family import Family
from workbench.model.convert.folder import read_config, read_weights
from workbench.model.convert.selfcheck import check_itself
from workbench.model.convert.tensors import to_ours, to_theirs


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
    from workbench.model.convert import FAMILIES
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
    from workbench.model.convert import FAMILIES

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

"""A folder as Hugging Face's models are kept in: config.json and model.safetensors, whole or in parts."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ConfigError, RunError, WorkbenchError, nearest
from workbench.model.config import ModelConfig
from workbench.model.convert.family import Family
from workbench.model.convert.tensors import to_ours
from workbench.model.counting import refuse_too_large

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
    from workbench.model.convert import FAMILIES

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

"""Checkpoints: a folder that is whole, or is no checkpoint.

`step-000512/` holds config.json, model.safetensors (float32, or float16 where the manifest says so),
optimizer.safetensors, state.json and MANIFEST.json with the size and SHA-256 of each. It is filled under
another name and renamed, so a kill leaves the old state or the new one. Reading takes only regular files of
the size and hash in the manifest, and only safetensors and JSON: nothing in a checkpoint can execute.

optimizer.safetensors may be removed from older checkpoints (`drop_optimizer`); the manifest calls it
optional, so nothing needs rewriting.
"""

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.errors import ConfigError, DataError, RunError, WorkbenchError
from workbench.io import disk_reason, new_folder, read_json
from workbench.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor, dtype
    from transformers import PreTrainedTokenizerFast

    from workbench.model.transformer import HookedTransformer

MANIFEST = "MANIFEST.json"
WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
FILES = ("config.json", WEIGHTS, OPTIMIZER, "state.json")
JSON_LIMIT = 1_000_000
BYTES = {"float32": 4, "float16": 2}
"""Allowed dtypes of weights on disk and their size in bytes. In memory weights are float32."""
_NAME = re.compile(r"step-(\d{6,12})")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files match their manifest."""

    path: Path
    config: ModelConfig
    state: dict[str, Any]
    """step, tokens_seen, seconds_trained, seed, versions, losses; see `training.loop`."""
    has_optimizer: bool

    @property
    def step(self) -> int:
        """Number of updates."""
        return self.state["step"]


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return the folder of the checkpoint of `step`."""
    return Path(run) / "checkpoints" / f"step-{step:06d}"


def checkpoint_steps(run: Path) -> list[int]:
    """Return the steps of the checkpoints that have a manifest, in order, without verifying them."""
    folder = Path(run) / "checkpoints"
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    found = {int(match[1]): name for name in names if (match := _NAME.fullmatch(name))}
    return sorted(step for step, name in found.items() if (folder / name / MANIFEST).exists())


def weights_of(checkpoint: Path) -> str:
    """Return the SHA-256 of a checkpoint's weights from its manifest; no other file is read.

    Raises:
        DataError: the manifest is missing or lists no weights.
    """
    value = read_json(Path(checkpoint) / MANIFEST)
    try:
        return str(value["files"][WEIGHTS]["sha256"])
    except (KeyError, TypeError):
        raise DataError(f"{Path(checkpoint) / MANIFEST} lists no {WEIGHTS}.") from None


def save_checkpoint(
    run: Path,
    model: "HookedTransformer",
    optimizer_tensors: "Mapping[str, Tensor]",
    state: Mapping[str, Any],
    weights: "Mapping[str, Tensor] | None" = None,
    stored: Literal["float32", "float16"] = "float32",
) -> Path:
    """Write the checkpoint of `state["step"]` atomically.

    Args:
        run: the run folder.
        model: provides `config` and, unless `weights` is given, `state_dict()`.
        optimizer_tensors: the optimiser's state; may be empty.
        state: JSON values; `step` is required.
        weights: float32 master weights by name, where the model itself computes in bf16.
        stored: dtype of the weights on disk. float16 is for shipped models: half the size, but resumed
            training does not reproduce the same numbers.

    Raises:
        RunError: the disk is full or not writable, or a weight is too large for float16; an existing
            checkpoint is untouched.
    """
    target = checkpoint_folder(run, state["step"])
    contents = {
        "config.json": _json_bytes(model.config.to_dict()),
        WEIGHTS: _weight_bytes(model.state_dict() if weights is None else weights, stored),
        OPTIMIZER: _tensor_bytes(optimizer_tensors),
        "state.json": _json_bytes(dict(state)),
    }
    listed: dict[str, dict[str, Any]] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in contents.items()
    }
    if stored != "float32":
        listed[WEIGHTS]["dtype"] = stored
    contents[MANIFEST] = _json_bytes({"format": 1, "files": listed, "optional": [OPTIMIZER]})
    try:
        with new_folder(target) as folder:
            for name, data in contents.items():
                (folder / name).write_bytes(data)
    except OSError as error:
        raise RunError(
            f"checkpoint {target} could not be written: {disk_reason(error)}; earlier checkpoints are "
            f"untouched. Fix this, then run `workbench resume {run}`"
        ) from None
    return target


def drop_optimizer(run: Path, step: int) -> None:
    """Delete the optimiser's state of one checkpoint to save disk space; the weights stay loadable."""
    (checkpoint_folder(run, step) / OPTIMIZER).unlink(missing_ok=True)


def delete_checkpoint(run: Path, step: int) -> None:
    """Delete a checkpoint, manifest first, so that a partial deletion leaves no valid checkpoint."""
    folder = checkpoint_folder(run, step)
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def sweep_leftovers(run: Path) -> None:
    """Delete leftovers of a kill: temporary files and folders, and checkpoints without a manifest.

    To be called only by the process that holds the run's lock.
    """
    for entry in Path(run).iterdir():
        if entry.name.startswith(".") and entry.name.endswith(".tmp") and not entry.is_dir():
            entry.unlink(missing_ok=True)
    folder = Path(run) / "checkpoints"
    for entry in folder.iterdir() if folder.is_dir() else []:
        half = entry.name.startswith(".") and entry.name.endswith(".tmp")
        if half or (_NAME.fullmatch(entry.name) and not (entry / MANIFEST).exists()):
            shutil.rmtree(entry, ignore_errors=True)


def verify_checkpoint(path: Path, optimizer: bool = True) -> Checkpoint:
    """Check each file against the manifest.

    Args:
        path: the checkpoint's folder.
        optimizer: also check optimizer.safetensors, if present.

    Raises:
        RunError: a file is missing, changed, not a regular file, or invalid; the message names it.
    """
    path = Path(path)
    files = _manifest(path)
    config, state = _config_and_state(path, files)
    for name in (WEIGHTS, OPTIMIZER) if optimizer else (WEIGHTS,):
        if name == WEIGHTS or _exists(path / name):
            _check_size(path / name, files, config)
            _read(path, name, files)
    return Checkpoint(path, config, state, has_optimizer=_exists(path / OPTIMIZER))


def read_state(path: Path) -> dict[str, Any]:
    """Return the checkpoint's state.json, checked against the manifest; no other file is read."""
    return _config_and_state(Path(path), _manifest(Path(path)))[1]


def read_model(
    path: Path, tokenizer: "PreTrainedTokenizerFast | None" = None, dtype: "dtype | None" = None
) -> "HookedTransformer":
    """Return the checkpoint's model, in eval mode, with requires_grad on.

    Args:
        path: the checkpoint's folder.
        tokenizer: given to the model.
        dtype: `torch.float32` if not set.

    Raises:
        RunError: as `verify_checkpoint`; also weights that do not fit config.json, or hold NaN or infinity.
    """
    import torch

    from workbench.model.transformer import HookedTransformer

    path = Path(path)
    files = _manifest(path)
    config, _ = _config_and_state(path, files)
    file = path / WEIGHTS
    _check_size(file, files, config)
    tensors = _tensors(file, _read(path, WEIGHTS, files))
    count = sum(tensor.numel() for tensor in tensors.values())
    if count != config.n_params:
        raise RunError(f"{file} holds {count:,} parameters; config.json describes {config.n_params:,}.")
    stored = _stored(files)
    for name, tensor in tensors.items():
        if tensor.dtype != getattr(torch, stored):
            found = str(tensor.dtype).removeprefix("torch.")
            raise RunError(f"{file}: {name} should be {stored}; found {found}.")
        if not bool(torch.isfinite(tensor).all()):
            raise RunError(f"{file}: {name} holds NaN or infinity.")
    # Copy into torch's own memory: other alignments change how matrix products round.
    own = {name: tensor.to(dtype or torch.float32, copy=True) for name, tensor in tensors.items()}
    try:
        return HookedTransformer.from_weights(config, own, tokenizer).eval()
    except ConfigError as error:
        raise RunError(f"{path / 'config.json'}: {error}") from None
    except RuntimeError:
        raise RunError(f"{file}: {_misfit(config, tensors)}") from None


def _misfit(config: ModelConfig, tensors: "Mapping[str, Tensor]") -> str:
    """Describe the first tensor that is missing, unexpected or of the wrong shape."""
    import torch

    from workbench.model.transformer import HookedTransformer

    with torch.device("meta"):
        expected = {
            name: tuple(tensor.shape) for name, tensor in HookedTransformer(config).state_dict().items()
        }
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            return f"{name} should have shape {expected.get(name)}; found {found.get(name)}."
    return "its tensors do not fit config.json."


def read_optimizer(path: Path) -> "dict[str, Tensor]":
    """Return the checkpoint's optimiser tensors.

    Raises:
        RunError: as `verify_checkpoint`, or the state was deleted to save disk space.
    """
    path = Path(path)
    files = _manifest(path)
    config, _ = _config_and_state(path, files)
    _check_size(path / OPTIMIZER, files, config)
    if not _exists(path / OPTIMIZER):
        raise RunError(
            f"{path} keeps no {OPTIMIZER} (only the last checkpoints do); resume from a later one."
        )
    return _tensors(path / OPTIMIZER, _read(path, OPTIMIZER, files))


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _tensor_bytes(tensors: "Mapping[str, Tensor]") -> bytes:
    from safetensors.torch import save

    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _weight_bytes(tensors: "Mapping[str, Tensor]", stored: str) -> bytes:
    import torch

    own = {name: tensor.detach().float().to(getattr(torch, stored)) for name, tensor in tensors.items()}
    for name, tensor in own.items() if stored != "float32" else ():
        if not bool(torch.isfinite(tensor).all()):
            raise RunError(f"{name} holds a weight beyond {stored}'s range; keep it in float32.")
    return _tensor_bytes(own)


def _stored(files: dict[str, dict[str, Any]]) -> Any:
    """Return the dtype of the weights on disk, as listed in the manifest."""
    return files[WEIGHTS].get("dtype", "float32")


def _tensors(file: Path, data: bytes) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{file} is not a valid safetensors file ({reason}).") from None


def _exists(file: Path) -> bool:
    return os.path.lexists(file)


def _read_regular(file: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; never follow a link, never block."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise RunError(f"{file} is missing.") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise RunError(f"{file} is a symbolic link; a checkpoint holds regular files only.") from None
        raise RunError(f"{file} cannot be read: {error.strerror}.") from None
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise RunError(f"{file} is not a regular file.")
        if info.st_size > limit:
            raise RunError(f"{file} has {info.st_size:,} bytes; at most {limit:,} were expected.")
        with os.fdopen(handle, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(handle)


def _json(file: Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RunError(f"{file} is not a JSON object.")
    return value


def _manifest(path: Path) -> dict[str, dict[str, Any]]:
    if path.is_symlink() or not path.is_dir():
        raise RunError(f"{path} is not a checkpoint folder.")
    file = path / MANIFEST
    files = _json(file, _read_regular(file, JSON_LIMIT)).get("files")
    if not isinstance(files, dict) or not set(FILES) <= set(files) or set(files) - set(FILES):
        raise RunError(f"{file} should list {', '.join(FILES)}.")
    for name, entry in files.items():
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get("sha256"), str)
            and type(entry.get("bytes")) is int
            and entry["bytes"] >= 0
        ):
            raise RunError(f"{file} gives no size and sha256 for {name}.")
    if _stored(files) not in tuple(BYTES):
        raise RunError(f"{file} lists weights of an unknown dtype; known: {', '.join(BYTES)}.")
    return files


def _check_size(file: Path, files: dict[str, dict[str, Any]], config: ModelConfig) -> None:
    """Refuse a file whose size cannot fit the number of parameters, before reading it."""
    size, count = files[file.name]["bytes"], config.n_params
    each = BYTES[_stored(files)]
    low, high = (each * count, 5 * count) if file.name == WEIGHTS else (0, 80 * count)
    if not low <= size <= high + JSON_LIMIT:
        raise RunError(
            f"{file} has {size:,} bytes; the {count:,} parameters of config.json need "
            f"{low:,} to {high:,}, and a header."
        )


def _read(path: Path, name: str, files: dict[str, dict[str, Any]]) -> bytes:
    file, entry = path / name, files[name]
    data = _read_regular(file, entry["bytes"])
    if len(data) != entry["bytes"]:
        raise RunError(f"{file} is damaged: {len(data):,} bytes, {entry['bytes']:,} were written.")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise RunError(f"{file} is damaged: its sha256 is not the one in {MANIFEST}.")
    return data


def _config_and_state(path: Path, files: dict[str, dict[str, Any]]) -> tuple[ModelConfig, dict[str, Any]]:
    values = _json(path / "config.json", _read(path, "config.json", files))
    try:
        config = ModelConfig.from_dict(values)
    except WorkbenchError as error:
        raise RunError(f"{path / 'config.json'}: {error}") from None
    state = _json(path / "state.json", _read(path, "state.json", files))
    step = state.get("step")
    match = _NAME.fullmatch(path.name)
    if type(step) is not int or step < 0 or (match and int(match[1]) != step):
        raise RunError(f"{path / 'state.json'} gives step {step!r}; the folder is {path.name}.")
    return config, state

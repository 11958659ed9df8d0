"""An architecture in words: the usual figures, and every field that is not at its default."""

import dataclasses
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from workbench.data.sources import cache_root
from workbench.errors import DataError, RunError, WorkbenchError, nearest
from workbench.io import disk_reason, fsync_file, fsync_folder, read_json, read_plain, write_json, write_text
from workbench.model.config import ModelConfig
from workbench.runs import folder as shipped
from workbench.runs.checkpoint import (
    MANIFEST,
    Checkpoint,
    checkpoint_folder,
    checkpoint_steps,
    verify_checkpoint,
)
from workbench.settings import read_yaml

# The family that ships with the package: where it lies, what its runs are called, where their results go.
#
# A shipped run is an ordinary run folder that is only read: its weights are float16, its tokenizer lies
# beside it, and what a verb finds out about it goes to the cache.


NAME = "zoo"
PLACE = "WORKBENCH_ZOO"
"""Environment variable that names another family's folder."""
FAMILY = "family.json"
"""The members in their order, the middle one, how they were trained."""
MANIFEST_SHIPPED = "MANIFEST.json"
"""Size and SHA-256 of each file of the family; another family's results lie elsewhere in the cache."""
_CONFIG = "config.yaml"


def family_folder() -> Path:
    """The folder of the family: `$WORKBENCH_ZOO`, else the one inside the package. It may be absent."""
    given = os.environ.get(PLACE)
    return Path(given).expanduser() if given else Path(__file__).resolve().parents[1] / NAME / "family"


def members() -> list[str]:
    """Names of the shipped runs, sorted; empty where no family is installed."""
    try:
        found = sorted(entry.name for entry in os.scandir(family_folder()))
    except OSError:
        return []
    return [
        name for name in found if not name.startswith(".") and (family_folder() / name / _CONFIG).is_file()
    ]


def middle_member() -> str | None:
    """The member that the others are variations of, as family.json says; None if it says nothing."""
    try:
        value = read_json(family_folder() / FAMILY)
    except DataError:
        return None
    middle = value.get("middle") if isinstance(value, dict) else None
    return middle if isinstance(middle, str) else None


def names_one(name: str) -> bool:
    """Whether a name is one of the family, such as `zoo/tiny-4h`, or the family's own."""
    return name == NAME or name.startswith(f"{NAME}/")


def find(name: str) -> Path:
    """The folder of `zoo/tiny-4h`.

    Raises:
        RunError: the family's own name, a run that it lacks (with the nearest one), or no family at all.
    """
    known = members()
    if not known:
        raise RunError(
            f"there is no {name}: no family is installed at {family_folder()}; reinstall the package, or "
            f"train a run of your own with `workbench train`."
        )
    listed = [f"{NAME}/{member}" for member in known]
    if name.rstrip("/") == NAME:
        raise RunError(f"{NAME} is a family, not a run. It holds {', '.join(listed)}.")
    member = name.removeprefix(f"{NAME}/").rstrip("/")
    if member not in known:  # a name is looked up in the list, never made into a path
        raise RunError(f"there is no run {name}. {nearest(name, listed)}")
    return family_folder() / member


def is_shipped(path: str | os.PathLike[str]) -> bool:
    """Whether a run folder is one of the family."""
    try:
        return Path(path).resolve().parent == family_folder().resolve()
    except (OSError, ValueError):
        return False


def shown_name(path: str | os.PathLike[str]) -> str:
    """What a run is called in messages and commands: `zoo/tiny-4h` for a shipped one, else its path."""
    return f"{NAME}/{Path(path).resolve().name}" if is_shipped(path) else str(path)


def results_folder(path: str | os.PathLike[str]) -> Path:
    """Where results about a run are written: its own folder; for a shipped run, one in the cache."""
    if not is_shipped(path):
        return Path(path)
    try:
        family = hashlib.sha256((family_folder() / MANIFEST_SHIPPED).read_bytes()).hexdigest()[:12]
    except OSError:
        family = "unlisted"
    return cache_root() / NAME / family / Path(path).resolve().name


def places_of(run: Path) -> tuple[Path, ...]:
    """Where results about a run may lie: with its results, then with what ships."""
    return tuple(dict.fromkeys((results_folder(run), Path(run))))


def main_results(path: Path) -> list[Path]:
    """The JSON of a shipped run's result on BLiMP by the default protocol, in a list; else all it has."""
    found = sorted((Path(path) / "blimp").glob("*.json"))
    main = [file for file in found if "-native-" in file.name and file.name.endswith("-blimp.json")]
    return main[-1:] or found


def refuse_shipped(path: Path, wish: str) -> None:
    """Refuse to write into a shipped run.

    Args:
        path: the run folder.
        wish: what was asked for, as in `"trained further"`.

    Raises:
        RunError: it is one; with the command that makes a copy of it.
    """
    if is_shipped(path):
        name = shown_name(path)
        raise RunError(
            f"{name} ships with the package and cannot be {wish}; make a run of your own of it first: "
            f"workbench copy {name} runs/{Path(path).name}"
        )


# The run folder: its names on disk, how it appears, how it is found.


CONFIG = "config.yaml"
TOKENIZER = "tokenizer.json"
DATA_CARD = "data.json"
METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
STALE = 600.0
"""Seconds after which a temporary folder was left by a kill."""


class DamagedCheckpoint(UserWarning):
    """A checkpoint was passed over because it is damaged; an earlier one is used."""


def check_free(path: Path) -> None:
    """Refuse a path where a run cannot be made.

    Raises:
        RunError: something is there (with the command that goes on with it), or the place is not writable.
    """
    path = Path(path)
    if (path / CONFIG).exists():
        raise RunError(
            f"the run {path} exists already; go on with it by `workbench resume {path}`, "
            f"or choose another name, such as --out {_free_name(path)}"
        )
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise RunError(
            f"{path} exists and is not a run; choose another name, such as --out {_free_name(path)}"
        )
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise RunError(f"{parent} is a file, so no run can be made at {path}; choose another --out.")
    if not os.access(parent, os.W_OK):
        raise RunError(f"{parent} is not writable, so no run can be made at {path}; choose another --out.")


def create_run(path: Path, config: Mapping[str, Any], tokenizer: Any, data_card: Mapping[str, Any]) -> None:
    """Make the run folder, with config.yaml, tokenizer.json and data.json, in one step.

    Raises:
        RunError: the path was taken in the meantime, or cannot be written.
    """
    from workbench.data.tokenizer import save_tokenizer

    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if time.time() - left.stat().st_mtime > STALE:  # younger: another process may be making it
                shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
        os.chmod(temporary, 0o755)
        save_tokenizer(tokenizer, temporary / TOKENIZER)
        write_json(temporary / DATA_CARD, data_card)
        write_config(temporary, config)
        for file in temporary.iterdir():
            fsync_file(file)
        fsync_folder(temporary)
        os.rename(temporary, path)  # refuses a folder that is not empty, so two runs cannot both win
        fsync_folder(path.parent)
    except OSError as error:
        raise RunError(f"the run {path} cannot be made: {disk_reason(error)}.") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_config(run: Path, config: Mapping[str, Any]) -> None:
    """Write config.yaml in one step."""
    import yaml

    write_text(Path(run) / CONFIG, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def read_config(run: Path) -> dict[str, Any]:
    """The run's config.yaml.

    Raises:
        ConfigError: it is missing or not a YAML mapping.
    """
    return read_yaml(Path(run) / CONFIG)


def find_run(name: str | os.PathLike[str]) -> tuple[Path, int | None]:
    """Split `runs/tiny@512` into the folder and the step; `runs/tiny` has no step.

    `runs/tiny@best` is the step of the best evaluation, of a run trained with `train.patience`.
    A bare name that is no folder here is also looked up under `runs/`; `zoo/tiny-4h` that is no folder here
    is the run of that name that ships.

    Raises:
        RunError: no such run (with the nearest one), a folder without config.yaml, or a step that is
            no number; or no best one is known.
    """
    text = os.fspath(name)
    step: int | None = None
    best = False
    if not Path(text).exists() and "@" in text:
        text, _, tail = text.rpartition("@")
        best = tail == "best"
        if not best and tail != "latest":
            if not tail.isdecimal() or len(tail) > 15:
                raise RunError(
                    f"{name}: a checkpoint is named by its step, such as {text}@512; found {tail[:40]!r}. "
                    "Also understood: @best and @latest."
                )
            step = int(tail)
    path = Path(text)
    if not path.exists() and len(path.parts) == 1 and (Path("runs") / path / CONFIG).exists():
        path = Path("runs") / path
    if not path.exists() and shipped.names_one(text):
        path = shipped.find(text)
    if not path.exists():
        known = [str(run) for run in run_folders(path.parent)] + [
            str(run) for run in run_folders(Path("runs"))
        ]
        hint = nearest(text, dict.fromkeys(known)) if known else "Train one with `workbench train`."
        raise RunError(f"there is no run {text}. {hint}")
    if not (path / CONFIG).is_file():
        inside = run_folders(path) if path.is_dir() else []
        hint = f"It holds runs: {', '.join(map(str, inside[:5]))}." if inside else "It has no config.yaml."
        raise RunError(f"{text} is not a run. {hint}")
    return path, best_step(path) if best else step


def best_step(run: Path) -> int:
    """The step of the best evaluation, whose checkpoint a run with `train.patience` keeps.

    Raises:
        RunError: the run says none, or its checkpoint is gone.
    """
    rows = read_rows(Path(run) / METRICS)
    steps = [row["step"] for row in rows if row.get("kind") == "best" and type(row.get("step")) is int]
    if not steps:
        raise RunError(
            f"{run} was not trained with train.patience, so no checkpoint is known as the best; name a step."
            if any(row.get("kind") == "eval" for row in rows)
            else f"{run} has not been evaluated yet, so no checkpoint is the best; name a step."
        )
    if not (checkpoint_folder(run, steps[-1]) / MANIFEST).exists():
        raise RunError(f"the best checkpoint of {run}, step {steps[-1]}, is gone; name another step.")
    return steps[-1]


def runs_root(name: str | os.PathLike[str]) -> Path:
    """The folder of runs that a name stands for: itself, or for `zoo`, where there is no such folder, the
    family that ships."""
    path = Path(name)
    return shipped.family_folder() if str(name) == shipped.NAME and not path.exists() else path


def tokenizer_file(run: Path) -> Path:
    """The run's tokenizer.json; of a family that shares one, the one beside the runs."""
    own, shared = Path(run) / TOKENIZER, Path(run).absolute().parent / TOKENIZER
    return shared if not own.exists() and shared.is_file() else own


def run_folders(root: Path) -> list[Path]:
    """The run folders directly under `root`, by name."""
    try:
        names = sorted(entry.name for entry in os.scandir(root) if not entry.name.startswith("."))
    except OSError:
        return []
    return [Path(root) / name for name in names if (Path(root) / name / CONFIG).is_file()]


def good_checkpoint(run: Path, step: int | None = None, optimizer: bool = False) -> Checkpoint:
    """The checkpoint of `step`, or the last one that is whole.

    Warns with `DamagedCheckpoint` for each one passed over.

    Args:
        run: the run folder.
        step: the step; None for the last good one.
        optimizer: only one that keeps the optimiser's state will do.

    Raises:
        RunError: no such step, that step is damaged, or none is whole.
    """
    steps = checkpoint_steps(run)
    if step is not None:
        if step not in steps:
            known = ", ".join(map(str, steps)) or "none"
            raise RunError(f"{run} has no checkpoint of step {step}. It has: {known}.")
        return verify_checkpoint(checkpoint_folder(run, step), optimizer)
    if not steps:
        raise RunError(f"{run} has no checkpoint yet; `workbench resume {run}` starts it over.")
    problems = []
    for candidate in reversed(steps):
        try:
            found = verify_checkpoint(checkpoint_folder(run, candidate), optimizer)
            if optimizer and not found.has_optimizer:
                raise RunError(f"{found.path} keeps no optimizer.safetensors.")
        except WorkbenchError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem} Using {found.path.name} instead.", DamagedCheckpoint, stacklevel=3)
        return found
    raise RunError(f"{run} has no whole checkpoint. {problems[0]}")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file; a last line cut short by a kill is left out.

    Raises:
        RunError: a line before the last is not a JSON object; the message gives its number.
    """
    try:
        lines = read_plain(file).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}.") from None
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise RunError(f"{file}, line {number}, is not a JSON object.")
        rows.append(row)
    return rows


def _free_name(path: Path) -> Path:
    number = 2
    while os.path.lexists(path.with_name(f"{path.name}-{number}")):
        number += 1
    return path.with_name(f"{path.name}-{number}")


LONGEST_LIST = 12
"""Runs of like blocks, or windows, that are spelled out."""


def in_words(config: ModelConfig) -> str:
    """`figures` and `peculiarities` as a text."""
    parts = filter(None, (figures(config), "; ".join(peculiarities(config))))
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)


def figures(config: ModelConfig) -> str:
    """Kind, parameters and size in one line, as far as the layout has what is sized."""
    parts = [_count(config.n_layers, "layer"), f"d_model {config.d_model}"]
    if any("a" in kind for kind in config.blocks):
        parts.append(f"{_count(config.n_heads, 'head')} of {config.d_head}")
    if any("m" in kind for kind in config.blocks):
        parts.append(f"d_mlp {config.d_mlp}")
    positions = "no" if config.positions == "none" else config.positions
    parts += [f"{positions} positions", f"vocabulary {config.d_vocab:,}", f"context {config.n_ctx:,}"]
    kind = "masked" if config.objective == "mlm" else "causal"
    return f"{kind}, {config.n_params:,} parameters: {', '.join(parts)}"


def peculiarities(config: ModelConfig) -> list[str]:
    """A phrase for each field that `figures` leaves out and that is not at its default."""
    changed = [name for name in _WORDS if getattr(config, name) != _default(config, name)]
    return [_WORDS[name](config) for name in changed]


def _default(config: ModelConfig, name: str) -> Any:
    follows = {"n_key_value_heads": "n_heads", "d_value": "d_head"}
    if name in follows:
        return getattr(config, follows[name])
    return next(field.default for field in dataclasses.fields(ModelConfig) if field.name == name)


def _count(number: int | None, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listed(words: list[str]) -> str:
    return ", ".join(words if len(words) <= LONGEST_LIST else [*words[:LONGEST_LIST], "..."])


def _order(config: ModelConfig) -> str:
    runs = [(kind, len(list(same))) for kind, same in groupby(config.blocks)]
    shown = _listed([kind if count == 1 else f"{count} × {kind}" for kind, count in runs])
    beside = ", (am) side by side" if "(am)" in config.blocks else ""
    return f"blocks {shown} (a attention, m MLP{beside})"


def _windows(config: ModelConfig) -> str:
    sizes = _listed(["all" if window == 0 else f"{window:,}" for window in config.windows])
    return f"attention window{'s in turn:' if len(config.windows) > 1 else ''} {sizes}"


_SHARED = {"all": "all", "attention": "their attention", "mlp": "their MLP"}

_WORDS: dict[str, Callable[[ModelConfig], str]] = {
    "layout": _order,
    "sharing": lambda c: f"layers share {_SHARED.get(c.sharing)} weights",
    "residual": lambda c: "residual stream with learned weights over earlier layers",
    "n_key_value_heads": lambda c: f"keys and values of {_count(c.n_key_value_heads, 'head')}",
    "d_value": lambda c: f"values of width {c.d_value}",
    "windows": _windows,
    "attention_scale": lambda c: f"attention scores divided by {c.attention_scale:g}",
    "qkv_bias": lambda c: "no biases on queries, keys and values",
    "out_bias": lambda c: "no bias on the attention output",
    "position_offset": lambda c: f"{_count(c.position_offset, 'unread position vector')} in front",
    "rotary_base": lambda c: f"rotary base {c.rotary_base:,g}",
    "rotary_adjacent": lambda c: "neighbouring dimensions rotated together",
    "relative_buckets": lambda c: f"{c.relative_buckets} buckets of distances",
    "relative_distance": lambda c: f"distances alike from {_count(c.relative_distance, 'token')} on",
    "norm": lambda c: "no norms" if c.norm == "none" else c.norm,
    "norm_place": lambda c: "norms behind sums (post)" if c.norm_place == "post" else "NormFormer's norms",
    "eps": lambda c: f"norm eps {c.eps:g}",
    "activation": lambda c: f"activation {c.activation}",
    "gated": lambda c: "gated MLPs",
    "mlp_depth": lambda c: f"{c.mlp_depth} hidden layers in each MLP",
    "mlp_bias": lambda c: "no biases in the MLPs",
    "tied": lambda c: "unembedding of its own (untied)",
    "d_embed": lambda c: f"factorised embedding of width {c.d_embed}",
    "token_types": lambda c: _count(c.token_types, "token type"),
    "embed_norm": lambda c: "normalised embedding",
    "mlm_head": lambda c: "masked-model head before the unembedding",
    "unembed_bias": lambda c: "bias on the logits",
    "dropout": lambda c: f"dropout {c.dropout:g}",
    "init_std": lambda c: f"initial weights of standard deviation {c.init_std:g}",
    "depth_scaled_init": lambda c: "initial weights not scaled by depth",
    "seed": lambda c: f"initial weights from seed {c.seed}",
}  # fmt: skip
"""Field -> what a value that is not the default is called."""

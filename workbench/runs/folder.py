"""The run folder: file names, creation, finding runs and checkpoints by name."""

import glob
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import RunError, WorkbenchError, nearest
from workbench.io import disk_reason, fsync_file, fsync_folder, read_plain, write_json, write_text
from workbench.runs import zoo
from workbench.runs.checkpoint import (
    MANIFEST,
    Checkpoint,
    checkpoint_folder,
    checkpoint_steps,
    verify_checkpoint,
)
from workbench.settings import read_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONFIG = "config.yaml"
TOKENIZER = "tokenizer.json"
DATA_CARD = "data.json"
METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
STALE = 600.0
"""Age in seconds above which a temporary folder is a leftover of a kill."""


class DamagedCheckpoint(UserWarning):
    """A damaged checkpoint was skipped; an earlier one is used."""


def check_free(path: Path) -> None:
    """Refuse a path where no run can be created.

    Raises:
        RunError: the path exists (a run: with the command that resumes it), or is not writable.
    """
    path = Path(path)
    if (path / CONFIG).exists():
        raise RunError(
            f"the run {path} already exists; continue it with `workbench resume {path}`, "
            f"or choose another name, such as {_free_name(path)}.",
            option=f"--out {_free_name(path)}",
        )
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise RunError(
            f"{path} exists and is not a run; choose another name, such as {_free_name(path)}.",
            option=f"--out {_free_name(path)}",
        )
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise RunError(f"{parent} is a file, so no run can be created at {path}; choose another place.")
    if not os.access(parent, os.W_OK):
        raise RunError(f"{parent} is not writable, so no run can be created at {path}; choose another place.")


def create_run(
    path: Path, config: Mapping[str, Any], tokenizer: "PreTrainedTokenizerFast", data_card: Mapping[str, Any]
) -> None:
    """Create the run folder with config.yaml, tokenizer.json and data.json, atomically.

    Raises:
        RunError: the path was created in the meantime, or cannot be written.
    """
    from workbench.data.tokenizer import save_tokenizer

    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if time.time() - left.stat().st_mtime > STALE:  # a younger one may belong to another process
                shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
        os.chmod(temporary, 0o755)
        save_tokenizer(tokenizer, temporary / TOKENIZER)
        write_json(temporary / DATA_CARD, data_card)
        write_config(temporary, config)
        for file in temporary.iterdir():
            fsync_file(file)
        fsync_folder(temporary)
        os.rename(temporary, path)  # fails on a non-empty folder, so only one of two runs succeeds
        fsync_folder(path.parent)
    except OSError as error:
        raise RunError(f"the run {path} cannot be created: {disk_reason(error)}.") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_config(run: Path, config: Mapping[str, Any]) -> None:
    """Write config.yaml atomically."""
    import yaml

    write_text(Path(run) / CONFIG, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def read_config(run: Path) -> dict[str, Any]:
    """Return the settings in the run's config.yaml.

    Raises:
        ConfigError: it is missing or not a YAML mapping.
    """
    return read_yaml(Path(run) / CONFIG)


def find_run(name: str | os.PathLike[str]) -> tuple[Path, int | None]:
    """Split `runs/tiny@512` into the folder and the step; `runs/tiny` has no step.

    `runs/tiny@best` is the step of the best evaluation of a run trained with `train.patience`. A bare name
    that is not a folder is also looked up under `runs/`, and `zoo/...` in the shipped family.

    Raises:
        RunError: no such run (with the nearest one), a folder without config.yaml, a step that is not a
            number, or no best step is recorded.
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
                    "@best and @latest also work."
                )
            step = int(tail)
    path = Path(text)
    if not path.exists() and len(path.parts) == 1 and (Path("runs") / path / CONFIG).exists():
        path = Path("runs") / path
    if not path.exists() and zoo.names_one(text):
        path = zoo.find(text)
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
    """Return the step of the best evaluation; a run with `train.patience` keeps its checkpoint.

    Raises:
        RunError: none is recorded, or its checkpoint was deleted.
    """
    rows = read_rows(Path(run) / METRICS)
    steps = [row["step"] for row in rows if row.get("kind") == "best" and type(row.get("step")) is int]
    if not steps:
        raise RunError(
            f"{run} was not trained with train.patience, so it has no best checkpoint; give a step."
            if any(row.get("kind") == "eval" for row in rows)
            else f"{run} has not been evaluated yet, so it has no best checkpoint; give a step."
        )
    if not (checkpoint_folder(run, steps[-1]) / MANIFEST).exists():
        raise RunError(f"the best checkpoint of {run}, step {steps[-1]}, was deleted; give another step.")
    return steps[-1]


def runs_root(name: str | os.PathLike[str]) -> Path:
    """Return the folder of runs for a name: the folder itself, or the shipped family for `zoo`."""
    path = Path(name)
    return zoo.family_folder() if str(name) == zoo.NAME and not path.exists() else path


def tokenizer_file(run: Path) -> Path:
    """Return the run's tokenizer.json, or the one shared by its family in the parent folder."""
    own, shared = Path(run) / TOKENIZER, Path(run).absolute().parent / TOKENIZER
    return shared if not own.exists() and shared.is_file() else own


def run_folders(root: Path) -> list[Path]:
    """Return the run folders directly under `root`, sorted by name."""
    try:
        names = sorted(entry.name for entry in os.scandir(root) if not entry.name.startswith("."))
    except OSError:
        return []
    return [Path(root) / name for name in names if (Path(root) / name / CONFIG).is_file()]


def good_checkpoint(run: Path, step: int | None = None, optimizer: bool = False) -> Checkpoint:
    """Return the checkpoint of `step`, or the last intact one.

    Warns with `DamagedCheckpoint` for each one skipped.

    Args:
        run: the run folder.
        step: the step; None for the last intact one.
        optimizer: require the optimiser's state.

    Raises:
        RunError: no such step, the step is damaged, or no checkpoint is intact.
    """
    steps = checkpoint_steps(run)
    if step is not None:
        if step not in steps:
            known = ", ".join(map(str, steps)) or "none"
            raise RunError(f"{run} has no checkpoint of step {step}. It has: {known}.")
        return verify_checkpoint(checkpoint_folder(run, step), optimizer)
    if not steps:
        raise RunError(f"{run} has no checkpoint yet; `workbench resume {run}` restarts it.")
    problems = []
    for candidate in reversed(steps):
        try:
            found = verify_checkpoint(checkpoint_folder(run, candidate), optimizer)
            if optimizer and not found.has_optimizer:
                raise RunError(f"{found.path} has no optimizer.safetensors.")
        except WorkbenchError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem} Using {found.path.name} instead.", DamagedCheckpoint, stacklevel=3)
        return found
    raise RunError(f"{run} has no intact checkpoint. {problems[0]}")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read the objects of a .jsonl file, ignoring a last line cut short by a kill.

    Raises:
        RunError: an earlier line is not a JSON object; the message gives its number.
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

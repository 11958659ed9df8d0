"""The run folder: its names on disk, how it appears, how it is found."""

import glob
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import RunError, WorkbenchError, nearest
from workbench.files import disk_reason, fsync_file, fsync_folder, read_plain, write_json, write_text
from workbench.runs import shipped
from workbench.runs.checkpoint import (
    MANIFEST,
    Checkpoint,
    checkpoint_folder,
    checkpoint_steps,
    verify_checkpoint,
)
from workbench.settings import read_yaml

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

"""Runs and checkpoints as they are named on a command line: `runs/tiny`, `runs/tiny@512`, `runs/tiny@all`."""

from collections.abc import Sequence
from typing import Any

from workbench.errors import ConfigError, RunError, shown

ALL = "@all"


def open_runs(names: Sequence[str], checkpoints: str | None = None) -> list[Any]:
    """Runs at the named checkpoints, in order.

    Args:
        names: run folders, `run@step`, `run@all`; a folder of runs stands for all in it, and so does `zoo`.
        checkpoints: `all`, or steps with commas, of every run that is named without a step.

    Raises:
        RunError: no such run or checkpoint. ConfigError: `checkpoints` is something else.
    """
    from workbench.runs.run import load

    steps = _steps(checkpoints)
    found: list[Any] = []
    for name in names:
        every = name.endswith(ALL)
        plain = name.removesuffix(ALL)
        for one in _members(plain):
            run = load(one)
            if every or steps == "all":
                found += [run if step == run.step else run.at(step) for step in run.checkpoints]
            elif steps is None or "@" in one.rpartition("/")[2]:
                found.append(run)
            else:
                found += [_at(run, step) for step in steps]
    unique = {(run.path.resolve(), run.step): run for run in found}
    return list(unique.values())


def _steps(given: str | None) -> Any:
    if given is None or given == "all":
        return given
    words = [word.strip() for word in given.split(",")]
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f"--checkpoints wants all, or steps such as 0,512,1000; found {shown(given)!r}.")
    return [int(word) for word in words]


def _at(run: Any, step: int) -> Any:
    if step not in run.checkpoints:
        there = ", ".join(map(str, run.checkpoints))
        raise RunError(f"{run.path} has no checkpoint {step}; there are {shown(there, 200)}.")
    return run if step == run.step else run.at(step)


def _members(name: str) -> list[str]:
    """The runs that a name stands for: itself, or those of a folder of runs."""
    from pathlib import Path

    from workbench.runs import zoo as shipped
    from workbench.runs.checkpoint import checkpoint_steps
    from workbench.runs.folder import run_folders

    if name.rstrip("/") == shipped.NAME and shipped.members():
        return [f"{shipped.NAME}/{member}" for member in shipped.members()]
    place = Path(name).expanduser()
    if place.is_dir() and not (place / "config.yaml").exists() and not (place / "checkpoints").exists():
        inside = [str(path) for path in run_folders(place) if checkpoint_steps(path)]
        if inside:
            return inside
    return [name]

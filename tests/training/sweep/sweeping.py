"""Launches of whole sweeps in child processes that can be killed."""

import os
import signal
from pathlib import Path

from killing import until
from small_runs import children

from training.sweep.status import is_claimed, read_status

LONG = {"budget": {"tokens": 32 * 200}, "base": {"train": {"checkpoint_every": 50, "eval_every": 100}}}
"""Members of some seconds."""


def child_launch(folder: str, jobs: int = 1) -> None:
    """Target of a child process: what `workbench sweep FOLDER` does, and its exit code."""
    from training.sweep.launchers.local import launch
    from training.sweep.launchers.options import LauncherOptions
    from training.sweep.plan import read_plan

    os.setpgrp()
    ended = launch(Path(folder), read_plan(Path(folder)), LauncherOptions(jobs=jobs), quiet=True)
    os._exit(128 + ended.signal if ended.signal else 1 if ended.failed else 0)


def start(folder, jobs=1):
    """A launch in the background."""
    child = children().Process(target=child_launch, args=(str(folder), jobs))
    child.start()
    return child


def running(folder):
    """Members that a process of this machine is at work on, with a step behind them."""
    return [one for one in read_status(folder) if one.state == "running" and one.step]


def wait_idle(folder, names):
    """Until nobody is at work on any member."""
    until(lambda: not any(is_claimed(folder, name) for name in names), 60)


def kill(pid, number=signal.SIGKILL):
    """Send a signal to a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return

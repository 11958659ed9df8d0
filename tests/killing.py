"""Trainings in child processes that are killed, and what must be true afterwards.

The settings are parameters: any way of training can be put through the same.
"""

import json
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from small_runs import child_resume, child_train, children, small, trained_digests

from workbench.io import is_locked
from workbench.runs.checkpoint import checkpoint_steps
from workbench.runs.config import RunSettings
from workbench.runs.folder import METRICS, read_rows
from workbench.runs.run import load

STEPS = ("train.steps=500", "train.checkpoint_every=25")


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def run_child(target: Callable[..., None], *args: Any, seconds: float = 120.0) -> int:
    """Run a function in a child process; returns its exit code, negative after a signal."""
    child = children().Process(target=target, args=args)
    child.start()
    child.join(seconds)
    assert not child.is_alive(), f"no end within {seconds:g} s"
    assert child.exitcode is not None
    return child.exitcode


def kill_and_resume(
    out: Path, moments: Iterable[float], number: int = signal.SIGKILL, settings: RunSettings | None = None
) -> list[int]:
    """Start, signal after each of `moments` seconds from the first sign of life, resume; returns exit codes."""
    settings = settings or small(*STEPS)
    codes = []
    for moment in moments:
        target, args = (child_resume, (str(out),)) if out.exists() else (child_train, (settings, str(out)))
        child = children().Process(target=target, args=args)
        child.start()
        begun = out.exists if target is child_train else partial(is_locked, out)
        until(lambda begun=begun, child=child: begun() or not child.is_alive())
        time.sleep(moment)
        if child.is_alive():
            os.kill(child.pid, number)
        child.join(120)
        codes.append(child.exitcode)
        check_whole(out, settings)
        if child.exitcode == 0:
            break
    return codes


def check_whole(out: Path, settings: RunSettings) -> None:
    """Whatever happened: the latest checkpoint loads, and at most one interval of training is lost."""
    if not checkpoint_steps(out):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a damaged checkpoint would warn
        run = load(out)
        assert run.model is not None
    trained = [row["step"] for row in read_rows(out / METRICS)]
    assert max(trained, default=0) - run.step <= settings.train.checkpoint_every


def finish(out: Path) -> int:
    """Resume until the end."""
    return run_child(child_resume, str(out))


def whole_run(out: Path, settings: RunSettings) -> dict[str, str]:
    """The digests of an uninterrupted run, trained in a child process as all others are."""
    assert run_child(child_train, settings, str(out)) == 0
    return trained_digests(out)


def fail_at(number: int, what: Callable[[], Any]) -> dict[str, int]:
    """From here on, in this process, do `what` in place of the n-th call that writes, flushes or renames.

    Returns:
        `count`: how many there were so far.
    """
    import tempfile
    from io import FileIO

    import training.tracking

    calls = {"count": 0}

    def counted(function):
        def call(*args, **kwargs):
            calls["count"] += 1
            if calls["count"] == number:
                what()
            return function(*args, **kwargs)

        return call

    class Counted(FileIO):
        write = counted(FileIO.write)

    for owner, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (os, "chmod"), (os, "unlink")):
        setattr(owner, name, counted(getattr(owner, name)))
    Path.write_bytes = counted(Path.write_bytes)  # type: ignore[method-assign]
    tempfile.mkdtemp = counted(tempfile.mkdtemp)
    training.tracking.FileIO = Counted  # type: ignore[misc]
    return calls


def child_fails_at(
    settings: RunSettings, out: str, number: int, errno_: int | None, counter: str = ""
) -> None:
    """Target of a child process: train (or resume), and be killed, or get an error, at the n-th such call."""

    def what() -> None:
        if errno_ is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise OSError(errno_, os.strerror(errno_))

    calls = fail_at(number, what)
    exit_ = os._exit

    def leave(code: int) -> None:
        if counter:
            Path(counter).write_text(json.dumps(calls))
        exit_(code)

    os._exit = leave  # type: ignore[assignment]
    if Path(out).exists():
        child_resume(out)
    child_train(settings, out)

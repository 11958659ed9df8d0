"""Trainings in child processes that are killed, and what must be true afterwards."""

import os
import signal
import time
import warnings
from functools import partial

from small_runs import child_resume, child_train, children, small

from workbench.runs.catalogue import load
from workbench.runs.checkpoint import checkpoint_steps
from workbench.runs.lock import is_locked

STEPS = ("train.steps=500", "train.checkpoint_every=25")


def until(condition, seconds=30.0):
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def kill_and_resume(out, moments, number=signal.SIGKILL):
    """Start, signal after each of `moments` seconds from the first sign of life, resume; returns exit codes."""
    codes = []
    for turn, moment in enumerate(moments):
        target, args = (
            (child_train, (small(*STEPS), str(out))) if not out.exists() else (child_resume, (str(out),))
        )
        child = children().Process(target=target, args=args)
        child.start()
        begun = out.exists if turn == 0 else partial(is_locked, out)
        until(lambda begun=begun, child=child: begun() or not child.is_alive())
        time.sleep(moment)
        if child.is_alive():
            os.kill(child.pid, number)
        child.join(30)
        codes.append(child.exitcode)
        if checkpoint_steps(out):
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a damaged checkpoint would warn
                assert load(out).model is not None
        if child.exitcode == 0:
            break
    return codes


def finish(out):
    """Resume until the end."""
    child = children().Process(target=child_resume, args=(str(out),))
    child.start()
    child.join(60)
    return child.exitcode

"""One member of a sweep, whatever happened to it before: trained, gone on with, scored, or done already."""

import contextlib
import errno
import signal
import time
import warnings
from pathlib import Path

from training.distributed import from_environment
from training.session import Outcome, resume, train
from training.signals import Stopped, StopSignals
from training.sweep import status
from training.sweep.plan import Member, Plan, read_plan
from training.sweep.score import is_scored, score
from training.sweep.shared import with_tokenizer
from workbench.errors import WorkbenchError
from workbench.runs.checkpoint import checkpoint_steps
from workbench.runs.folder import CONFIG
from workbench.runs.run import summarise


def run_member(folder: Path, name: str, quiet: bool = False) -> Outcome:
    """Train a member, go on with it, or return at once if it is finished; then score it if the sweep says so.

    Its state stands in status/<name>.json at every moment. INT, TERM, USR2 and HUP save the run and return an
    `Outcome` with `.signal` set.

    Args:
        folder: the sweep folder.
        name: the member.
        quiet: no progress line.

    Raises:
        TakenError: another process is at work on it.
        WorkbenchError: no such sweep or member, or what ended its training; the status says `failed` then.
    """
    folder = Path(folder)
    plan = read_plan(folder)
    member = plan.member(name)
    place = from_environment()
    if place is not None and place["rank"] > 0:  # the first of the processes claims, notes and scores
        return _train(folder, plan, member, quiet)
    with status.claimed(folder, name):
        run = folder / name
        if is_done(folder, plan, member):
            if status.raw_status(folder, name).get("state") != "done":
                status.update_status(folder, name, state="done", error=None, ended=time.time())
            return Outcome(run, _step(run), True)
        status.begin(folder, name)
        try:
            with StopSignals():
                outcome = _train(folder, plan, member, quiet)
                if outcome.finished:
                    score(run, plan, quiet)
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, Stopped) else int(signal.SIGINT)
            status.update_status(folder, name, state="stopped", ended=time.time())
            return Outcome(run, _step(run), False, number)
        except Exception as error:
            with contextlib.suppress(OSError):  # the disk may be what is full
                status.update_status(
                    folder, name, state="failed", ended=time.time(), error=in_one_line(error)
                )
            raise
        state = "done" if outcome.finished else "stopped"
        status.update_status(folder, name, state=state, ended=time.time())
        return outcome


def is_done(folder: Path, plan: Plan, member: Member) -> bool:
    """Whether the member is trained to its end, and scored if the sweep says so."""
    return is_trained(Path(folder) / member.name) and is_scored(Path(folder) / member.name, plan)


def is_trained(run: Path) -> bool:
    """Whether the run is there and finished."""
    return (run / CONFIG).exists() and summarise(run).status == "finished"


def _train(folder: Path, plan: Plan, member: Member, quiet: bool) -> Outcome:
    run = folder / member.name
    if is_trained(run):
        return Outcome(run, _step(run), True)
    if (run / CONFIG).exists():
        return resume(run, quiet=quiet)
    return train(with_tokenizer(folder, plan, member), run, quiet=quiet)


def _step(run: Path) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return max(checkpoint_steps(run), default=0)


def in_one_line(error: BaseException) -> str:
    """What ended a member, for its status."""
    if isinstance(error, MemoryError):
        return "the machine's memory is too small for it"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{f' at {error.filename}' if error.filename else ''}"
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {text}"

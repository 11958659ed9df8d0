"""The jobs of `--launcher slurm` as processes of this machine, through submitit's local executor.

For trying a sweep's launcher section where there is no Slurm: the same job files, the same signal before the
time limit, the same going on afterwards. For work on one machine `--launcher local` is the better one.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.signals import Stopped, StopSignals
from training.sweep import status
from training.sweep.launchers.job import MemberJob
from training.sweep.launchers.options import LauncherOptions
from training.sweep.launchers.slurm import need_submitit
from training.sweep.plan import Plan
from workbench.errors import ConfigError

PLACE = "submitit"


def launch(
    folder: Path, plan: Plan, options: LauncherOptions, say: Callable[[str], None] = print
) -> int | None:
    """Run what is missing, `options.jobs` members side by side, and wait for it.

    Args:
        folder: the sweep's folder.
        plan: the sweep.
        options: time, save_before, processes, gpus, setup and jobs are used.
        say: told of each member that ends.

    Returns:
        The signal that ended the call, after the members have saved; else None.

    Raises:
        RunError: submitit is absent.
        ConfigError: more than one node, or processes that cannot share a batch.
    """
    need_submitit()
    if options.nodes > 1:
        raise ConfigError(
            f"launcher.nodes = {options.nodes}: this machine is one node; set launcher.nodes=1."
        )
    import submitit

    executor = submitit.LocalExecutor(Path(folder).absolute() / PLACE)
    executor.update_parameters(
        timeout_min=options.minutes,
        signal_delay_s=options.save_before,
        tasks_per_node=options.tasks,
        gpus_per_node=options.gpus or 0,
        stderr_to_stdout=True,
        setup=list(options.setup),
    )
    states = {each.name: each.state for each in status.read_status(folder)}
    waiting = [member.name for member in plan.members if states[member.name] != "done"]
    running: dict[str, Any] = {}
    # A Ctrl-C of the terminal reaches every process. The members save; the processes between would end
    # them a second later, so they are started deaf to it.
    with StopSignals():
        try:
            while waiting or running:
                while waiting and len(running) < (options.jobs or 1):
                    name = waiting.pop(0)
                    status.update_status(folder, name, state="submitted", error=None, ended=None)
                    with _deaf():
                        running[name] = executor.submit(MemberJob(folder, name))
                for name in [name for name, job in running.items() if job.done()]:
                    del running[name]
                    say(_ended(folder, name))
                time.sleep(0.1)
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, Stopped) else int(signal.SIGINT)
            _stop(folder, running)
            return number
    return None


def _ended(folder: Path, name: str) -> str:
    now = {each.name: each for each in status.read_status(folder)}[name]
    return f"{name}: {now.state}" + (f" at step {now.step:,}" if now.step else "") + _reason(now.error)


def _reason(error: str | None) -> str:
    return f" ({error})" if error else ""


@contextlib.contextmanager
def _deaf() -> Any:
    """Processes started in the block ignore Ctrl-C, until they ask for it themselves."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(folder: Path, running: dict[str, Any], seconds: float = 60.0) -> None:
    """Ask the members to save and wait for them."""
    until = time.monotonic() + seconds
    told: set[int] = set()
    while any(not job.done() for job in running.values()) and time.monotonic() < until:
        for name in running:
            process = status.raw_status(folder, name).get("pid")
            if isinstance(process, int) and process not in told and status.is_claimed(folder, name):
                told.add(process)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGTERM)
        time.sleep(0.1)

"""What one job of a sweep runs, and when it puts itself back into the queue. Imported on the compute node."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from training.sweep.launchers.queue import ask
from workbench.errors import WorkbenchError

ATTEMPTS = 3
"""Jobs in a row that may end without a step before a member counts as failed."""


class MemberJob:
    """One member of a sweep as a submitit job.

    submitit hands a job over as a file that it writes with cloudpickle and reads on the compute node. What
    is pickled here is the name of this class and two texts, the sweep's folder and the member's name;
    only submitit reads that file. Everything else (plan, settings, checkpoints) the job reads from the
    sweep's folder, whose files are YAML, JSON and safetensors.

    Args:
        folder: the sweep's folder.
        member: the member's name.
    """

    def __init__(self, folder: Path, member: str) -> None:
        self.folder, self.member = str(Path(folder).absolute()), member

    def __call__(self) -> None:
        """Run the member as `python -m training.sweep FOLDER MEMBER` does.

        A member that saved and left because of a signal is queued again where Slurm does not do that itself.

        Raises:
            SystemExit: the code of a member that did not finish.
        """
        from training.sweep.__main__ import main

        environment = export_ranks()
        leads = environment.global_rank == 0
        if leads:
            self._log_to_file()
        before = self._step()
        code = main([self.folder, self.member])
        if code == 0:  # a signal that comes now is too late; the job is to end as one that completed
            for number in (signal.SIGUSR2, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            return
        vain = leads and code == 128 + signal.SIGUSR2 and self._in_vain(before)
        if leads and not vain and goes_on(code - 128, environment):
            # Puts the job back into the queue (Slurm), or leaves with the code that says so (local).
            environment._requeue(0)
        # The other processes of a member that was told to save leave without an error: the first one may
        # still be saving, and a step in which one process fails is ended by Slurm.
        if leads or code < 128:
            raise SystemExit(code)

    def checkpoint(self) -> Any:
        """Called by submitit if the signal comes before the member listens for it: the same job again."""
        from submitit import JobEnvironment
        from submitit.helpers import DelayedSubmission

        # What an attempt that was killed while writing it left; submitit would stop at it.
        left = Path(f"{JobEnvironment().paths.submitted_pickle}.save_tmp")
        left.unlink(missing_ok=True)
        return DelayedSubmission(self)

    def _step(self) -> int:
        """Where the member's last checkpoint stands."""
        from workbench.runs.checkpoint import checkpoint_steps

        return max(checkpoint_steps(Path(self.folder) / self.member), default=0)

    def _in_vain(self, before: int) -> bool:
        """Whether this was the third job in a row that got no further than where it began.

        Such a member would be queued again for ever: its time is too short to load and to make a step.
        """
        from training.sweep import status
        from workbench.io import write_json

        note = Path(self.folder) / "status" / f".{self.member}.in-vain.json"
        count = 0 if self._step() > before else _count(note) + 1
        if count == 0 or count >= ATTEMPTS:
            note.unlink(missing_ok=True)
        else:
            write_json(note, {"attempts": count})
        if count < ATTEMPTS:
            return False
        error = (
            f"{ATTEMPTS} jobs in a row were told to save before they had made a step; "
            "set a longer launcher.time, or a smaller launcher.save_before"
        )
        status.update_status(Path(self.folder), self.member, state="failed", error=error)
        print(f"Not queued again: {error}.", file=sys.stderr)
        return True

    def _log_to_file(self) -> None:
        """From here on, what the process prints goes to logs/MEMBER.log."""
        from training.sweep.folder import log_file

        path = log_file(Path(self.folder), self.member)
        path.parent.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        with open(path, "ab") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)


def _count(note: Path) -> int:
    from workbench.io import read_json

    try:
        return int(read_json(note)["attempts"])
    except (WorkbenchError, KeyError, TypeError, ValueError):
        return 0


def export_ranks() -> Any:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT where a job has several tasks.

    The same variables as torchrun sets. All GPUs of the node stay visible to each task, which takes the
    one of its LOCAL_RANK.

    Returns:
        submitit's JobEnvironment.
    """
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    environment = JobEnvironment()
    if environment.num_tasks > 1:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    return environment


def goes_on(number: int, environment: Any) -> bool:
    """Whether a member that was stopped by a signal has to queue itself again.

    USR2 is sent some time before the time limit, and nobody queues the job again if it does not. TERM
    comes with every kind of end: Slurm itself queues the job again after `scontrol requeue`, a preemption
    without grace and a dead node, and never after `scancel`. There is one case left: a preemption with a
    time of grace, in which the job still counts as running; leaving before the grace is over is, to
    Slurm, an ordinary end.

    Args:
        number: the signal's number; anything else than a signal is no reason.
        environment: submitit's JobEnvironment.
    """
    if number == signal.SIGUSR2:
        return True
    if number != signal.SIGTERM or environment.name() != "slurm":
        return False
    try:
        shown = ask("scontrol", "--oneliner", "show", "job", environment.raw_job_id)
    except WorkbenchError as error:
        print(f"Not queued again: {error}", file=sys.stderr)
        return False
    fields = shown.split()
    grace = any(field.startswith("PreemptTime=") and field != "PreemptTime=None" for field in fields)
    return grace and "JobState=RUNNING" in fields

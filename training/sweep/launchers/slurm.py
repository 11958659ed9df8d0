"""A sweep as one array job on a Slurm cluster, through submitit."""

import contextlib
import dataclasses
import importlib.util
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.distributed import shares
from training.sweep import status
from training.sweep.folder import PLAN
from training.sweep.launchers.job import MemberJob
from training.sweep.launchers.options import LauncherOptions
from training.sweep.launchers.queue import ask, jobs, words
from training.sweep.launchers.record import PLACE, Attempt, Record, adopted, read_record, write_record
from training.sweep.plan import Plan, plan_dict
from workbench.errors import ConfigError, RunError, WorkbenchError
from workbench.io import locked, write_json


@dataclasses.dataclass(frozen=True)
class Submission:
    """What a call of `launch` did."""

    submitted: tuple[str, ...]
    """Members that are in the queue because of this call."""
    queued: tuple[str, ...]
    """Members that were in the queue, or ran there, before."""
    done: tuple[str, ...]
    array: str | None
    """Slurm's number of the array job; None if nothing had to be submitted."""


def launch(folder: Path, plan: Plan, options: LauncherOptions) -> Submission:
    """Submit what is missing: every member that is neither done nor in the queue, as one array job.

    Args:
        folder: the sweep's folder, on a disk that the compute nodes see.
        plan: the sweep.
        options: partition, time and the rest.

    Raises:
        RunError: submitit or sbatch is absent, Slurm does not answer, sbatch refuses (its own words; then
            nothing was submitted and no status was changed), or another call submits this sweep just now.
    """
    need_submitit()
    check_shares(plan, options)
    ask("sbatch", "--version")
    place = Path(folder) / PLACE
    if "%" in str(place.absolute()):
        raise RunError(f"{folder}: Slurm gives % in the names of files a meaning; choose another --out.")
    place.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(place):
        record = adopted(read_record(folder))
        known = jobs(record.jobs.values())
        states = {each.name: each.state for each in status.read_status(folder)}
        done = tuple(name for name in states if states[name] == "done")
        busy = {name for name, number in record.jobs.items() if known[number].alive}
        busy |= {name for name in states if status.is_claimed(folder, name)}  # here, by --launcher local
        queued = tuple(name for name in states if name in busy and name not in done)
        missing = [name for name in states if name not in {*done, *queued}]
        if not missing:
            write_record(folder, record)
            return Submission((), queued, done, None)
        attempt = Attempt.of(missing)
        write_record(folder, dataclasses.replace(record, attempt=attempt))
        before = {name: status.raw_status(folder, name) for name in missing}
        for name in missing:  # before sbatch: a job may start before it returns, and write `running`
            status.update_status(folder, name, state="submitted", error=None, ended=None)
        try:
            numbers = _submit(folder, plan.name, attempt, options)
        except RunError:  # refused; after anything else the attempt stays noted, and its jobs are looked for
            for name, fields in before.items():
                _put_back(folder, name, fields)
            write_record(folder, record)
            raise
        write_record(folder, Record(record.jobs | dict(zip(missing, numbers, strict=True))))
        # What the sweep goes on with if its folder alone is named.
        write_json(Path(folder) / PLAN, plan_dict(dataclasses.replace(plan, launcher=options)))
    return Submission(tuple(missing), queued, done, numbers[0].partition("_")[0])


def need_submitit() -> None:
    """Refuse if submitit is not installed.

    Raises:
        RunError: with the command that installs it.
    """
    if importlib.util.find_spec("submitit") is None:
        raise RunError(
            "sweeps on a cluster need submitit, which is not installed; "
            "install it: pip install 'interp-workbench[cluster]' (or: pip install submitit)."
        )


def check_shares(plan: Plan, options: LauncherOptions) -> None:
    """Refuse a number of processes that cannot share a member's batch, before anything is queued.

    Raises:
        ConfigError: with the member and what to set.
    """
    for member in plan.members:
        train = member.settings.train
        try:
            shares(train.batch_size, train.accumulate, 0, options.nodes * options.tasks)
        except ConfigError as error:
            raise ConfigError(f"{member.name}: {error}") from None


def _submit(folder: Path, name: str, attempt: Attempt, options: LauncherOptions) -> list[str]:
    """One array job (a plain job for one member); Slurm's numbers, in the order of the members."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    from submitit.helpers import clean_env

    place = Path(folder).absolute() / PLACE
    present = set(place.iterdir())
    # Started from within another job, sbatch would take over that job's settings; SLURM_CONF is no such.
    conf = os.environ.get("SLURM_CONF")
    # On a refusal submitit prints sbatch's words as well; they are in the error.
    with clean_env(), contextlib.redirect_stderr(io.StringIO()):
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        try:
            executor = submitit.SlurmExecutor(place)
            executor.update_parameters(**_parameters(name, options, attempt.token))
            submitted = executor.submit_array([MemberJob(folder, member) for member in attempt.members])
        except (FailedJobError, FailedSubmissionError) as error:
            for left in set(place.iterdir()) - present:  # job files that nobody will read
                left.unlink(missing_ok=True)
            raise RunError(_refusal(str(error), options)) from None
        finally:
            if conf is not None:
                os.environ.pop("SLURM_CONF", None)
    return [job.job_id for job in submitted]


def _parameters(name: str, options: LauncherOptions, token: str) -> dict[str, Any]:
    parameters = options.directives()
    # Since Slurm 22.05 a step does not inherit the job's cores for each task; and one dead rank ends all.
    steps = ["--kill-on-bad-exit=1"]
    if options.cpus is not None:
        steps.append(f"--cpus-per-task={options.cpus}")
    return {
        **parameters,
        "job_name": name,
        "wckey": None,
        "comment": token,
        "stderr_to_stdout": True,
        "srun_args": steps,
        "setup": [*options.setup, "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"],
        "additional_parameters": {"requeue": True, **options.sbatch},
    }


def _refusal(stderr: str, options: LauncherOptions) -> str:
    """One line with sbatch's own words."""
    said = words(stderr) or "no word of why"
    hint = ""
    if "partition" in said.lower() and options.partition is not None:
        try:
            there = ", ".join(dict.fromkeys(ask("sinfo", "--noheader", "--format=%R").split()))
            hint = f" launcher.partition = {options.partition!r}; partitions here: {there}."
        except WorkbenchError:
            hint = f" launcher.partition = {options.partition!r}."
    return f"Slurm refused the sweep, nothing was submitted. sbatch: {said}.{hint}"


def _put_back(folder: Path, name: str, fields: dict[str, Any]) -> None:
    if fields:
        fields.pop("member", None)
        status.write_status(folder, name, **fields)
    else:
        status.folder.status_file(Path(folder), name).unlink(missing_ok=True)


@contextlib.contextmanager
def _one_at_a_time(place: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(place))
        except RunError:
            raise RunError(f"another call is submitting {place.parent} just now; see --status.") from None
        yield

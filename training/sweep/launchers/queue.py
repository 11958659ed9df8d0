"""What Slurm knows about jobs, asked through its own programs with short timeouts."""

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence

from workbench.errors import RunError

PATIENCE = 8.0
"""Seconds to wait for one answer; a controller that is down keeps its programs waiting for minutes."""
OVER = {"CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL"}
OVER |= {"DEADLINE", "REVOKED"}
"""States that a job does not leave by itself; in every other one it runs or will."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One job, or one element of an array job, as `squeue` or `sacct` shows it."""

    id: str
    """Such as `123`, or `123_4` for an element of an array."""
    state: str
    """Slurm's word, such as PENDING, RUNNING or FAILED; UNKNOWN if Slurm has forgotten the job."""
    reason: str = ""
    """Why it is where it is, such as Resources, Priority or NonZeroExitCode."""
    elapsed: str = ""
    node: str = ""

    @property
    def alive(self) -> bool:
        """Whether it runs, or waits and will run."""
        return self.state not in OVER and self.state != "UNKNOWN"

    def __str__(self) -> str:
        why = self.reason if self.reason not in ("", "None") else self.node
        return f"{self.id} {self.state}" + (f" ({why})" if why else "")


def ask(*command: str) -> str:
    """The output of one of Slurm's programs, if it comes within `PATIENCE`.

    Raises:
        RunError: it is not installed, does not answer in time, or refuses; with its own words.
    """
    if shutil.which(command[0]) is None:
        raise RunError(
            f"{command[0]} is not on this machine: start the sweep on a login node of the cluster, "
            "or here with --launcher local."
        )
    # A filter or format that the user has set for reading by eye would hide jobs from us.
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("SQUEUE_", "SACCT_"))}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False,
            env=plain,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RunError(f"Slurm does not answer: {command[0]} was silent for {PATIENCE:g} s.") from None
    if done.returncode:
        raise RunError(f"{command[0]}: {words(done.stderr) or f'exit code {done.returncode}'}.")
    return done.stdout


def words(text: str) -> str:
    """What one of Slurm's programs complained of, as one line without `sbatch: error:` before each."""
    lines = []
    for line in text.splitlines():
        for prefix in ("sbatch: ", "squeue: ", "scontrol: ", "sacct: ", "error: ", "fatal: "):
            line = line.removeprefix(prefix)
        if line.strip() and line.strip().rstrip(".") not in lines:
            lines.append(line.strip().rstrip("."))
    return "; ".join(lines)


def jobs(ids: Iterable[str]) -> dict[str, Job]:
    """The state of each job: from `squeue`, and from `sacct` for those that it has forgotten.

    Raises:
        RunError: `squeue` is not there or does not answer. (`sacct` may be missing; many clusters have none.)
    """
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        return {}
    found = _queued(wanted)
    lost = [each for each in wanted if each not in found]
    if lost:
        found |= _accounted(lost)
    return {each: found.get(each, Job(each, "UNKNOWN")) for each in wanted}


def _arrays(ids: Sequence[str]) -> str:
    return ",".join(dict.fromkeys(each.partition("_")[0] for each in ids))


def _queued(ids: Sequence[str]) -> dict[str, Job]:
    form = "--format=%i|%T|%r|%M|%N"
    try:
        text = ask("squeue", "--noheader", "--array", "--states=all", form, f"--jobs={_arrays(ids)}")
    except RunError as error:
        if "Invalid job id" in str(error):  # all of them ended long ago
            return {}
        raise
    return _read(text)


def _accounted(ids: Sequence[str]) -> dict[str, Job]:
    form = "--format=JobID,State,ExitCode,Elapsed,NodeList"
    try:
        text = ask("sacct", "--noheader", "--parsable2", "--allocations", form, f"--jobs={_arrays(ids)}")
    except RunError:
        return {}
    return _read(text)


def _read(text: str) -> dict[str, Job]:
    found = {}
    for line in text.splitlines():
        columns = [column.strip() for column in line.split("|")]
        if len(columns) == 5 and columns[0]:
            state = columns[1].split(" ")[0].rstrip("+")  # "CANCELLED by 1000"
            found[columns[0]] = Job(columns[0], state, *columns[2:])
    return found

"""slurm/jobs.json: which job was submitted for which member, however the submitting process ended."""

import dataclasses
import getpass
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.sweep.launchers.queue import Job, ask, jobs
from workbench.errors import DataError, RunError
from workbench.io import read_json, write_json

PLACE = "slurm"
"""Folder in the sweep: jobs.json, and what submitit writes (the sbatch file, its job files, its logs)."""
JOBS = "jobs.json"


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A submission that is on its way: noted before sbatch is called, and dropped when its numbers are."""

    token: str
    """The comment of its jobs, by which they are found again."""
    members: tuple[str, ...]
    """In the order of the array's elements."""

    @classmethod
    def of(cls, members: Sequence[str]) -> "Attempt":
        """To submit these members."""
        return cls(f"workbench-{uuid.uuid4().hex[:12]}", tuple(members))


@dataclasses.dataclass(frozen=True)
class Record:
    """What was submitted for a sweep."""

    jobs: dict[str, str]
    """Member to the number of its last job, such as `123_4`."""
    attempt: Attempt | None = None


def read_record(folder: Path) -> Record:
    """What was submitted for the sweep in `folder`; nothing if it never was.

    Raises:
        RunError: jobs.json is damaged.
    """
    file = Path(folder) / PLACE / JOBS
    if not file.is_file():
        return Record({})
    try:
        found: dict[str, Any] = read_json(file)
        attempt = found.get("attempt")
        known = {str(member): str(number) for member, number in found["jobs"].items()}
        return Record(
            known, None if attempt is None else Attempt(str(attempt["token"]), tuple(attempt["members"]))
        )
    except (DataError, AttributeError, KeyError, TypeError) as error:
        raise RunError(
            f"{file} is damaged ({error}); see by squeue that no job of this sweep is left, then remove it."
        ) from None


def write_record(folder: Path, record: Record) -> None:
    """Write jobs.json in one step."""
    write_json(Path(folder) / PLACE / JOBS, dataclasses.asdict(record))


def adopted(record: Record) -> Record:
    """With the jobs of a submission whose process ended before it had noted their numbers.

    Raises:
        RunError: Slurm does not answer.
    """
    if record.attempt is None:
        return record
    mine = f"--user={getpass.getuser()}"
    text = ask("squeue", "--noheader", "--array", "--states=all", mine, "--format=%i|%k")
    found = dict(record.jobs)
    for line in text.splitlines():
        number, _, comment = line.strip().partition("|")
        if comment == record.attempt.token:
            element = int(number.partition("_")[2] or 0)
            found[record.attempt.members[element]] = number
    return Record(found)


def member_jobs(folder: Path) -> dict[str, Job]:
    """The last job of each member that was ever submitted, as Slurm shows it now.

    Raises:
        RunError: Slurm's programs are not here, or do not answer.
    """
    known = adopted(read_record(folder)).jobs
    states = jobs(known.values())
    return {name: states[number] for name, number in known.items()}


def was_submitted(folder: Path) -> bool:
    """Whether this sweep was ever given to Slurm."""
    return (Path(folder) / PLACE / JOBS).is_file()

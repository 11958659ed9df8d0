"""Members and their jobs on one page: what `--status` shows of a sweep that was given to Slurm."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from training.sweep.launchers.queue import Job
from training.sweep.launchers.record import member_jobs, was_submitted
from training.sweep.status import KILLED, MemberStatus, is_claimed
from workbench.errors import RunError


@dataclasses.dataclass(frozen=True)
class Jobs:
    """The jobs of a sweep's members, and the members' states in their light."""

    members: tuple[MemberStatus, ...]
    jobs: dict[str, Job]
    """Member to its last job; empty if the sweep was never submitted, or Slurm could not be asked."""
    note: str | None = None
    """Why there are no jobs, if Slurm could not be asked: one line."""


def with_jobs(folder: Path, members: Sequence[MemberStatus]) -> Jobs:
    """Look at the jobs of a sweep's members. Returns after seconds at most, with or without Slurm.

    A member's own file says what the member knew when it last wrote. Slurm knows better where the member was
    killed (`running`, and its job is over: `failed`), cancelled while it waited (`stopped`), or waits to go
    on (`stopped`, and its job is in the queue again: `submitted`).

    Args:
        folder: the sweep's folder.
        members: from `training.sweep.status.read_status`.
    """
    if not was_submitted(folder):
        return Jobs(tuple(members), {})
    try:
        jobs = member_jobs(folder)
    except RunError as error:
        return Jobs(tuple(members), {}, str(error))
    return Jobs(tuple(_seen(folder, each, jobs.get(each.name)) for each in members), jobs)


def _seen(folder: Path, member: MemberStatus, job: Job | None) -> MemberStatus:
    if member.state == "done" or is_claimed(folder, member.name):  # done, or at work on this machine
        return member
    if job is None:
        return dataclasses.replace(member, state="waiting") if member.state == "submitted" else member
    member = dataclasses.replace(member, job=job.id)
    if job.alive:
        at_work = member.state == "running" and job.state == "RUNNING"
        return member if at_work else dataclasses.replace(member, state="submitted", error=None)
    if member.state not in ("submitted", "running") and member.error != KILLED:
        return member
    if job.state in ("CANCELLED", "UNKNOWN"):
        why = "its job was cancelled" if job.state == "CANCELLED" else "Slurm no longer knows its job"
        return dataclasses.replace(member, state="stopped", error=f"{why} ({job.id})")
    why = f", {job.reason}" if job.reason not in ("", "None") else ""
    return dataclasses.replace(member, state="failed", error=f"job {job.id} ended: {job.state}{why}")

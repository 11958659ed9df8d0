"""What each member of a sweep is doing: small files that every process may read at any time."""

import contextlib
import dataclasses
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from training.sweep import folder
from training.sweep.plan import Member, read_plan
from workbench.errors import RunError, WorkbenchError
from workbench.io import is_locked, locked, read_json, write_json
from workbench.runs.folder import METRICS, TIMINGS

State = Literal["waiting", "submitted", "running", "done", "failed", "stopped"]
KILLED = "its process ended without a word; it was killed, or the machine went down"


class TakenError(RunError):
    """Another process is at work on this member."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberStatus:
    """One member, as it is now."""

    name: str
    state: State = "waiting"
    step: int | None = None
    share: float = 0.0
    """Share of the budget that is used, 0 to 1."""
    loss: float | None = None
    """Latest validation loss if it is done, else the latest training loss; nats a token."""
    tokens_per_second: float | None = None
    seconds: float | None = None
    """Seconds of training."""
    error: str | None = None
    attempt: int = 0
    host: str | None = None
    pid: int | None = None
    job: str | None = None
    """Slurm's number."""
    started: float | None = None
    """Seconds since 1970."""
    ended: float | None = None


def write_status(sweep: Path, member: str, **fields: Any) -> None:
    """Write status/<member>.json anew in one step.

    Args:
        sweep: the sweep folder.
        member: the member's name.
        fields: of `MemberStatus`: state, started, ended, error, attempt, host, pid, job.
    """
    write_json(folder.status_file(sweep, member), {"member": member, **fields})


def update_status(sweep: Path, member: str, **fields: Any) -> None:
    """Change some fields of a member's file and leave the others."""
    before = raw_status(sweep, member)
    before.pop("member", None)
    write_status(sweep, member, **before | fields)


def raw_status(sweep: Path, member: str) -> dict[str, Any]:
    """What the member's file holds; nothing if it is missing or damaged."""
    try:
        found = read_json(folder.status_file(sweep, member))
    except WorkbenchError:
        return {}
    return found if isinstance(found, dict) else {}


def begin(sweep: Path, member: str, **fields: Any) -> None:
    """The member starts here and now."""
    before = raw_status(sweep, member)
    attempt = before.get("attempt")
    job = os.environ.get("SLURM_JOB_ID")
    write_status(
        sweep, member, state="running", started=time.time(), ended=None, error=None,
        attempt=(attempt if isinstance(attempt, int) else 0) + 1, host=socket.gethostname(), pid=os.getpid(),
        **({"job": job} if job else {"job": before["job"]} if before.get("job") else {}), **fields,
    )  # fmt: skip


@contextlib.contextmanager
def claimed(sweep: Path, member: str) -> Iterator[None]:
    """Hold a member while the block runs; the kernel lets go of it however the process ends.

    Raises:
        TakenError: another process holds it.
    """
    place = _claim(sweep, member)
    place.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(place))
        except RunError as error:
            holder = str(error).partition("by process ")[2].partition(";")[0] or "another"
            raise TakenError(f"{sweep}: {member} is being trained by process {holder}.") from None
        yield


def is_claimed(sweep: Path, member: str) -> bool:
    """Whether some process of this machine is at work on the member."""
    return is_locked(_claim(sweep, member))


def _claim(sweep: Path, member: str) -> Path:
    return Path(sweep) / folder.CLAIMS / member


def read_status(sweep: Path) -> list[MemberStatus]:
    """Every member in the plan's order; cheap enough to be asked each second.

    A file that says `running` while nobody holds the member is of a process that was killed: `stopped`.

    Raises:
        RunError: no sweep there.
    """
    plan = read_plan(sweep)
    return [member_status(sweep, member) for member in plan.members]


def member_status(sweep: Path, member: Member) -> MemberStatus:
    """One member, as it is now."""
    known = raw_status(sweep, member.name)
    names = {field.name for field in dataclasses.fields(MemberStatus)} - {"name"}
    fields = {key: value for key, value in known.items() if key in names}
    if fields.get("state") not in State.__args__:  # type: ignore[attr-defined]
        fields["state"] = "waiting"
    here = fields.get("host") in (None, socket.gethostname())
    if fields["state"] == "running" and here and not is_claimed(sweep, member.name):
        again = raw_status(sweep, member.name).get("state")  # it may have ended between the two looks
        fields |= {"state": again} if again in ("done", "failed") else {"state": "stopped", "error": KILLED}
    if fields["state"] != "failed" and fields["state"] != "stopped":
        fields["error"] = None
    found = progress(Path(sweep) / member.name, member)
    if fields["state"] == "done":  # a run that stopped early is done too
        found["share"] = 1.0
    return MemberStatus(**{"name": member.name, **fields, **found})


def progress(run: Path, member: Member) -> dict[str, Any]:
    """Step, share of the budget, loss and speed, from the ends of the run's two logs."""
    found: dict[str, Any] = {}
    for row in _tail(run / METRICS):
        if row.get("kind") in ("train", "eval") and isinstance(row.get("step"), int):
            found["step"] = row["step"]
            found["loss"] = row.get("loss")
    for row in _tail(run / TIMINGS):
        found["seconds"], found["tokens_per_second"] = row.get("seconds"), row.get("tokens_per_second")
    found["share"] = member.budget.progress(found.get("step") or 0, found.get("seconds") or 0.0)
    return found


def _tail(file: Path, size: int = 8192) -> list[dict[str, Any]]:
    try:
        with open(file, "rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, end - size))
            lines = stream.read().split(b"\n")
    except OSError:
        return []
    rows = []
    for line in lines[1 if end > size else 0 : -1]:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]

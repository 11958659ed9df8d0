"""The progress of a whole sweep: one line for all members, and a sentence for each that ends."""

import time
from collections.abc import Sequence
from pathlib import Path

from training.sweep.plan import Plan
from training.sweep.status import member_status, progress
from workbench.console import Progress, clock, short


class Overview:
    """Member i of n, what runs now, and the time left.

    Args:
        folder: the sweep folder.
        plan: its plan.
        jobs: members side by side.
        quiet: sentences only.
    """

    def __init__(self, folder: Path, plan: Plan, jobs: int, quiet: bool) -> None:
        self._folder, self._plan, self._jobs = folder, plan, max(1, jobs)
        self._line = Progress(plan.name, quiet=quiet)
        self._ended: dict[str, str] = {}
        self._began: dict[str, float] = {}
        self._took = self._expected = 0.0
        self._next_look = 0.0
        self._text = ""
        self._share = 0.0

    def begin(self, done: Sequence[str]) -> None:
        """These are done already."""
        self._ended = dict.fromkeys(done, "done")
        if done:
            self._line.say(f"{len(done)} of {len(self._plan)} members are done already.")

    def start(self, member: str) -> None:
        """A worker took this one."""
        self._began[member] = time.monotonic()

    def end(self, member: str, state: str, error: str | None) -> None:
        """This one ended so."""
        self._ended[member] = state
        took = time.monotonic() - self._began.pop(member, time.monotonic())
        number = f"[{len(self._ended)}/{len(self._plan)}]"
        if state == "done":
            found = member_status(self._folder, self._plan.member(member))
            if took > 1:
                self._took += took
                self._expected += self._plan.member(member).seconds or took
            loss = "" if found.loss is None else f"  loss {found.loss:.3f}"
            self._line.say(f"{number} {member}  done{loss}  {clock(took)}")
        elif state == "failed":
            self._line.say(f"{number} {member}  failed: {error}")
        elif state == "taken":
            self._line.say(f"{number} {member}  is being trained by another process")
        else:
            self._line.say(f"{number} {member}  saved")

    def draw(self, running: Sequence[str]) -> None:
        """The line, looked up once a second."""
        if not self._line.due():
            return
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + 1.0
            self._look(running)
        self._line.update(self._share, self._text)

    def _look(self, running: Sequence[str]) -> None:
        pace = self._took / self._expected if self._expected else 1.0
        whole = done = left = 0.0
        shown = []
        for member in self._plan.members:
            weight = member.seconds or 1.0
            share = 1.0 if member.name in self._ended else 0.0
            if member.name in running:
                found = progress(self._folder / member.name, member)
                share = found["share"]
                loss = "" if found.get("loss") is None else f"  loss {found['loss']:.3f}"
                speed = found.get("tokens_per_second")
                shown.append(
                    f"{member.name} {share:.0%}{loss}" + (f"  {short(speed)} tok/s" if speed else "")
                )
            whole, done, left = whole + weight, done + weight * share, left + weight * (1 - share)
        self._share = done / whole if whole else 1.0
        number = min(len(self._plan), len(self._ended) + 1)
        known = all(member.seconds is not None for member in self._plan.members)
        time_left = f"{clock(left * pace / self._jobs)} left  " if known else ""
        self._text = f"member {number} of {len(self._plan)}  {time_left}{'  '.join(shown)}"

    def stopping(self, again: bool) -> None:
        """A signal came."""
        self._line.say(
            "Stopping at once."
            if again
            else "Stopping: the running members are saved. Again to quit at once."
        )

    def close(self) -> None:
        """Remove the line."""
        self._line.close()

"""Members on this machine, in worker processes that are fed names and replaced when they die."""

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from training.signals import GENTLE
from training.sweep import folder as names
from training.sweep import status
from training.sweep.launchers.options import LauncherOptions
from training.sweep.overview import Overview
from training.sweep.plan import Plan
from workbench.errors import RunError
from workbench.runs.folder import CONFIG

_PATIENCE = 0.5
"""Seconds within which a second signal is the first one, delivered again."""


@dataclasses.dataclass
class Launched:
    """How a call of `launch` ended; names of members in each list."""

    done: list[str] = dataclasses.field(default_factory=list)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    """With the reason."""
    stopped: list[str] = dataclasses.field(default_factory=list)
    elsewhere: list[str] = dataclasses.field(default_factory=list)
    """Another process was at work on them."""
    waiting: list[str] = dataclasses.field(default_factory=list)
    """Not begun, because the disk is full."""
    signal: int | None = None
    """The signal that ended the call."""


class Worker:
    """One worker process and the member that it trains, if any."""

    def __init__(self, folder: Path, number: int, threads: int) -> None:
        reading, writing = os.pipe()
        log = folder / names.LOGS / f"worker-{number}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        limits = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        with open(log, "ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "training.sweep.worker", str(folder), str(writing)],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                pass_fds=(writing,),
                start_new_session=True,  # Ctrl-C reaches us alone; we pass it on, once
                env=os.environ | limits | _gpu(number),
            )
        os.close(writing)
        self.log, self.number, self.reading = log, number, reading
        self.member: str | None = None
        self.begun = False
        self._rest = b""

    def send(self, member: str) -> None:
        """Give it a member."""
        self.member, self.begun = member, False
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; its end of the other pipe says so
            self.process.stdin.write(f"{member}\n".encode())
            self.process.stdin.flush()

    def messages(self) -> tuple[list[dict[str, Any]], bool]:
        """What it said since the last call, and whether it is gone."""
        data = os.read(self.reading, 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines], not data

    def close(self) -> None:
        """Let it leave: at once if it is idle, else when it has saved."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def reap(self) -> int:
        """Its exit code; waits for it."""
        self.close()
        code = self.process.wait()
        os.close(self.reading)
        return code


class Launcher:
    """Feeds members to workers until none is left; see `launch`."""

    def __init__(self, folder: Path, plan: Plan, jobs: int, overview: Overview) -> None:
        self.folder, self.plan, self.overview = folder, plan, overview
        self.jobs = max(1, min(jobs, len(plan)))
        self.threads = max(1, cores() // self.jobs)
        self.queue: deque[str] = deque()
        self.workers: list[Worker] = []
        self.ended = Launched()
        self.selector = selectors.DefaultSelector()
        self._started = self._stillborn = 0
        self._since = 0.0

    def run(self) -> Launched:
        """Run everything that is missing."""
        for member in self.plan.members:
            state = status.raw_status(self.folder, member.name).get("state")
            if state == "done" and (self.folder / member.name / CONFIG).exists():
                self.ended.done.append(member.name)
            else:
                self.queue.append(member.name)
        self.overview.begin(self.ended.done)
        with self._signals():
            try:
                while self._feed():
                    for key, _ in self.selector.select(0.25):
                        self._hear(key.data)
                    self.overview.draw([worker.member for worker in self.workers if worker.member])
            finally:
                for worker in list(self.workers):
                    self._remove(worker)
                self.overview.close()
        return self.ended

    def _feed(self) -> bool:
        """Give every idle worker a member; whether there is still something to wait for."""
        if self.ended.signal is not None:
            self.queue.clear()
        for worker in self.workers:
            if worker.member is None and self.queue:
                worker.send(self.queue.popleft())
        while self.queue and len(self.workers) < self.jobs:
            worker = Worker(self.folder, self._started, self.threads)
            self._started += 1
            self.workers.append(worker)
            self.selector.register(worker.reading, selectors.EVENT_READ, worker)
            worker.send(self.queue.popleft())
        return any(worker.member for worker in self.workers)

    def _hear(self, worker: Worker) -> None:
        messages, gone = worker.messages()
        for message in messages:
            if "start" in message:
                worker.begun, self._stillborn = True, 0
                self.overview.start(message["start"])
            if "end" in message:
                self._end(message["end"], message["state"], message.get("error"))
                worker.member = None
        if gone:
            member = worker.member
            code = self._remove(worker)
            if member is not None:
                self._died(worker, member, code)

    def _end(self, member: str, state: str, error: str | None) -> None:
        if state == "done":
            self.ended.done.append(member)
        elif state == "failed":
            self.ended.failed[member] = error or "unknown"
            if "disk is full" in self.ended.failed[member]:  # the others would only fail as well
                self.ended.waiting = list(self.queue)
                self.queue.clear()
        elif state == "taken":
            self.ended.elsewhere.append(member)
        else:
            self.ended.stopped.append(member)
        self.overview.end(member, state, error)

    def _died(self, worker: Worker, member: str, code: int) -> None:
        """A worker ended with a member in its hands."""
        if self.ended.signal is not None:
            self._end(member, "stopped", None)
            return
        if not worker.begun:  # it never came to it: another worker will
            self._stillborn += 1
            self.queue.appendleft(member)
            if self._stillborn >= 3:
                raise RunError(f"no worker process starts (exit code {code}); the reason is in {worker.log}.")
            return
        why = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            why = "killed (signal 9): the machine's memory may have been too small"
        error = f"the process that trained it was {why}; what it had saved is kept"
        with contextlib.suppress(OSError):
            status.update_status(self.folder, member, state="failed", error=error, ended=time.time())
        self._end(member, "failed", error)

    def _remove(self, worker: Worker) -> int:
        self.workers.remove(worker)
        self.selector.unregister(worker.reading)
        return worker.reap()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._stop) for number in GENTLE}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Pass the signal on: the members save. A second one a while later makes them quit at once."""
        again = self.ended.signal is not None
        if again and time.monotonic() - self._since < _PATIENCE:
            return
        self.ended.signal, self._since = number, time.monotonic()
        self.overview.stopping(again)
        for worker in self.workers:
            if worker.member is not None and worker.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.send_signal(signal.SIGINT if again else number)


def launch(folder: Path, plan: Plan, options: LauncherOptions, quiet: bool = False) -> Launched:
    """Run what is missing of a sweep here, `options.jobs` members side by side; the cores are divided.

    A member that fails, or whose process is killed, is noted and the others go on. Signals save the running
    members and end the call. Several calls on one folder share the work.

    Args:
        folder: the sweep folder.
        plan: its plan.
        options: `jobs` is used.
        quiet: no progress line.

    Raises:
        RunError: worker processes do not start.
    """
    jobs = options.jobs or 1
    overview = Overview(Path(folder), plan, jobs, quiet)
    return Launcher(Path(folder), plan, jobs, overview).run()


def _gpu(number: int) -> dict[str, str]:
    """With several GPUs, workers take them in turn."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = named.split(",") if named else []
    if named is None:
        with contextlib.suppress(OSError):
            there = [str(index) for index, _ in enumerate(os.listdir("/proc/driver/nvidia/gpus"))]
    return {"CUDA_VISIBLE_DEVICES": there[number % len(there)]} if len(there) > 1 else {}


def cores() -> int:
    """CPU cores that this process may use; `OMP_NUM_THREADS` if it is set."""
    wished = os.environ.get("OMP_NUM_THREADS", "")
    if wished.isdecimal() and int(wished):
        return int(wished)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

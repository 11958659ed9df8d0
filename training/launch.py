"""`--processes N`: the same command N times on this machine, joined into one training."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from workbench.errors import ConfigError

_PATIENCE = 60.0
"""Seconds that the others get to save and leave after one has ended in an error."""


def run_processes(count: int, command: Sequence[str]) -> int:
    """Run `python -m MODULE ...` in `count` processes that find each other as torchrun's do.

    A signal that asks for saving is passed on to all. When one ends in an error, the others are ended.

    Args:
        count: processes; each takes an equal share of every batch.
        command: what follows `python`.

    Returns:
        The first process's exit code, or that of the first one that failed.

    Raises:
        ConfigError: fewer than two processes, or this is one of a group already.
    """
    if count < 2:
        raise ConfigError(f"--processes is 2 or more; found {count}. Leave it out to train in one process.")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(
            "this process belongs to a group already (WORLD_SIZE is set); leave out --processes."
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if sys.platform == "linux":
        common.setdefault("GLOO_SOCKET_IFNAME", os.environ.get("GLOO_SOCKET_IFNAME", "lo"))
    children = [
        subprocess.Popen(
            [sys.executable, *command], env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(count)
    ]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    # The terminal sends Ctrl-C to every process of the group by itself.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        return _wait(children)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(children: list[subprocess.Popen]) -> int:
    """Wait for all; after the first error end the others."""
    failed: int | None = None
    until = float("inf")
    while any(child.poll() is None for child in children) and time.monotonic() < until:
        codes = [child.poll() for child in children]
        wrong = next((code for code in codes if code), None)
        if wrong is not None and failed is None:
            failed, until = wrong, time.monotonic() + _PATIENCE
            for child in children:
                if child.poll() is None and wrong < 128:  # 128 and more: a signal that all of them got
                    child.terminate()
        time.sleep(0.05)
    return failed if failed is not None else int(children[0].returncode or 0)

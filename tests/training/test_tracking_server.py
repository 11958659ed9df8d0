"""wandb's own client against a server on loopback: several calls of `resume` are one run there."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_wandb_server import serving
from killing import until
from small_runs import small, stop_after

from training.session import resume, train

pytest.importorskip("wandb")

KEY = "a" * 40
LONG = ("train.steps=120", "track.wandb=true", "track.project=p", "track.name=n", "track.group=g")


@pytest.fixture
def server(monkeypatch):
    with serving() as state:
        monkeypatch.setenv("WANDB_BASE_URL", state.url)
        monkeypatch.delenv("WANDB_API_KEY", raising=False)
        monkeypatch.delenv("WANDB_MODE", raising=False)
        yield state


def environment(**more):
    """Of a process of its own: without the address of this one's wandb."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("WANDB_SERVICE")}
    path = os.pathsep.join([str(Path(__file__).parents[1]), kept.get("PYTHONPATH", "")])
    return {**kept, "PYTHONPATH": path, **more}


def blocked(patch):
    """No connection but to this machine's own processes; returns what was tried."""
    tried, connect = [], socket.socket.connect

    def guarded(self, address):
        if self.family != socket.AF_UNIX:
            tried.append(address)
            raise OSError("blocked")
        return connect(self, address)

    def look_up(*args, **_):
        tried.append(args)
        raise OSError("blocked")

    patch.setattr(socket.socket, "connect", guarded)
    patch.setattr(socket, "getaddrinfo", look_up)
    return tried


def killed(out, step, number):
    """Train in a process of its own, from a fresh interpreter, until metrics.jsonl reaches `step`; then signal."""
    code = "import small_runs, sys; small_runs.child_train(small_runs.small(*sys.argv[2:]), sys.argv[1])"
    child = subprocess.Popen([sys.executable, "-c", code, str(out), *LONG], env=environment())
    until(
        lambda: (out / "metrics.jsonl").exists() and f'"step": {step},' in (out / "metrics.jsonl").read_text()
    )
    child.send_signal(number)
    child.wait(60)


def resumed(out):
    code = "import small_runs, sys; small_runs.child_resume(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(out)], env=environment(), timeout=120)


def losses(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if row["kind"] == "train"]


def arrived(server):
    """The one run's losses, in the order in which the server has them."""
    ((name, history),) = server.histories.items()
    steps = [row["_step"] for row in history]
    assert steps == sorted(set(steps)), "each step once, in order"
    assert all(row["step"] == row["_step"] for row in history)
    assert (server.runs[name]["displayName"], server.runs[name]["groupName"]) == ("n", "g")
    return [(row["step"], row["train/loss"]) for row in history if "train/loss" in row]


def synchronise(out):
    wandb = Path(sys.executable).with_name("wandb")
    done = subprocess.run(
        [wandb, "sync", str(out / "wandb")],
        env=environment(WANDB_API_KEY=KEY), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_offline_directories_are_synchronised_into_one_run(server, tmp_path, monkeypatch):
    """With sockets blocked, training and resume end, and try no connection; later all goes to one run."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        tried = blocked(patch)
        stop_after(patch, 30)
        assert not train(small(*LONG), out, quiet=True).finished
        time.sleep(1.0)  # wandb names its directories by the second
        assert resume(out, quiet=True).finished
    assert (tried, server.requests) == ([], [])
    assert len(list((out / "wandb").glob("offline-run-*"))) == 2
    synchronise(out)
    assert arrived(server) == losses(out)


@pytest.mark.torture
@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_is_one_run_there(number, mode, server, tmp_path, monkeypatch, trials):
    with trials(9, "stopped runs are one run of wandb").one():
        if mode == "online":
            monkeypatch.setenv("WANDB_API_KEY", KEY)
            monkeypatch.setenv("WANDB_MODE", "online")
        out = tmp_path / "run"
        killed(out, 60, number)
        resumed(out)
        if mode == "offline":
            assert server.requests == []
            synchronise(out)
        assert arrived(server) == losses(out)

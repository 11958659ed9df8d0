"""Several processes train the model that one would: same losses for the same global batch, one writer, one exit."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from small_runs import children, digests, masked, small

from training.distributed import from_environment, shares
from workbench.errors import ConfigError
from workbench.runs.checkpoint import checkpoint_steps
from workbench.runs.folder import write_config
from workbench.runs.run import load


def joined(rank, world, port, double, said, work, *arguments):
    """Target of a child process: one of a group; what it says goes to the file `said`."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    from training import session
    from training.command import report
    from training.terminal import guarded

    if double:
        build = session._build
        session._build = lambda *args: build(*args).double()
    os._exit(guarded(lambda: report(getattr(session, work)(*arguments, quiet=True))))


def start(world, work, *arguments, double=False, said=os.devnull):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = [
        children().Process(target=joined, args=(rank, world, port, double, str(said), work, *arguments))
        for rank in range(world)
    ]
    for child in made:
        child.start()
    return made


def codes(made, seconds=90):
    for child in made:
        child.join(seconds)
    return [child.exitcode for child in made]


def rows(run, kind="train"):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["kind"] == kind]


TWELVE = ("train.steps=12", "train.log_every=1")
SHAPES = {
    "rows of one batch": small("train.batch_size=4", *TWELVE),
    "whole batches": small("train.accumulate=4", *TWELVE),
    "pieces of batches": small("train.batch_size=4", "train.accumulate=3", *TWELVE),
    "unequal scored tokens": masked("train.batch_size=4", *TWELVE),
    "stories apart": small("train.batch_size=4", "data.cross_story=false", *TWELVE),
}


@pytest.mark.parametrize("name", SHAPES)
def test_one_two_and_four_processes_have_the_same_losses(name, tmp_path):
    """In float64, where the order of sums does not grow into a difference that hides a mistake."""
    worlds = (1, 2, 4) if name == "rows of one batch" else (1, 2)
    for world in worlds:
        made = start(world, "train", SHAPES[name], tmp_path / str(world), double=True)
        assert codes(made) == [0] * world
    for world in worlds[1:]:
        for kind in ("train", "eval"):
            one, many = rows(tmp_path / "1", kind), rows(tmp_path / str(world), kind)
            assert [row["step"] for row in one] == [row["step"] for row in many]
            for key in ("loss",) if kind == "eval" else ("loss", "grad_norm", "lr"):
                # Sums in float64 in another order; clipping divides by the norm in float32.
                assert [row[key] for row in many] == pytest.approx([row[key] for row in one], rel=1e-7)
        assert rows(tmp_path / str(world))[-1]["tokens_seen"] == rows(tmp_path / "1")[-1]["tokens_seen"]


def test_a_group_that_was_stopped_and_killed_ends_as_one_that_was_not(tmp_path):
    chosen = small("train.batch_size=4", "train.steps=150", "train.checkpoint_every=25")
    assert codes(start(2, "train", chosen, tmp_path / "whole")) == [0, 0]
    run = tmp_path / "run"
    made = start(2, "train", chosen, run)
    while not checkpoint_steps(run):
        time.sleep(0.01)
    os.kill(made[1].pid, signal.SIGTERM)  # one is asked; both leave at the same step, and it is saved
    assert codes(made) == [128, 128 + signal.SIGTERM]
    stopped = load(run).step
    made = start(2, "resume", run)
    while checkpoint_steps(run)[-1] <= stopped and made[0].is_alive():
        time.sleep(0.01)
    for child in made:
        child.kill()
    codes(made)
    assert codes(start(2, "resume", run)) == [0, 0]
    assert digests(run) == digests(tmp_path / "whole")


def test_an_error_of_the_first_ends_all_with_one_line(tmp_path):
    chosen = small("train.batch_size=4", "data.source=/nowhere/at/all")
    assert codes(start(2, "train", chosen, tmp_path / "fresh", said=tmp_path / "said")) == [2, 2]
    said = (tmp_path / "said").read_text()
    assert said.startswith("Error: /nowhere/at/all does not exist.")
    assert said.count("\n") == 1
    assert not (tmp_path / "fresh").exists()


def test_windows_that_cannot_be_shared():
    with pytest.raises(ConfigError, match=r"3 processes cannot share the 8 windows .* train.batch_size=9"):
        shares(8, 1, 0, 3)


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "world"), [(8, 1, 4), (4, 3, 2), (2, 8, 4), (5, 2, 10), (3, 4, 6)]
)
def test_shares_cover_every_window_once(batch_size, accumulate, world):
    seen = [
        part * batch_size + row
        for rank in range(world)
        for part, rows in shares(batch_size, accumulate, rank, world)
        for row in range(batch_size)[rows]
    ]
    assert seen == list(range(batch_size * accumulate))


def test_half_an_environment(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="start them with torchrun, or with --processes"):
        from_environment()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert from_environment() is None


def test_the_command_starts_and_stops_its_processes(tmp_path):
    """`--processes 2`: TERM to the command alone saves and leaves; one error line, however many processes."""
    config = tmp_path / "config.yaml"
    write_config(tmp_path, small("train.batch_size=4", "train.steps=100000").to_dict())
    run = tmp_path / "run"
    words = [sys.executable, "-m", "training", str(config), "--out", str(run), "--quiet", "--processes"]
    child = subprocess.Popen([*words, "2"], stderr=subprocess.PIPE, text=True)
    while not any(checkpoint_steps(run)) and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 128 + signal.SIGTERM, said
    assert said.count("Saved at step") == 1
    assert load(run).step > 0
    refused = subprocess.run([*words, "3"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert refused.stderr.startswith("Error: 3 processes cannot share the 4 windows of a step")

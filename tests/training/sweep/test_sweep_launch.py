"""A sweep of worker processes: failures, kills, Ctrl-C, two calls at once; every member's bytes as if alone."""

import os
import random
import signal
import time

import pytest
from killing import until
from small_runs import digests
from sweeping import LONG, kill, running, start, wait_idle

from training.sweep.launchers.local import Launcher, launch
from training.sweep.launchers.options import LauncherOptions
from training.sweep.member import run_member
from training.sweep.overview import Overview
from training.sweep.plan import read_plan
from training.sweep.status import read_status

NAMES = ["d_mlp-16", "d_mlp-24", "d_mlp-32"]


@pytest.fixture
def long(planned):
    """A sweep of three members of some seconds, and what each must end in."""
    out, alone = (planned(name, grid={"model.d_mlp": [16, 24, 32]}, **LONG) for name in ("sweep", "alone"))
    for name in NAMES:
        run_member(alone, name, quiet=True)
    return out, {name: digests(alone / name) for name in NAMES}


def test_one_that_fails_and_one_that_is_killed_do_not_stop_the_others(planned, capsys):
    entries = [
        {"name": "first", "budget": {"tokens": 320}},
        {"name": "broken", "data.source": "nowhere.txt"},
        {"name": "victim", "budget": {"tokens": 32 * 100_000}},
        {"name": "last", "budget": {"tokens": 320}, "model.d_mlp": 8},
    ]
    out = planned(members=entries, budget={"tokens": 640})
    import threading

    def killer():
        until(lambda: any(one.name == "victim" for one in running(out)), 120)
        kill(next(one.pid for one in read_status(out) if one.name == "victim"))

    thread = threading.Thread(target=killer)
    thread.start()
    ended = launch(out, read_plan(out), LauncherOptions(), quiet=True)
    thread.join()
    assert (ended.done, ended.signal) == (["first", "last"], None)
    assert "nowhere.txt does not exist" in ended.failed["broken"]
    assert "killed (signal 9): the machine's memory may have been too small" in ended.failed["victim"]
    found = {one.name: one for one in read_status(out)}
    assert [found[name].state for name in ("first", "broken", "victim", "last")] == [
        "done",
        "failed",
        "failed",
        "done",
    ]
    said = capsys.readouterr().err
    assert "[2/4] broken  failed: nowhere.txt does not exist" in said
    assert "[4/4] last  done  loss" in said
    assert "Error: nowhere.txt does not exist" in (out / "logs" / "broken.log").read_text()


def test_kill_of_the_whole_ctrl_c_and_two_at_once_end_in_the_same_bytes(long):
    out, expected = long
    first = start(out)
    until(lambda: running(out), 60)
    os.kill(first.pid, signal.SIGKILL)  # its worker notices, saves and leaves
    first.join()
    wait_idle(out, NAMES)
    assert {one.state for one in read_status(out)} <= {"stopped", "waiting", "done"}
    second = start(out)
    until(lambda: running(out), 60)
    os.kill(second.pid, signal.SIGINT)
    second.join(60)
    assert second.exitcode == 128 + signal.SIGINT
    wait_idle(out, NAMES)
    both = [start(out), start(out)]
    for child in both:
        child.join(120)
    assert [child.exitcode for child in both] == [0, 0]
    assert {name: digests(out / name) for name in NAMES} == expected
    for name in NAMES:
        log = (out / "logs" / f"{name}.log").read_text()
        assert log.count("step 200  validation loss") == 1  # nobody trained it twice


def test_workers_that_cannot_start_are_told_of(planned, monkeypatch):
    from workbench.errors import RunError

    out = planned(budget={"tokens": 64})
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(
        RunError, match=r"no worker process starts \(exit code 1\); the reason is in .*worker-2.log"
    ):
        launch(out, read_plan(out), LauncherOptions(), quiet=True)


def test_a_full_disk_ends_the_sweep_and_leaves_the_rest_waiting(planned):
    out = planned(grid={"model.d_mlp": [16, 24, 32]}, budget={"tokens": 64})
    plan = read_plan(out)
    launcher = Launcher(out, plan, 1, Overview(out, plan, 1, quiet=True))
    launcher.queue.extend(NAMES[1:])
    launcher._end(NAMES[0], "failed", "checkpoint x could not be written: the disk is full; free some space.")
    assert (launcher.ended.waiting, list(launcher.queue)) == (NAMES[1:], [])
    launcher.queue.append(NAMES[1])
    launcher._end(NAMES[2], "failed", "another reason")
    assert list(launcher.queue) == [NAMES[1]]


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(6))
def test_killed_anywhere_any_number_of_times(seed, long):
    """Launcher or worker, KILL, TERM or INT, one worker or two, at random moments."""
    out, expected = long
    dice, tried = random.Random(seed), 0
    while tried < 12:
        child = start(out, jobs=dice.choice((1, 2)))
        time.sleep(dice.uniform(0, 12))
        victims = [child.pid, *(one.pid for one in read_status(out) if one.state == "running" and one.pid)]
        kill(dice.choice(victims), dice.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
        if dice.random() < 0.5:
            kill(child.pid)
        child.join(120)
        wait_idle(out, NAMES)
        tried += 1
        if all(one.state == "done" for one in read_status(out)):
            break
    last = start(out)
    last.join(300)
    assert last.exitcode == 0
    assert {name: digests(out / name) for name in NAMES} == expected
    print(f"tried {tried}, survived {tried}, lost 0")

"""kill -9 and signals at random moments, two trainings at once."""

import os
import random
import signal
import time

import pytest
from killing import STEPS, finish, kill_and_resume, until
from small_runs import child_train, children, digests, small

from training.session import resume, train
from workbench.errors import RunError
from workbench.io import is_locked, locked
from workbench.runs.checkpoint import checkpoint_steps
from workbench.runs.run import load


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run that all others must equal."""
    out = tmp_path_factory.mktemp("whole") / "run"
    child = children().Process(target=child_train, args=(small(*STEPS), str(out)))
    child.start()
    child.join()
    assert child.exitcode == 0
    return digests(out)


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_moments(seed, whole, tmp_path):
    dice = random.Random(seed)
    out = tmp_path / "run"
    codes = kill_and_resume(out, [dice.uniform(0, 0.25) for _ in range(6)])
    assert codes.count(-signal.SIGKILL) >= 4
    finish(out)
    assert digests(out) == whole
    assert not [path for path in (out / "checkpoints").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_signals_save_and_leave(number, whole, tmp_path):
    dice = random.Random(int(number))
    out = tmp_path / "run"
    codes = kill_and_resume(out, [0.0, *(dice.uniform(0, 0.3) for _ in range(4))], number)
    assert set(codes) <= {0, 128 + number}
    assert codes[0] == 128 + number
    finish(out)
    assert digests(out) == whole


def test_a_signal_before_the_run_exists_leaves_nothing(tmp_path, monkeypatch, capsys):
    import training.session
    from training.command import report
    from training.terminal import guarded

    monkeypatch.setattr(training.session, "prepare", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    code = guarded(lambda: report(train(small(), tmp_path / "run", quiet=True)))
    assert code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_second_ctrl_c_quits_at_once(tmp_path, monkeypatch, capsys):
    from training.loop import Trainer
    from training.signals import Stopped

    def twice(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.6)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    monkeypatch.setattr(Trainer, "_update", twice)
    with pytest.raises(Stopped):
        train(small(), tmp_path / "run", quiet=True)
    assert "Ctrl-C again quits at once" in capsys.readouterr().err
    assert checkpoint_steps(tmp_path / "run") == [0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_between_processes_of_a_wrapper_counts_once(tmp_path, monkeypatch):
    from training.loop import Trainer

    update = Trainer._update

    def twice(self):
        update(self)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "_update", twice)
    outcome = train(small(), tmp_path / "run", quiet=True)
    assert (outcome.finished, outcome.step, outcome.signal) == (False, 1, signal.SIGINT)


def test_a_second_training_in_the_same_folder_is_refused(tmp_path):
    out = tmp_path / "run"
    train(small("train.steps=3"), out, quiet=True)
    with locked(out):
        with pytest.raises(RunError, match=rf"is being trained by process {os.getpid()}; wait for it"):
            resume(out, steps=3, quiet=True)
        assert is_locked(out)
    assert not is_locked(out)


def test_the_lock_of_a_killed_process_does_not_stay(tmp_path):
    out = tmp_path / "run"
    child = children().Process(target=child_train, args=(small("train.steps=100000"), str(out)))
    child.start()
    until(lambda: checkpoint_steps(out)[-1:] and checkpoint_steps(out)[-1] >= 4)
    assert is_locked(out)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not is_locked(out)
    assert resume(out, steps=2, quiet=True).finished


def test_two_trainings_that_begin_at_once(tmp_path):
    out = tmp_path / "run"
    pair = [children().Process(target=child_train, args=(small("train.steps=4"), str(out))) for _ in range(2)]
    for child in pair:
        child.start()
    for child in pair:
        child.join()
    assert sorted(child.exitcode for child in pair) == [0, 2]
    assert load(out).step == 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

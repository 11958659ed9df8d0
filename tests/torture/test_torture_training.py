"""Long destructive runs: kills, signals and chains of resumes (`make torture`)."""

import random
import signal

import pytest
from killing import STEPS, finish, kill_and_resume
from small_runs import child_train, children, digests, small

pytestmark = pytest.mark.torture


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run that all others must equal."""
    out = tmp_path_factory.mktemp("whole") / "run"
    child = children().Process(target=child_train, args=(small(*STEPS), str(out)))
    child.start()
    child.join()
    assert child.exitcode == 0
    return digests(out)


@pytest.mark.parametrize("seed", range(100, 140))
def test_two_hundred_kills(seed, whole, tmp_path):
    dice = random.Random(seed)
    out = tmp_path / "run"
    codes = kill_and_resume(out, [dice.uniform(0, 0.25) for _ in range(6)])
    assert codes.count(-signal.SIGKILL) >= 4
    finish(out)
    assert digests(out) == whole


@pytest.mark.parametrize("seed", range(200, 234))
def test_a_hundred_signals(seed, whole, tmp_path):
    dice = random.Random(seed)
    number = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)[seed % 3]
    out = tmp_path / "run"
    codes = kill_and_resume(out, [dice.uniform(0, 0.3) for _ in range(4)], number)
    assert set(codes) <= {0, 128 + number}
    finish(out)
    assert digests(out) == whole

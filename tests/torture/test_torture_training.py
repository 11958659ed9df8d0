"""Long destructive runs: kills, signals and chains of resumes (`make torture`).

Each trial must end in the bytes of the run that nothing happened to. `VARIANTS` of small_runs.py are put through
all of it: a new way to train is one line there.
"""

import random
import signal

import pytest
from killing import STEPS, finish, kill_and_resume, whole_run
from small_runs import VARIANTS, masked, small, stop_after, trained_digests

from training.session import resume, train

pytestmark = pytest.mark.torture

KILLED = {
    "clm": small(*STEPS),
    "mlm, accumulated": masked(*STEPS, "train.accumulate=2"),
    "dropout, bf16": small(*STEPS, "model.dropout=0.2", "train.dtype=bfloat16"),
    "stories apart": small(*STEPS, "data.cross_story=false", "train.keep_optimizer=1"),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted runs that all others must equal, each trained once."""
    found = {}

    def make(name, settings):
        if name not in found:
            found[name] = whole_run(tmp_path_factory.mktemp("whole") / "run", settings)
        return found[name]

    return make


@pytest.mark.parametrize("seed", range(100, 150))
def test_two_hundred_kills(seed, whole, tmp_path, trials):
    dice, out = random.Random(seed), tmp_path / "run"
    name = list(KILLED)[seed % len(KILLED)]
    settings = KILLED[name]
    kills = trials(1, "kill -9 at random moments")
    for _ in range(4):
        with kills.one():
            codes = kill_and_resume(out, [dice.uniform(0, 0.25)], settings=settings)
            if codes == [0]:  # it was done before: not a kill
                kills.add(-1, -1)
    finish(out)
    assert trained_digests(out) == whole(name, settings)
    assert not list(out.rglob("*.tmp"))


@pytest.mark.parametrize("seed", range(200, 234))
def test_a_hundred_signals(seed, whole, tmp_path, trials):
    dice, out = random.Random(seed), tmp_path / "run"
    number = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)[seed % 3]
    name = list(KILLED)[seed % len(KILLED)]
    settings = KILLED[name]
    signals = trials(7, "TERM, USR2, INT at random moments")
    for _ in range(3):
        with signals.one():
            (code,) = kill_and_resume(out, [dice.uniform(0, 0.3)], number, settings)
            assert code in (0, 128 + number)
    finish(out)
    assert trained_digests(out) == whole(name, settings)


@pytest.mark.parametrize("seed", range(25))
def test_chains_of_five_resumes(seed, tmp_path, monkeypatch, trials, unchecked):
    name = list(VARIANTS)[seed % len(VARIANTS)]
    settings = VARIANTS[name]
    train(settings, tmp_path / "whole", quiet=True)
    stops = sorted(random.Random(seed).sample(range(1, 40), 5))
    with trials(3, "chains of 5 resumes end in the same bytes").one():
        stop_after(monkeypatch, *stops)
        outcome, calls = train(settings, tmp_path / "broken", quiet=True), 0
        while not outcome.finished:
            outcome, calls = resume(tmp_path / "broken", quiet=True), calls + 1
        assert calls == 5
        assert trained_digests(tmp_path / "broken") == trained_digests(tmp_path / "whole")

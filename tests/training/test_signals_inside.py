"""A signal in the middle of a batch, an evaluation, a sample, a save: out within a step and a save, resume exact."""

import json
import os
import signal
from pathlib import Path

import pytest
from killing import check_whole, finish, run_child, whole_run
from small_runs import child_resume, child_train, small, trained_digests

SETTINGS = small("train.steps=24")
PLACES = {
    # where: (module, class or None, function, at which of its calls)
    "first batch": ("training.updater", "Updater", "_gradient", 1),
    "a batch": ("training.updater", "Updater", "_gradient", 14),
    "an update": ("training.optimizers.base", "FlatOptimizer", "step", 9),
    "first evaluation": ("training.evaluate", None, "_score", 1),
    "an evaluation": ("training.evaluate", None, "_score", 4),
    "last evaluation": ("training.evaluate", None, "_score", 11),
    "a sample": ("training.loop", None, "sample", 2),
    "first save": ("workbench.runs.checkpoint", None, "_tensor_bytes", 1),
    "a save": ("workbench.runs.checkpoint", None, "_tensor_bytes", 10),
    "its rename": ("workbench.io", None, "_put_in_place", 6),
    "last save": ("workbench.runs.checkpoint", None, "_tensor_bytes", 13),
    "thinning out": ("training.thinning", None, "drop_optimizer", 2),
    "a row": ("training.tracking", "Record", "write", 5),
    "the card": ("training.session", None, "write_card", 1),
    "building the model": ("training.session", None, "use_threads", 1),
    "packing": ("training.session", None, "prepare", 1),
}


def child_signalled(settings, out, place, number, counter):
    """Train or resume, with a signal to oneself in that place; counts the updates and saves begun after it."""
    from importlib import import_module

    import training.loop
    from training.loop import Trainer

    module, owner, name, at = place
    owner = getattr(import_module(module), owner) if owner else import_module(module)
    calls = {"calls": 0, "updates": 0, "saves": 0}

    def counted(holder, attribute, key):
        original = getattr(holder, attribute)

        def call(*args, **kwargs):
            calls[key] += calls["calls"] >= at
            return original(*args, **kwargs)

        setattr(holder, attribute, call)

    counted(Trainer, "_update", "updates")
    counted(training.loop, "save_checkpoint", "saves")
    original = getattr(owner, name)

    def call(*args, **kwargs):
        calls["calls"] += 1
        if calls["calls"] == at:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    setattr(owner, name, call)
    leave = os._exit

    def told(code):
        Path(counter).write_text(json.dumps(calls))
        leave(code)

    os._exit = told
    child_resume(out) if Path(out).exists() else child_train(settings, out)


def signalled(place, number, whole, tmp_path, settings=SETTINGS):
    """One signal in one place."""
    out, counter = tmp_path / "run", tmp_path / "calls"
    code = run_child(child_signalled, settings, str(out), PLACES[place], number, str(counter))
    calls = json.loads(counter.read_text())
    assert calls["calls"] >= PLACES[place][3], "the signal was sent"
    assert code == (
        0 if place in ("the card", "last save", "last evaluation") and code == 0 else 128 + number
    )
    assert calls["updates"] == 0, "no update begins after the signal"
    assert calls["saves"] <= 1
    if place in ("building the model", "packing"):
        assert not out.exists()
        assert run_child(child_train, settings, str(out)) == 0
    elif code:
        check_whole(out, settings)
        assert finish(out) == 0
    assert trained_digests(out) == whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run without a signal."""
    os.environ.setdefault("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    return whole_run(tmp_path_factory.mktemp("whole") / "run", SETTINGS)


@pytest.mark.parametrize("place", ["first batch", "an evaluation", "last evaluation", "a save", "packing"])
def test_a_signal_inside(place, whole, tmp_path):
    signalled(place, signal.SIGTERM, whole, tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP])
def test_each_signal_in_each_place(number, place, whole, tmp_path, trials):
    with trials(7, "each signal in each place, one step at most").one():
        signalled(place, number, whole, tmp_path)

"""Interrupted and resumed = uninterrupted; a repeated run = the run."""

import json

import pytest
import torch
from small_runs import VARIANTS, digests, small, stop_after, trained_digests

from training.loop import Trainer
from training.session import resume, train
from workbench.errors import RunError
from workbench.runs.checkpoint import read_optimizer
from workbench.runs.run import load


@pytest.mark.parametrize("variant", VARIANTS)
def test_interrupted_and_resumed_twice_is_uninterrupted(variant, tmp_path, monkeypatch):
    settings = VARIANTS[variant]
    assert train(settings, tmp_path / "whole", quiet=True).finished
    stop_after(monkeypatch, 11, 29)
    assert train(settings, tmp_path / "broken", quiet=True).step == 11
    assert resume(tmp_path / "broken", quiet=True).step == 29
    assert resume(tmp_path / "broken", quiet=True).finished
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")
    # The checkpoints of the interruptions are gone again, all others are there.
    assert load(tmp_path / "broken").checkpoints == load(tmp_path / "whole").checkpoints


def test_a_chain_of_five_resumes_leaves_the_same_files(tmp_path, monkeypatch):
    """Two interruptions in a row included: they must not cost a planned checkpoint its optimiser's state."""
    settings = small("model.dropout=0.2", "train.accumulate=2")
    train(settings, tmp_path / "whole", quiet=True)
    stop_after(monkeypatch, 3, 8, 13, 33, 34)
    outcome, calls = train(settings, tmp_path / "broken", quiet=True), 0
    while not outcome.finished:
        outcome, calls = resume(tmp_path / "broken", quiet=True), calls + 1
    assert calls == 5
    assert trained_digests(tmp_path / "broken") == trained_digests(tmp_path / "whole")


def test_a_kill_between_saving_and_thinning_out_is_made_good(tmp_path, monkeypatch):
    settings = small("train.steps=24")
    train(settings, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_thin_out", lambda self: exit(9) if self.step == 24 else None)
        with pytest.raises(SystemExit):
            train(settings, tmp_path / "broken", quiet=True)
    assert resume(tmp_path / "broken", quiet=True).finished
    assert trained_digests(tmp_path / "broken") == trained_digests(tmp_path / "whole")


def test_a_stop_between_the_last_evaluation_and_its_sample(tmp_path, monkeypatch):
    """A run without its last sample is not finished; it was once, and then lacked that row for ever."""
    settings = small("train.steps=12")
    train(settings, tmp_path / "whole", quiet=True)
    report = Trainer._report

    def signalled(self, found, last):
        report(self, found, last)
        if last:
            self.stopping = lambda: True

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_report", signalled)
        assert not train(settings, tmp_path / "broken", quiet=True).finished
    assert resume(tmp_path / "broken", quiet=True).finished
    assert trained_digests(tmp_path / "broken") == trained_digests(tmp_path / "whole")


def test_interrupted_at_every_step(tmp_path, monkeypatch):
    settings = small("train.steps=12")
    train(settings, tmp_path / "whole", quiet=True)
    stop_after(monkeypatch, *range(1, 12))
    outcome = train(settings, tmp_path / "broken", quiet=True)
    calls = 1
    while not outcome.finished:
        outcome = resume(tmp_path / "broken", quiet=True)
        calls += 1
    assert calls == 12
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")


@pytest.mark.parametrize("stops", [(2, 5), (2, 6)], ids=["on the way", "at the end"])
def test_a_stop_inside_the_evaluation_repeats_it(stops, tmp_path, monkeypatch):
    import training.loop

    settings = small()
    train(settings, tmp_path / "whole", quiet=True)
    evaluate, calls = training.loop.evaluate, []

    def stopped(*arguments, **options):
        calls.append(1)
        return None if len(calls) in stops else evaluate(*arguments, **options)

    monkeypatch.setattr(training.loop, "evaluate", stopped)
    original = Trainer._observe

    def observe(self):
        before = len(calls)
        original(self)
        if len(calls) > before and len(calls) in stops:
            self.stopping = lambda: True

    monkeypatch.setattr(Trainer, "_observe", observe)
    assert train(settings, tmp_path / "broken", quiet=True).step == 10
    outcome = resume(tmp_path / "broken", quiet=True)
    while not outcome.finished:
        outcome = resume(tmp_path / "broken", quiet=True)
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(small("train.steps=6", f"train.seed={seed}", f"model.seed={seed}"), tmp_path / name, quiet=True)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a")["model.safetensors"] != digests(tmp_path / "c")["model.safetensors"]


def test_what_was_saved_is_what_goes_on(tmp_path, monkeypatch):
    stop_after(monkeypatch, 7)
    train(small("train.dtype=bfloat16"), tmp_path / "run", quiet=True)
    kept = read_optimizer(tmp_path / "run/checkpoints/step-000007")
    weights = load(tmp_path / "run").model.state_dict()
    seen = {}
    restore = Trainer.restore

    def spy(self, state, tensors):
        restore(self, state, tensors)
        seen["optimizer"] = {name: tensor.clone() for name, tensor in self.optimizer.state().items()}
        seen["weights"] = {name: tensor.clone() for name, tensor in self.optimizer.weights().items()}

    monkeypatch.setattr(Trainer, "restore", spy)
    resume(tmp_path / "run", quiet=True)
    assert kept.keys() == seen["optimizer"].keys()
    assert all(torch.equal(kept[name], seen["optimizer"][name]) for name in kept)
    assert all(torch.equal(weights[name], tensor) for name, tensor in seen["weights"].items())
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())


def test_resume_for_longer(tmp_path):
    out = tmp_path / "run"
    train(small("train.steps=10"), out, quiet=True)
    with pytest.raises(RunError, match=r"is finished at step 10; .*workbench resume .*--minutes 5"):
        resume(out, quiet=True)
    assert resume(out, steps=6, quiet=True).step == 16
    assert resume(out, tokens=64, quiet=True).step == 18
    outcome = resume(out, minutes=0.005, quiet=True)
    assert outcome.finished
    assert outcome.step > 18
    finals = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in finals if row.get("final")] == [10, 16, 18, outcome.step]


def test_resume_for_longer_follows_the_longer_schedule(tmp_path):
    train(small("train.steps=10", "train.log_every=1"), tmp_path / "run", quiet=True)
    resume(tmp_path / "run", steps=10, quiet=True)
    train(small("train.steps=20", "train.log_every=1"), tmp_path / "long", quiet=True)
    rates = [load(tmp_path / name).metrics.query("kind == 'train'").lr.tolist() for name in ("run", "long")]
    assert rates[0][10:] == rates[1][10:]


def test_minutes_end_when_the_time_does(tmp_path):
    outcome = train(small("train.steps=null", "train.minutes=0.01"), tmp_path / "run", quiet=True)
    state = load(tmp_path / "run").checkpoint.state
    assert outcome.finished
    assert 0.6 <= state["seconds_trained"] < 1.5
    rates = load(tmp_path / "run").metrics.query("kind == 'train'").lr
    assert rates.iloc[-1] < 0.2 * rates.max()


def test_resume_refuses_other_data(tmp_path):
    out = tmp_path / "run"
    train(small("train.steps=2"), out, quiet=True)
    other = tmp_path / "other.txt"
    other.write_text(
        "One day a cat sat.<|endoftext|>" * 5 + "A dog ran far away.<|endoftext|>" * 3 + "Once.\n" * 40
    )
    with pytest.raises(RunError, match=r"is not the one that .* began with .* --data"):
        resume(out, steps=2, data=str(other), quiet=True)


def test_resume_wants_the_run_not_a_checkpoint(tmp_path):
    out = tmp_path / "run"
    train(small("train.steps=2"), out, quiet=True)
    with pytest.raises(RunError, match="from the last checkpoint; name the run alone"):
        resume(f"{out}@1", quiet=True)

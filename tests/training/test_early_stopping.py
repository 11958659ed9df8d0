"""A run with `train.patience`: when it ends, what it keeps, and that a crash anywhere changes nothing."""

import json
import math

import pytest
from small_runs import digests, small

import training.loop
import training.thinning
from training.loop import Trainer
from training.session import resume, train
from training.stopping import EarlyStopping
from training.tracking import Record
from workbench.errors import ConfigError, RunError
from workbench.runs.checkpoint import checkpoint_steps
from workbench.runs.run import load

# So large a rate that the loss soon stops falling.
PATIENT = (
    "train.patience=2", "train.eval_every=3", "train.lr=0.4", "train.steps=200", "train.warmup=0",
    "train.checkpoint_every=64",
)  # fmt: skip


def rows(run, *kinds):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["kind"] in kinds]


def evaluation(step, loss, final=False):
    return {"kind": "eval", "step": step, "loss": loss, "final": final}


def test_what_counts():
    early = EarlyStopping(2)
    for step, loss in enumerate((3.0, 2.0, 2.0)):
        early.see(evaluation(step, loss))
    assert (early.step, early.loss, early.stale, early.stopped) == (1, 2.0, 1, False)
    early.see(evaluation(3, 0.1, final=True))  # other tokens: does not count
    early.see({"kind": "train", "step": 3, "loss": 0.1})
    assert (early.step, early.stopped) == (1, False)
    early.see(evaluation(4, math.nan))
    assert early.stopped
    early.see({"kind": "extend", "step": 4})
    assert (early.step, early.stale, early.stopped) == (1, 0, False)
    assert not EarlyStopping(None, [evaluation(step, 1.0) for step in range(99)]).stopped


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run that ended early."""
    out = tmp_path_factory.mktemp("early") / "whole"
    assert train(small(*PATIENT), out, quiet=True).finished
    return out


def test_it_ends_early_and_says_why(whole):
    way = [row for row in rows(whole, "eval") if not row["final"]]
    (final,) = [row for row in rows(whole, "eval") if row["final"]]
    (stop,) = rows(whole, "stop")
    losses = [row["loss"] for row in way]
    best = way[losses.index(min(losses))]
    assert best["step"] == way[-3]["step"] < way[-1]["step"] == final["step"] == stop["step"] < 200
    assert stop == {
        "kind": "stop", "step": final["step"], "reason": "patience", "best_step": best["step"],
        "best_loss": best["loss"], "stale": 2,
    }  # fmt: skip
    assert final["tokens"] > way[-1]["tokens"]
    assert rows(whole, "train")[-1]["step"] == stop["step"]
    assert rows(whole, "best")[-1] == {"kind": "best", "step": best["step"], "loss": best["loss"]}


def test_the_best_checkpoint_is_kept_and_found_by_name(whole):
    best = rows(whole, "best")[-1]["step"]
    run = load(f"{whole}@best")
    assert run.step == best
    assert best & (best - 1), "a step that the spacing does not keep by itself"
    others = {row["step"] for row in rows(whole, "best")} - {best}
    kept = {step for step in checkpoint_steps(whole)[:-2] if step & (step - 1)}
    assert kept <= {best}, f"checkpoints of {others} were the best once, and are not any more"
    assert f"step {best}, loss" in (whole / "README.md").read_text()


def test_without_patience_no_checkpoint_is_the_best(tmp_path):
    train(small("train.steps=2"), tmp_path / "run", quiet=True)
    with pytest.raises(RunError, match=r"was not trained with train\.patience.*give a step"):
        load(f"{tmp_path / 'run'}@best")
    with pytest.raises(RunError, match=r"such as .*@512; found 'bets'. @best"):
        load(f"{tmp_path / 'run'}@bets")


def test_a_run_that_uses_its_limit_keeps_its_best_too(tmp_path):
    train(small("train.patience=50", "train.steps=13"), tmp_path / "run", quiet=True)
    (stop,) = rows(tmp_path / "run", "stop")
    assert (stop["reason"], stop["step"], stop["best_step"]) == ("limit", 13, 13)
    assert [(row["step"], row["final"]) for row in rows(tmp_path / "run", "eval")] == [
        (0, False), (10, False), (13, False), (13, True),
    ]  # fmt: skip
    assert load(f"{tmp_path / 'run'}@best").step == 13


class Crash(BaseException):
    """A kill, at a place of the test's choice."""


def crash_at(monkeypatch, moment: int):
    """Die just before or just after the n-th thing that reaches the disk."""
    count = 0

    def counted(original):
        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if count == moment:
                raise Crash
            result = original(*args, **kwargs)
            count += 1
            if count == moment:
                raise Crash
            return result

        return wrapped

    monkeypatch.setattr(Record, "write", counted(Record.write))
    for home, name in (
        (training.loop, "save_checkpoint"), (training.thinning, "delete_checkpoint"),
        (training.thinning, "drop_optimizer"),
    ):  # fmt: skip
        monkeypatch.setattr(home, name, counted(getattr(home, name)))
    return lambda: count


def test_a_crash_at_any_write_near_the_end_changes_nothing(whole, tmp_path, monkeypatch, unchecked):
    monkeypatch.setattr("os.fsync", lambda file: None)  # the process dies here, not the machine
    with monkeypatch.context() as patch:
        total = crash_at(patch, -1)
        train(small(*PATIENT), tmp_path / "counted", quiet=True)
        moments = total()
    assert digests(tmp_path / "counted") == digests(whole)
    for moment in [*range(moments - 36, moments + 1, 3)]:
        out = tmp_path / str(moment)
        with monkeypatch.context() as patch:
            crash_at(patch, moment)
            with pytest.raises(Crash):
                train(small(*PATIENT), out, quiet=True)
        steps = {row["step"] for row in rows(out, "best")}
        if steps:
            assert load(f"{out}@best").step == max(steps), "at any moment the best one is there"
        if moment < moments:
            assert resume(out, quiet=True).finished
        else:  # it crashed after its last word
            with pytest.raises(RunError, match="is finished at step"):
                resume(out, quiet=True)
        assert digests(out) == digests(whole), f"crashed at write {moment} of {moments}"
        assert load(f"{out}@best").step == load(f"{whole}@best").step


def test_stops_and_resumes_change_nothing(whole, tmp_path, monkeypatch):
    update, stops = Trainer._update, [7, 12, 13, 15, 20]

    def counted(self):
        update(self)
        if stops and self.step >= stops[0]:
            stops.pop(0)
            self.stopping = lambda: True

    monkeypatch.setattr(Trainer, "_update", counted)
    outcome = train(small(*PATIENT), tmp_path / "run", quiet=True)
    while not outcome.finished:
        outcome = resume(tmp_path / "run", quiet=True)
    assert digests(tmp_path / "run") == digests(whole)


def test_for_longer_it_gets_a_new_count(tmp_path):
    out = tmp_path / "run"
    step = train(small(*PATIENT), out, quiet=True).step
    with pytest.raises(RunError, match=f"is finished at step {step}; train it for longer"):
        resume(out, quiet=True)
    assert resume(out, steps=100, quiet=True).step >= step + 6, "two evaluations, three steps apart"
    assert [row["reason"] for row in rows(out, "stop")] == ["patience"] * 2
    longer = rows(out, "stop")[-1]["step"]
    assert resume(out, steps=5, quiet=True).step == longer + 5
    assert rows(out, "stop")[-1]["reason"] == "limit"


@pytest.mark.parametrize("value", [0, -1, "soon", 1.5])
def test_patience_is_a_whole_number(value):
    with pytest.raises(ConfigError, match=r"train\.patience"):
        small(f"train.patience={value}")

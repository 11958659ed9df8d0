"""One member: trained, gone on with, left alone when done; its state at every moment."""

import os
import signal

import pytest
from small_runs import digests

from training.memo import keeping, remembered
from training.session import train
from training.sweep import status
from training.sweep.__main__ import main
from training.sweep.estimate import checkpoints, disk, estimate
from training.sweep.folder import status_file
from training.sweep.member import run_member
from training.sweep.plan import read_plan
from training.sweep.status import TakenError, read_status
from workbench.errors import RunError, WorkbenchError
from workbench.runs.run import list_runs, load

GRID = {"grid": {"model.d_mlp": [16, 32]}, "budget": {"tokens": 640}}


def state(folder, name):
    return next(one for one in read_status(folder) if one.name == name)


def test_a_member_is_an_ordinary_run_and_is_left_alone_when_done(planned):
    out = planned(**GRID)
    assert [one.state for one in read_status(out)] == ["waiting", "waiting"]
    outcome = run_member(out, "d_mlp-16", quiet=True)
    assert (outcome.finished, outcome.step, outcome.signal) == (True, 20, None)
    found = state(out, "d_mlp-16")
    assert (found.state, found.step, found.share, found.attempt, found.error) == ("done", 20, 1.0, 1, None)
    assert found.loss == pytest.approx(list_runs(out)[0].loss)
    before = digests(out / "d_mlp-16"), status_file(out, "d_mlp-16").read_bytes()
    assert run_member(out, "d_mlp-16", quiet=True).finished
    assert (digests(out / "d_mlp-16"), status_file(out, "d_mlp-16").read_bytes()) == before
    assert [run.name for run in list_runs(out)] == ["d_mlp-16"]


def test_it_is_the_run_that_train_makes(planned, tmp_path):
    out = planned(**GRID)
    with keeping():  # as in a worker, where the second member finds corpus and shards opened
        for name in ("d_mlp-16", "d_mlp-32"):
            run_member(out, name, quiet=True)
    settings = read_plan(out).member("d_mlp-32").settings
    train(settings, tmp_path / "alone", quiet=True)
    assert digests(tmp_path / "alone") == digests(out / "d_mlp-32")


def test_all_members_have_one_tokenizer(planned):
    out = planned(grid={"data.n_stories": [60, 40]}, budget={"tokens": 64})
    for name in ("n_stories-40", "n_stories-60"):
        run_member(out, name, quiet=True)
    first, second = (
        (out / name / "tokenizer.json").read_bytes() for name in ("n_stories-60", "n_stories-40")
    )
    assert first == second == (out / "tokenizer.json").read_bytes()


def test_different_vocabularies_have_one_each(planned):
    out = planned(grid={"model.d_vocab": [280, 300]}, budget={"tokens": 64})
    for name in ("d_vocab-280", "d_vocab-300"):
        run_member(out, name, quiet=True)
    assert sorted(file.name for file in out.glob("tokenizer*")) == [
        "tokenizer-280.json",
        "tokenizer-300.json",
    ]
    assert [load(out / f"d_vocab-{n}").checkpoint.config.d_vocab for n in (280, 300)] == [280, 300]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_saves_and_the_next_call_goes_on_to_the_same_bytes(number, planned, monkeypatch):
    from training.loop import Trainer

    out, update = planned(**GRID), Trainer._update
    run_member(out, "d_mlp-32", quiet=True)

    def interrupted(self):
        update(self)
        if self.step == 7:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", interrupted)
        outcome = run_member(out, "d_mlp-16", quiet=True)
    assert (outcome.finished, outcome.step, outcome.signal) == (False, 7, number)
    assert state(out, "d_mlp-16").state == "stopped"
    run_member(out, "d_mlp-16", quiet=True)
    assert (state(out, "d_mlp-16").state, state(out, "d_mlp-16").attempt) == ("done", 2)
    other = planned("other", **GRID)
    run_member(other, "d_mlp-16", quiet=True)
    assert digests(out / "d_mlp-16") == digests(other / "d_mlp-16")


def test_a_failure_is_noted_and_tried_again(planned, monkeypatch):
    from training.loop import Trainer

    out, update = planned(**GRID), Trainer._update

    def broken(self):
        raise OSError(28, "No space left on device", "/disk/file")

    monkeypatch.setattr(Trainer, "_update", broken)
    with pytest.raises(RunError, match="the disk is full"):
        run_member(out, "d_mlp-16", quiet=True)
    found = state(out, "d_mlp-16")
    assert found.state == "failed"
    assert "stopped after step 0: the disk is full; its checkpoints are untouched." in found.error
    monkeypatch.setattr(Trainer, "_update", update)
    assert run_member(out, "d_mlp-16", quiet=True).finished
    assert (state(out, "d_mlp-16").state, state(out, "d_mlp-16").error) == ("done", None)


def test_bad_data_is_one_line_and_leaves_no_run(planned, capsys):
    out = planned(base={"data": {"source": "nowhere.txt"}}, budget={"tokens": 64}, grid={"model.d_mlp": [16]})
    assert main([str(out), "d_mlp-16", "--quiet"]) == 2
    assert "nowhere.txt does not exist" in capsys.readouterr().err
    assert state(out, "d_mlp-16").state == "failed"
    assert "nowhere.txt" in state(out, "d_mlp-16").error
    assert list_runs(out) == []


def test_the_command_of_a_cluster_job(planned, capsys, monkeypatch):
    out = planned(**GRID)
    assert main([str(out), "d_mlp-15"]) == 2
    assert "the sweep t has no member d_mlp-15. Did you mean 'd_mlp-16'?" in capsys.readouterr().err
    assert main([str(out), "d_mlp-16", "--quiet"]) == 0
    assert main([str(out / "d_mlp-16"), "x"]) == 2
    monkeypatch.setattr("training.sweep.member._train", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert main([str(out), "d_mlp-32", "--quiet"]) == 128 + signal.SIGTERM
    assert state(out, "d_mlp-32").state == "stopped"


def test_a_member_in_other_hands_is_refused(planned):
    out = planned(**GRID)
    with status.claimed(out, "d_mlp-16"):
        assert status.is_claimed(out, "d_mlp-16")
        with pytest.raises(TakenError, match=f"d_mlp-16 is being trained by process {os.getpid()}"):
            run_member(out, "d_mlp-16")
    assert not status.is_claimed(out, "d_mlp-16")


def test_running_without_a_process_means_killed(planned):
    out = planned(**GRID)
    status.begin(out, "d_mlp-16")
    assert state(out, "d_mlp-16").state == "stopped"
    assert "killed" in state(out, "d_mlp-16").error
    status.update_status(out, "d_mlp-16", host="another-machine")
    assert state(out, "d_mlp-16").state == "running"  # its locks cannot be seen from here
    status_file(out, "d_mlp-16").write_text("{")
    assert state(out, "d_mlp-16").state == "waiting"


def test_members_are_scored_where_the_file_says_so(planned):
    pairs = {"blimp": {"data": "embedded", "limit": 1}, "base": {"model": {"n_ctx": 64}}}
    out = planned(budget={"tokens": 256}, grid={"model.d_mlp": [16]}, **pairs)
    run_member(out, "d_mlp-16", quiet=True)
    saved = list((out / "d_mlp-16" / "blimp" / "partial").glob("*.json"))
    assert len(saved) == 1
    written = saved[0].stat().st_mtime_ns
    run_member(out, "d_mlp-16", quiet=True)
    assert saved[0].stat().st_mtime_ns == written
    saved[0].unlink()  # as if a kill had come before the scoring
    run_member(out, "d_mlp-16", quiet=True)
    assert saved[0].exists()


def test_costs_are_estimated_and_counted(planned):
    out = planned(grid={"model.d_mlp": [16]}, budget={"tokens": 640}, base={"train": {"checkpoint_every": 8}})
    run_member(out, "d_mlp-16", quiet=True)
    plan = estimate(read_plan(out), seconds=0.2)
    member = plan.members[0]
    assert member.measured
    assert 0 < member.seconds < 60
    steps = {int(path.name[5:]) for path in (out / "d_mlp-16" / "checkpoints").glob("step-*")}
    assert checkpoints(20, 8) == steps
    real = sum(file.stat().st_size for file in (out / "d_mlp-16").rglob("*") if file.is_file())
    assert 0.5 * real < disk(member, 20) < 2 * real
    timed = estimate(read_plan(planned("m", budget={"minutes": 0.5})), seconds=0.2).members[0]
    assert timed.seconds == pytest.approx(30, rel=0.5)
    assert timed.tokens % 32 == 0


def test_memory_of_a_process_ends_with_the_block():
    made = []
    for _ in range(2):
        remembered("k", lambda: made.append(1))
    assert len(made) == 2
    with keeping():
        for _ in range(3):
            remembered("k", lambda: made.append(1))
        with keeping():
            remembered("k", lambda: made.append(1))
    assert len(made) == 3
    remembered("k", lambda: made.append(1))
    assert len(made) == 4


def test_errors_of_the_folder(planned, tmp_path):
    with pytest.raises(RunError, match=r"holds no sweep \(it has no sweep.json\)"):
        run_member(tmp_path, "x")
    with pytest.raises(WorkbenchError):
        run_member(planned(**GRID), "../x")

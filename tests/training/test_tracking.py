"""metrics.jsonl is the record; wandb is a copy that can fail in any way without being noticed."""

import json
import sys
import time
import types

import pytest
from small_runs import digests, small, stop_after

from training.session import resume, train
from training.tracking import Record
from training.wandb_copy import WandbTracker, wanted
from workbench.errors import ConfigError


def test_rows_after_the_resumed_step_are_cut(tmp_path):
    record = Record(tmp_path, upto=0)
    for step in range(5):
        record.write("train", step, loss=step / 3)
        record.time(step, step / 7, 10.0)
    record.close()
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"kind": "train", "step": 5, "lo')  # as a kill leaves it
    whole = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    record = Record(tmp_path, upto=2)
    assert record.has("train", 2)
    assert not record.has("train", 3)
    record.write("train", 3, loss=1.0)
    assert (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True) == whole[:4]
    assert len((tmp_path / "timings.jsonl").read_bytes().splitlines()) == 3


def test_a_row_is_on_disk_as_soon_as_it_is_written(tmp_path):
    record = Record(tmp_path, upto=0)
    record.write("sample", 0, text="ünï\n\ud800 lone")
    assert json.loads((tmp_path / "metrics.jsonl").read_bytes().decode("utf-8", "surrogatepass"))["step"] == 0
    record.close()


def test_wandb_is_wanted_only_when_asked_for_or_with_a_key(monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert [wanted(choice) for choice in (None, True, False)] == [False, True, False]
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert [wanted(choice) for choice in (None, True, False)] == [True, True, False]


class Fake(types.ModuleType):
    """A wandb that raises, or sleeps, at the n-th call of a name."""

    def __init__(self, name, at=1, what=None):
        super().__init__("wandb")
        self.trouble, self.at, self.what, self.rows, self.counts = name, at, what, [], {}
        self.metrics, self.resumed, self.step, self.__spec__ = {}, False, 0, None
        self.dir = "/nowhere/offline-run-1-2/files"

    def _call(self, name):
        self.counts[name] = self.counts.get(name, 0) + 1
        if name == self.trouble and self.counts[name] >= self.at:
            if self.what == "hang":
                time.sleep(60)
            raise self.what

    def __getattr__(self, name):
        if name == "Settings":
            self._call("Settings")
            return lambda **_: None
        raise AttributeError(name)

    def init(self, **chosen):
        self._call("init")
        self.chosen = chosen
        return self

    def define_metric(self, name, step_metric=None, summary=None, hidden=None):
        self._call("define_metric")
        self.metrics[name] = (step_metric, summary)

    def log(self, numbers, step, commit):
        self._call("log")
        assert commit
        self.rows.append((step, numbers))

    def finish(self):
        self._call("finish")


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """The run without wandb."""
    import os

    os.environ.setdefault("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    out = tmp_path_factory.mktemp("without") / "run"
    train(small("train.steps=12"), out, quiet=True)
    return digests(out)


TROUBLES = [("Settings", 1), ("init", 1), ("define_metric", 2), ("log", 1), ("log", 3), ("finish", 1)]


@pytest.mark.parametrize(("name", "at"), TROUBLES)
@pytest.mark.parametrize("what", [RuntimeError("backend\nexploded"), SystemExit(1)], ids=repr)
def test_wandb_that_raises_changes_nothing(name, at, what, without, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", Fake(name, at, what))
    assert train(small("train.steps=12", "track.wandb=true"), tmp_path / "run", quiet=True).finished
    assert digests(tmp_path / "run") == without
    warnings = [line for line in capsys.readouterr().err.splitlines() if "wandb" in line]
    assert len(warnings) == 1
    assert "wandb gave up" in warnings[0]
    assert "metrics.jsonl has the numbers" in warnings[0]


def test_wandb_that_is_not_installed(without, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train(small("train.steps=12", "track.wandb=true"), tmp_path / "run", quiet=True).finished
    assert digests(tmp_path / "run") == without
    assert "wandb is not installed: pip install 'interp-workbench[track]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["init", "log", "finish"])
def test_wandb_that_hangs_is_left_behind(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", Fake(name, what="hang"))
    said = []
    began = time.monotonic()
    tracker = WandbTracker(tmp_path, {}, {}, said.append, patience=0.2)
    for step in range(1000):
        tracker.log(step, {"train/loss": 1.0})
    tracker.finish()
    assert time.monotonic() - began < 20  # it does not hang
    assert said == ["wandb did not end within 0.2 s; metrics.jsonl has the numbers."]


def test_wandb_gets_the_same_numbers(tmp_path, monkeypatch):
    fake = Fake("nothing")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    train(small("train.steps=12", "track.wandb=true", "track.project=mine"), tmp_path / "run", quiet=True)
    assert (fake.chosen["project"], fake.chosen["name"], fake.chosen["mode"]) == ("mine", "run", "offline")
    assert fake.chosen["config"]["model"]["d_model"] == 16
    got = {(step, name): value for step, numbers in fake.rows for name, value in numbers.items()}
    for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        kind, step = row.pop("kind"), row.pop("step")
        assert {name: got[step, f"{kind}/{name}"] for name in row} == row
    for line in (tmp_path / "run/timings.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert got[row["step"], "time/seconds"] == row["seconds"]
        assert got[row["step"], "time/tokens_per_second"] == row["tokens_per_second"]
    assert fake.counts["finish"] == 1
    assert fake.metrics["train/*"] == ("step", None)
    assert fake.metrics["eval/loss"] == ("step", "min,last")
    assert [step for step, _ in fake.rows] == sorted({step for step, _ in fake.rows}), "one row a step"
    assert all(numbers["step"] == step for step, numbers in fake.rows)


def wandb_rows(run):
    """The rows that wandb should have: those of metrics.jsonl, all of a step in one, but for times."""
    rows = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        kind, step = row.pop("kind"), row.pop("step")
        rows.setdefault(step, {"step": step}).update({f"{kind}/{name}": row[name] for name in row})
    return rows


def without_times(rows):
    return {step: {k: v for k, v in row.items() if not k.startswith("time/")} for step, row in rows.items()}


def test_an_interrupted_run_is_one_run_of_wandb_though_it_moves(tmp_path, monkeypatch, capsys):
    """The same id in another place, every step once, and nothing missing."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    stop_after(monkeypatch, 10, 26)  # step 10: the row of step 9 and the evaluation of step 10 stand there
    fakes, run = [], tmp_path / "run"
    for place in ("run", "moved", "moved again"):
        fakes.append(Fake("nothing"))
        monkeypatch.setitem(sys.modules, "wandb", fakes[-1])
        if place == "run":
            train(small("track.wandb=true"), run, quiet=True)
            continue
        run = run.rename(tmp_path / place)
        outcome = resume(run, quiet=True)
    assert outcome.finished
    assert len({fake.chosen["id"] for fake in fakes}) == 1
    assert {fake.chosen["resume"] for fake in fakes} == {"allow"}
    assert all(fake.rows for fake in fakes)
    sent = [row for fake in fakes for row in fake.rows]
    assert [step for step, _ in sent] == sorted({step for step, _ in sent})
    assert without_times(dict(sent)) == wandb_rows(run)
    said = [line for line in capsys.readouterr().err.splitlines() if "wandb" in line]
    assert said[-1] == f"wandb's copy is offline; upload it with: wandb sync {run / 'wandb'}"


def test_two_runs_of_one_name_are_two_of_wandb(tmp_path, monkeypatch):
    ids = set()
    for place in ("a", "b"):
        fake = Fake("nothing")
        monkeypatch.setitem(sys.modules, "wandb", fake)
        train(small("train.steps=2", "track.wandb=true"), tmp_path / place / "run", quiet=True)
        ids.add(fake.chosen["id"])
    assert len(ids) == 2


def test_wandb_that_is_switched_on_late_gets_the_whole_run(tmp_path, monkeypatch):
    stop_after(monkeypatch, 12)
    train(small(), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run/wandb.json").exists()
    fake = Fake("nothing")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    resume(tmp_path / "run", wandb=True, quiet=True)
    assert without_times(dict(fake.rows)) == wandb_rows(tmp_path / "run")
    assert {"time/seconds", "time/tokens_per_second"} < fake.rows[1][1].keys()


def test_online_the_server_says_what_it_has(tmp_path, monkeypatch):
    """A kill loses rows that were handed over and not yet sent: they are copied again."""
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    stop_after(monkeypatch, 20)
    first, second = Fake("nothing"), Fake("nothing")
    monkeypatch.setitem(sys.modules, "wandb", first)
    train(small("track.wandb=true"), tmp_path / "run", quiet=True)
    assert json.loads((tmp_path / "run/wandb.json").read_text())["copied"] == 15  # 18 is not complete
    second.resumed, second.step = True, 10  # steps up to 9 arrived
    monkeypatch.setitem(sys.modules, "wandb", second)
    resume(tmp_path / "run", quiet=True)
    assert (first.chosen["mode"], second.chosen["mode"]) == ("online", "online")
    assert [step for step, _ in second.rows][:3] == [10, 12, 15]


def test_a_member_of_a_sweep_is_grouped_under_its_name(tmp_path, monkeypatch):
    fake = Fake("nothing")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    (tmp_path / "widths").mkdir()
    (tmp_path / "widths/sweep.json").write_text("{}")
    settings = small("train.steps=2", "track.wandb=true", "track.tags=[a, b]")
    train(settings, tmp_path / "widths/d64", quiet=True)
    chosen = fake.chosen
    assert (chosen["group"], chosen["name"], chosen["job_type"]) == ("widths", "d64", "train")
    assert chosen["tags"] == ["a", "b"]
    assert chosen["config"]["parameters"] == settings.model.n_params
    assert "track" not in chosen["config"]
    more = ("track.group=g", "track.name=n", "track.job_type=tune", "train.steps=2", "track.wandb=true")
    train(small(*more), tmp_path / "widths/other", quiet=True)
    assert [fake.chosen[name] for name in ("group", "name", "job_type", "tags")] == ["g", "n", "tune", None]


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("track.project=' '", r"track\.project must have 1 to 128 letters"),
        ("track.name=" + "x" * 200, r"track\.name must have 1 to 128 letters; found 'xxx"),
        ("track.tags=[a, '']", r"track\.tags must have 1 to 64 letters each"),
        ("track.tags=a", r"track\.tags"),
    ],
)
def test_names_that_wandb_would_refuse_are_refused_before_training(assignment, words):
    with pytest.raises(ConfigError, match=words):
        small(assignment)


def test_a_damaged_note_begins_a_new_run_of_wandb(tmp_path, monkeypatch):
    train(small("train.steps=2"), tmp_path / "run", quiet=True)
    (tmp_path / "run/wandb.json").write_text("[")
    fake = Fake("nothing")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    resume(tmp_path / "run", steps=2, wandb=True, quiet=True)
    assert without_times(dict(fake.rows)) == wandb_rows(tmp_path / "run")


def test_what_a_killed_call_handed_over_is_copied_again(tmp_path, monkeypatch):
    """wandb keeps rows in memory: the directory of a call that never ended is removed, unless it was uploaded."""
    run = tmp_path / "run"
    train(small("train.steps=6", "train.log_every=1"), run, quiet=True)
    for number, uploaded in enumerate([False, True]):
        kept, lost = (run / f"wandb/offline-run-{number}{name}-{'a' * 12}" for name in "kl")
        kept.mkdir(parents=True)
        lost.mkdir()
        (lost / f"run-a.wandb{'.synced' * uploaded}").write_text("")
        note = {"id": "a" * 12, "copied": 2, "handed": 4, "ended": [kept.name]}
        (run / "wandb.json").write_text(json.dumps(note))
        fake = Fake("nothing")
        monkeypatch.setitem(sys.modules, "wandb", fake)
        WandbTracker(run, {}, {}, print, [(step, {"a": 1}) for step in range(7)]).finish()
        assert [step for step, _ in fake.rows] == ([5, 6] if uploaded else [3, 4, 5, 6])
        assert (kept.exists(), lost.exists()) == (True, uploaded)
        assert json.loads((run / "wandb.json").read_text()) == {
            "id": "a" * 12, "copied": 6, "handed": 6, "ended": [kept.name, "offline-run-1-2"],
        }  # fmt: skip


@pytest.mark.parametrize("name", ["..", "../../precious", "/etc", 7, "*", "a" * 11, "precious"])
def test_a_forged_note_removes_nothing(name, tmp_path, monkeypatch):
    (tmp_path / "precious").mkdir()
    (tmp_path / "run/wandb/offline-run-1-precious").mkdir(parents=True)
    note = {"id": name, "copied": 2, "handed": 4, "ended": []}
    (tmp_path / "run/wandb.json").write_text(json.dumps(note))
    fake = Fake("nothing")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    WandbTracker(tmp_path / "run", {}, {}, print).finish()
    assert fake.chosen["id"] != name
    assert (tmp_path / "precious").is_dir()
    assert (tmp_path / "run/wandb/offline-run-1-precious").is_dir()

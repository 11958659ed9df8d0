"""metrics.jsonl is the record; wandb is a copy that can fail in any way without being noticed."""

import json
import sys
import time
import types

import pytest
from small_runs import digests, small

from training.session import train
from training.tracking import Record, WandbTracker, wanted


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
        self.__spec__ = None

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

    def log(self, numbers, step):
        self._call("log")
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


TROUBLES = [("Settings", 1), ("init", 1), ("log", 1), ("log", 3), ("finish", 1)]


@pytest.mark.parametrize(("name", "at"), TROUBLES)
@pytest.mark.parametrize(
    "what", [RuntimeError("backend\nexploded"), SystemExit(1), KeyboardInterrupt()], ids=repr
)
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
    tracker = WandbTracker(tmp_path, "p", {}, said.append, patience=0.2)
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


def test_the_real_wandb_offline_tries_no_connection(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    import socket

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tried = []
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family != socket.AF_UNIX:
            tried.append(address)
            raise OSError("blocked")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *a, **k: tried.append(a) or (_ for _ in ()).throw(OSError())
    )
    train(small("train.steps=12", "track.wandb=true"), tmp_path / "run", quiet=True)
    assert tried == []
    file = next((tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb"))
    got = _history(file)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}
    assert {step: numbers["train/loss"] for step, numbers in got.items() if "train/loss" in numbers} == losses


def _history(file) -> dict[int, dict]:
    """Rows of an offline run's file: a LevelDB log (7 bytes of heading, then chunks of crc, length, type) of
    protobuf records."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole, rows = file.read_bytes(), 7, b"", {}
    while place + 7 <= len(data):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (2, 3):  # a record's first or middle chunk
            continue
        record = wandb_internal_pb2.Record()
        record.ParseFromString(whole)
        whole = b""
        if record.HasField("history"):
            row = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            rows[row["_step"]] = row
    return rows

"""A disk that fills up in the middle of training: one line, earlier checkpoints untouched, and an exact resume."""

import errno
import os
import shutil
import signal
import subprocess

import pytest
from killing import check_whole, child_fails_at, finish, run_child, whole_run
from small_runs import child_train, small, trained_digests

from training.session import train
from training.tracking import Record
from workbench.errors import RunError
from workbench.runs.checkpoint import checkpoint_steps

SETTINGS = small("train.steps=60", "train.checkpoint_every=10")
ROOM = 1_400_000
"""Bytes in which the run below does not fit."""


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own of `ROOM` bytes: a tmpfs."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("a small disk can only be mounted by root; see the limit on file sizes below")
    options = ["-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run on a disk with room."""
    os.environ.setdefault("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    return whole_run(tmp_path_factory.mktemp("whole") / "run", SETTINGS)


def child_train_and_tell(settings, out, said):
    """Train; what goes to stderr goes to a file."""
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 2)
    child_train(settings, out)


def filled_and_freed(disk, filler, whole, tmp_path):
    """Train with so many bytes of the disk taken; returns what was said, after it was resumed with room."""
    (disk / "filler").write_bytes(bytes(filler))
    out, said = disk / "run", tmp_path / "said"
    code = run_child(child_train_and_tell, SETTINGS, str(out), str(said))
    lines = [line for line in said.read_text().splitlines() if not line.startswith("step ")]
    if code == 0:
        return lines
    assert code == 2, lines
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    assert "the disk is full" in lines[0]
    (disk / "filler").unlink()
    if not out.exists():
        return lines
    assert f"workbench resume {out}" in lines[0]
    check_whole(out, SETTINGS)
    steps = checkpoint_steps(out)
    assert not list(out.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    assert finish(out) == 0
    subprocess.run(["mount", "-o", f"remount,size={max(ROOM, 4_000_000)}", str(disk)], check=True)
    assert trained_digests(out) == whole
    assert set(steps) <= set(checkpoint_steps(out))
    shutil.rmtree(out)
    return lines


@pytest.mark.parametrize("filler", [700_000, 1_150_000])
def test_a_disk_that_fills_up(filler, small_disk, whole, tmp_path):
    said = filled_and_freed(small_disk, filler, whole, tmp_path)
    assert "the disk is full" in said[0]


@pytest.mark.torture
@pytest.mark.parametrize("turn", range(40))
def test_a_disk_that_fills_up_anywhere(turn, small_disk, whole, tmp_path, trials):
    with trials(1, "a disk that fills up in the middle").one():
        filled_and_freed(small_disk, int(ROOM * turn / 40), whole, tmp_path)


def child_train_limited(settings, out, said, limit):
    """Train where no file may grow past `limit` bytes; needs no root."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    child_train_and_tell(settings, out, said)


@pytest.mark.parametrize("limit", [2_500, 20_000, 40_000])
def test_files_that_may_not_grow(limit, whole, tmp_path):
    """In turn: metrics.jsonl, the tokenizer or the weights, the optimiser's state."""
    out, said = tmp_path / "run", tmp_path / "said"
    assert run_child(child_train_limited, SETTINGS, str(out), str(said), limit) == 2
    lines = [line for line in said.read_text().splitlines() if not line.startswith("step ")]
    assert len(lines) == 1, lines
    assert "the disk is full" in lines[0]
    if out.exists():
        check_whole(out, SETTINGS)
        assert finish(out) == 0
        assert trained_digests(out) == whole


def test_a_row_that_does_not_fit_is_left_out_whole(tmp_path, small_disk):
    """A write on a full disk may take half a line and say nothing; the row after it would make both unreadable."""
    record = Record(small_disk, upto=0)

    def fill():
        with open(small_disk / "filler", "wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass

    def rows():
        for step in range(1, 200):
            record.write("train", step, text="x" * 500)

    for full in (fill, rows):
        with pytest.raises(OSError, match="No space left"):
            full()
    written = (small_disk / "metrics.jsonl").read_bytes()
    assert written == b"" or written.endswith(b"\n")
    (small_disk / "filler").unlink()
    record.write("train", 200, loss=1.0)
    record.close()
    assert Record(small_disk, upto=200).has("train", 200)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_card_that_cannot_be_written_does_not_undo_the_training(number, tmp_path, monkeypatch, capsys):
    import training.session

    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(training.session, "write_card", fail)
    assert train(small("train.steps=2"), tmp_path / "run", quiet=True).finished
    assert "Warning: the model card of" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_row_that_cannot_be_written_is_one_line(number, tmp_path, monkeypatch):
    def fail(self):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Record, "sync", fail)
    words = "the disk is full" if number == errno.ENOSPC else "Input/output error"
    with pytest.raises(RunError, match=rf"stopped after step 0: {words}; .*`workbench resume"):
        train(small("train.steps=2"), tmp_path / "run", quiet=True)


@pytest.mark.torture
@pytest.mark.parametrize("kind", ["killed", errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("part", range(4))
def test_a_fault_at_each_call_that_writes_of_a_whole_run(part, kind, tmp_path, tmp_path_factory, trials):
    """Every write, flush, rename and removal from the start of a run to its end, one after the other."""
    settings = small("train.steps=9", "train.checkpoint_every=4", "train.log_every=2", "train.eval_every=5")
    counter = tmp_path / "calls"
    assert run_child(child_fails_at, settings, str(tmp_path / "first"), 0, None, str(counter)) == 0
    calls = int(counter.read_text().split(":")[1].strip(" }"))
    whole = trained_digests(tmp_path / "first")
    faults = trials(
        1, "a kill at each call that writes" if kind == "killed" else "an error at each call that writes"
    )
    for number in range(1 + part, calls + 1, 4):
        out = tmp_path / f"run-{number}"
        with faults.one():
            code = run_child(child_fails_at, settings, str(out), number, None if kind == "killed" else kind)
            assert code == -signal.SIGKILL if kind == "killed" else code in (0, 2), code
            if out.exists():
                check_whole(out, settings)
                code = finish(out)
                assert code in (0, 2), code  # 2: it was finished, only its card was not written
            else:
                assert run_child(child_train, settings, str(out)) == 0
            assert trained_digests(out) == whole
        shutil.rmtree(out)

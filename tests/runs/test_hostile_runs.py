"""Run folders made to harm: pipes, links, and files that are something else. One line each, and nothing hangs."""

import os
import signal
import threading
from pathlib import Path

import pytest
from small_runs import small

from training.session import resume, train
from workbench.errors import WorkbenchError
from workbench.io import read_plain
from workbench.runs.run import load, summarise

FILES = ("config.yaml", "tokenizer.json", "data.json", "metrics.jsonl")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A run to copy."""
    os.environ.setdefault("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    out = tmp_path_factory.mktemp("good") / "run"
    train(small("train.steps=2"), out, quiet=True)
    return out


@pytest.fixture(autouse=True)
def _within_ten_seconds():
    """A read that waits for a pipe would never end."""
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


CONTENTS = {
    "pipe": None,
    "empty": b"",
    "zeros": bytes(1000),
    "a pickle": b"\x80\x05\x8c\x05posix\x8c\x06system\x93\x8c\x10touch /tmp/pwned\x85R.",
    "not UTF-8": b"\xff\xfe{}",
    "deep": b"[" * 100_000,
    "a long number": b"9" * 100_000,
    "a list": b"[1, 2]\n[3]\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", CONTENTS)
def test_each_file_of_a_run_may_be_anything(name, kind, good, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(good, run)
    (run / name).unlink()
    os.mkfifo(run / name) if kind == "pipe" else (run / name).write_bytes(CONTENTS[kind])
    summarise(run)  # never raises
    for use in (
        lambda: load(run).model,
        lambda: load(run).metrics,
        lambda: resume(run, steps=1, quiet=True),
    ):
        said = ""
        try:
            use()
        except WorkbenchError as error:
            said = str(error)
        assert "\n" not in said
        assert len(said) < 700
    assert not os.path.exists("/tmp/pwned")


def test_a_plain_file_is_read_and_nothing_else(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    assert read_plain(tmp_path / "file") == read_plain(tmp_path / "link") == b"abc"
    for name, words in {"pipe": "not a regular file", "gone": "No such file"}.items():
        with pytest.raises(OSError, match=words):
            read_plain(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        read_plain(tmp_path)
    with pytest.raises(OSError, match="not a regular file"):
        read_plain(Path("/dev/zero"))
    with pytest.raises(OSError, match="it has 3 bytes, over 2"):
        read_plain(tmp_path / "file", limit=2)

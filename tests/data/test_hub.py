"""A data set of the hub, read from a stand-in on a local port; and the hub out of reach."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import hub, parquet_bytes

from workbench.data.corpus import open_corpus
from workbench.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
OPEN = """
import json, sys, time
from workbench.data.corpus import open_corpus
from workbench.errors import DataError
for name in sys.argv[1:]:
    started = time.monotonic()
    try:
        corpus = open_corpus(name)
        found = [corpus.name, corpus.source, corpus.fingerprint, list(corpus.train), list(corpus.validation)]
    except DataError as error:
        found = str(error)
    print(json.dumps([found, time.monotonic() - started]))
"""
FILES = {
    "README.md": b"# Stories",
    "data/train-00000-of-00001.parquet": parquet_bytes(["a cat", "a dog", "a cow"]),
    "data/validation-00000-of-00001.parquet": parquet_bytes(["a hen"]),
}


def open_elsewhere(home, *names, **environment):
    """Open in a process of its own: the hub's address is read once, at import."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", OPEN, *names],
        env={**clean, "HF_HOME": str(home), "PYTHONPATH": str(ROOT), **environment},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_hub_and_then_its_cache(tmp_path):
    with hub("some/stories", FILES) as (url, asked):
        (found, _), (missing, _) = open_elsewhere(tmp_path, "some/stories", "some/others", HF_ENDPOINT=url)
        assert any("train-00000-of-00001.parquet" in line for line in asked)
    assert found[:2] == ["stories", "some/stories"]
    assert found[3:] == [["a cat", "a dog", "a cow"], ["a hen"]]
    assert "some/others is neither a local path nor a data set on the hub" in missing
    ((gone, seconds),) = open_elsewhere(tmp_path, "some/stories", HF_ENDPOINT=url)  # the server is no more
    assert gone == found
    assert seconds < 20
    ((offline, _),) = open_elsewhere(tmp_path, "some/stories", HF_HUB_OFFLINE="1")
    assert offline == found


def test_a_silent_hub_does_not_hang(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        ((found, seconds),) = open_elsewhere(tmp_path, "some/stories", HF_ENDPOINT=address)
    assert "the hub cannot be reached (timed out)" in found
    assert seconds < 20


@pytest.mark.parametrize("name", ["roneneldan/Tiny-Tales-that-nobody-cached", "some/stories:en"])
def test_offline_says_how_to_pass_local_data(tmp_path, monkeypatch, name):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as error:
        open_corpus(name, cache=tmp_path)
    message = str(error.value)
    assert message.startswith(
        f"{name} is neither a local path nor in the cache, and the hub cannot be reached (HF_HUB_OFFLINE is set)."
    )
    assert "pass the folder or file, such as path/to/TinyStories" in message
    assert "\n" not in message

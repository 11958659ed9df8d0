"""Checkpoints made to harm: nothing executes, nothing blocks, nothing large is allocated, one line, fast.

Each hostile file comes with a manifest that vouches for it: the hashes are no protection against a
checkpoint from a stranger.
"""

import hashlib
import json
import os
import pickle
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from workbench.errors import RunError
from workbench.runs.checkpoint import (
    WEIGHTS,
    checkpoint_folder,
    read_model,
    read_optimizer,
    verify_checkpoint,
)

FLAG = Path("/tmp/workbench-test-was-here")


class Bomb:
    """Unpickling it runs a command."""

    def __reduce__(self):
        return os.system, (f"touch {FLAG}",)


def header(entries: dict, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def with_tensors(change):
    """The file with its tensors changed."""

    def make(original: bytes) -> bytes:
        tensors = load(original)
        return save(change(tensors) or tensors)

    return make


def first(tensors):
    return next(name for name in sorted(tensors) if tensors[name].ndim == 2)


def reshaped(tensors):
    tensors[first(tensors)] = tensors[first(tensors)].reshape(-1)


def renamed(tensors):
    tensors["elsewhere"] = tensors.pop(first(tensors))


def not_a_number(tensors):
    tensors[first(tensors)].view(-1)[0] = float("nan")


def infinite(tensors):
    tensors[first(tensors)].view(-1)[-1] = float("inf")


def halved(tensors):
    return {name: tensor.half() for name, tensor in tensors.items()}


def doubled(tensors):
    return {name: tensor.double() for name, tensor in tensors.items()}


def extra(tensors):
    tensors["extra"] = torch.zeros(3)


def fewer(tensors):
    del tensors[first(tensors)]


F32 = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
HOSTILE = {
    "pickle": lambda _: pickle.dumps(Bomb()),
    "pickle, old protocol": lambda _: pickle.dumps(Bomb(), protocol=0),
    "zip of torch.save": lambda _: b"PK\x03\x04" + pickle.dumps(Bomb()),
    "empty": lambda _: b"",
    "header longer than the file": lambda _: struct.pack("<Q", 2**62) + b"{}",
    "header of all the memory": lambda _: struct.pack("<Q", 2**64 - 1),
    "header is no JSON": lambda _: struct.pack("<Q", 4) + b"oops",
    "header is no object": lambda _: struct.pack("<Q", 2) + b"[]",
    "nested header": lambda _: struct.pack("<Q", 200_000) + b"[" * 200_000,
    "overlapping tensors": lambda _: header({"a": F32, "b": {**F32, "data_offsets": [8, 24]}}, bytes(24)),
    "offsets past the end": lambda _: header({"a": {**F32, "data_offsets": [0, 2**40]}}, bytes(16)),
    "offsets backwards": lambda _: header({"a": {**F32, "data_offsets": [16, 0]}}, bytes(16)),
    "shape that overflows": lambda _: header({"a": {**F32, "shape": [2**40, 2**40]}}, bytes(16)),
    "negative shape": lambda _: header({"a": {**F32, "shape": [-4]}}, bytes(16)),
    "unknown dtype": lambda _: header({"a": {**F32, "dtype": "CODE"}}, bytes(16)),
    "hole between tensors": lambda _: header({"a": {**F32, "data_offsets": [64, 80]}}, bytes(80)),
    "wrong shape": with_tensors(reshaped),
    "wrong name": with_tensors(renamed),
    "one tensor more": with_tensors(extra),
    "one tensor fewer": with_tensors(fewer),
    "NaN": with_tensors(not_a_number),
    "infinity": with_tensors(infinite),
    "half precision": with_tensors(halved),
    "double precision": with_tensors(doubled),
    "text": lambda _: b"version https://git-lfs.github.com/spec/v1\n",
}


def vouch(folder: Path) -> None:
    """Write a manifest that fits the files."""
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


def refused(read, folder: Path, words: str) -> None:
    """One line with `words`, within a second."""
    began = time.monotonic()
    with pytest.raises(RunError, match=words) as error:
        read(folder)
    assert time.monotonic() - began < 20  # it does not hang
    assert "\n" not in str(error.value)
    assert not FLAG.exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_weights(kind, run):
    folder = checkpoint_folder(run, 16)
    file = folder / WEIGHTS
    file.write_bytes(HOSTILE[kind](file.read_bytes()))
    vouch(folder)
    refused(read_model, folder, r"model\.safetensors")


@pytest.mark.parametrize("kind", list(HOSTILE)[:16])
def test_hostile_optimizer(kind, run):
    folder = checkpoint_folder(run, 16)
    (folder / "optimizer.safetensors").write_bytes(HOSTILE[kind](b""))
    vouch(folder)
    refused(read_optimizer, folder, r"optimizer\.safetensors is not a valid safetensors file")


@pytest.mark.parametrize("name", ["MANIFEST.json", "config.json", "model.safetensors", "state.json"])
@pytest.mark.parametrize("kind", ["symlink", "dangling", "fifo", "folder", "socket"])
def test_what_is_no_plain_file(name, kind, run, tmp_path):
    file = checkpoint_folder(run, 16) / name
    data = file.read_bytes()
    file.unlink()
    if kind == "symlink":
        (tmp_path / "secret").write_bytes(data)
        file.symlink_to(tmp_path / "secret")
    elif kind == "dangling":
        file.symlink_to(tmp_path / "nowhere")
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        os.mknod(file, 0o140644)
    words = rf"{name} (is a symbolic link|is not a regular file|cannot be read)"
    refused(verify_checkpoint, file.parent, words)


HOSTILE_JSON = {
    "not JSON": b"{",
    "a list": b"[]",
    "not UTF-8": b'{"step": "\xff"}',
    "deep": b"[" * 300_000,
    "a long number": b'{"step": ' + b"9" * 100_000 + b"}",
    "no step": b"{}",
    "step of another folder": b'{"step": 17}',
    "step is text": b'{"step": "16"}',
    "step is true": b'{"step": true}',
    "negative step": b'{"step": -16}',
}


@pytest.mark.parametrize("kind", HOSTILE_JSON)
def test_hostile_state(kind, run):
    folder = checkpoint_folder(run, 16)
    (folder / "state.json").write_bytes(HOSTILE_JSON[kind])
    vouch(folder)
    refused(verify_checkpoint, folder, r"state\.json")


HOSTILE_CONFIG = {
    "huge": {"d_model": 10**9, "n_layers": 10**6},
    "larger than the weights": {"d_model": 4096, "n_heads": 2},
    "unknown key": {"__class__": "os.system"},
    "wrong type": {"d_model": [1]},
    "zero": {"n_layers": 0},
    "does not divide": {"d_model": 17, "d_head": None},
}


@pytest.mark.parametrize("kind", HOSTILE_CONFIG)
def test_hostile_config(kind, run):
    folder = checkpoint_folder(run, 16)
    values = json.loads((folder / "config.json").read_text()) | HOSTILE_CONFIG[kind]
    (folder / "config.json").write_text(json.dumps(values))
    vouch(folder)
    refused(read_model, folder, r"config\.json")


HOSTILE_MANIFEST = {
    "path out of the folder": lambda files: files | {"../../config.yaml": {"bytes": 1, "sha256": ""}},
    "absolute path": lambda files: files | {"/etc/passwd": {"bytes": 1, "sha256": ""}},
    "a file too few": lambda files: {name: entry for name, entry in files.items() if name != "state.json"},
    "no size": lambda files: files | {"state.json": {"sha256": ""}},
    "size is text": lambda files: files | {"state.json": {"bytes": "9", "sha256": ""}},
    "no hash": lambda files: files | {"state.json": {"bytes": 9}},
    "a list": lambda files: list(files),
    "nothing": lambda files: None,
}


@pytest.mark.parametrize("kind", HOSTILE_MANIFEST)
def test_hostile_manifest(kind, run):
    file = checkpoint_folder(run, 16) / "MANIFEST.json"
    manifest = json.loads(file.read_text())
    manifest["files"] = HOSTILE_MANIFEST[kind](manifest["files"])
    file.write_text(json.dumps(manifest))
    refused(verify_checkpoint, file.parent, r"MANIFEST\.json (should list|gives no)")


def test_a_sparse_file_of_a_terabyte_is_not_read(run):
    folder = checkpoint_folder(run, 16)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    with open(folder / WEIGHTS, "r+b") as stream:
        stream.truncate(2**40)
    manifest["files"][WEIGHTS]["bytes"] = 2**40
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    refused(read_model, folder, r"model\.safetensors has 1,099,511,627,776 bytes; the [\d,]+ parameters")
    refused(verify_checkpoint, folder, r"model\.safetensors has 1,099,511,627,776 bytes")


def test_a_checkpoint_folder_that_is_a_link(run, tmp_path):
    (tmp_path / "link").symlink_to(checkpoint_folder(run, 16))
    refused(verify_checkpoint, tmp_path / "link", "is not a checkpoint folder")


def test_the_undamaged_one_is_accepted(run):
    folder = checkpoint_folder(run, 16)
    vouch(folder)
    assert read_model(folder) is not None
    assert len(read_optimizer(folder)) > 3


def child_reads(read_name: str, folder: str, told: str) -> None:
    """Target of a child process: read once, and tell how long it took and how much memory it needed at most."""
    import gc

    import workbench.runs.checkpoint as checkpoints

    read = getattr(checkpoints, read_name)
    read(checkpoint_folder(Path(folder).parents[1], 8))  # a good one: what the first use of a library costs
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, began = peak(), time.process_time()
    try:
        read(Path(folder))
        said = None
    except RunError as error:
        said = str(error)
    found = {"said": said, "seconds": time.process_time() - began, "bytes": peak() - before}
    Path(told).write_text(json.dumps(found))


def peak() -> int:
    """The most memory this process has held, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


ALLOWANCE = 24_000_000
"""Bytes that reading may take beside the files: modules that only an error imports, and pages that torch touches for
the first time. The forged sizes are from a terabyte on."""


@pytest.mark.torture
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from Linux's /proc"
)
@pytest.mark.parametrize("kind", HOSTILE)
def test_none_takes_a_second_or_memory_beyond_its_size(kind, run, tmp_path, trials):
    from small_runs import children

    folder, told = checkpoint_folder(run, 16), tmp_path / "told"
    (folder / WEIGHTS).write_bytes(HOSTILE[kind]((folder / WEIGHTS).read_bytes()))
    vouch(folder)
    with trials(6, "hostile files: one line, a second, no memory").one():
        child = children().Process(target=child_reads, args=("read_model", str(folder), str(told)))
        child.start()
        child.join(60)
        found = json.loads(told.read_text())
        assert "model.safetensors" in found["said"]
        assert "\n" not in found["said"]
        assert found["seconds"] < 1.0
        sizes = sum(file.stat().st_size for file in folder.iterdir())
        assert found["bytes"] < 4 * sizes + ALLOWANCE
        assert not FLAG.exists()

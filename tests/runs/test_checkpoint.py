"""Checkpoints: what is written is read; a save that fails anywhere leaves the old state."""

import errno
import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from small_models import SINGLE, VARIANTS, build
from small_runs import small

from workbench.errors import RunError
from workbench.model.transformer import HookedTransformer
from workbench.runs.checkpoint import (
    checkpoint_folder,
    checkpoint_steps,
    delete_checkpoint,
    drop_optimizer,
    read_model,
    read_optimizer,
    read_state,
    save_checkpoint,
    sweep_leftovers,
    verify_checkpoint,
)
from workbench.runs.folder import DamagedCheckpoint, good_checkpoint

FILES = ("MANIFEST.json", "config.json", "model.safetensors", "optimizer.safetensors", "state.json")


def test_what_is_written_is_read(tmp_path):
    model = HookedTransformer(small("model.seed=5").model)
    state = {"step": 3, "losses": [0.1 + 0.2, 1e-300], "note": "ünï"}
    path = save_checkpoint(tmp_path, model, {"step": torch.tensor(3.0)}, state)
    assert path == checkpoint_folder(tmp_path, 3)
    assert sorted(file.name for file in path.iterdir()) == sorted(FILES)
    assert read_state(path) == state
    assert read_optimizer(path) == {"step": torch.tensor(3.0)}
    again = read_model(path)
    assert again.config == model.config
    assert not again.training
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert read_model(path, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("name", SINGLE)
def test_every_architecture_is_read_as_it_was(name, tmp_path):
    model = build(**VARIANTS[name]).float()
    path = save_checkpoint(tmp_path, model, {}, {"step": 1})
    again = read_model(path)
    tokens = torch.arange(4, 4 + model.config.n_ctx)[None]
    assert torch.equal(again(tokens), model(tokens))
    own, found = dict(model.named_parameters()), dict(again.named_parameters())
    assert found.keys() == own.keys()
    assert all(parameter.requires_grad for parameter in found.values())
    assert sum(map(torch.numel, found.values())) == model.config.n_params


@pytest.mark.parametrize("sharing", ["all", "attention", "mlp"])
def test_shared_weights_are_stored_once_and_shared_again(sharing, tmp_path):
    model = build(n_layers=3, sharing=sharing).float()
    path = save_checkpoint(tmp_path, model, {}, {"step": 1})
    size = (path / "model.safetensors").stat().st_size
    assert 4 * model.config.n_params <= size < 4 * model.config.n_params + 20_000  # and a header
    first, *others = read_model(path).blocks
    for block in others:
        assert (block.attn.qkv_weight is first.attn.qkv_weight) == (sharing != "mlp")
        assert (block.mlp.out_weight is first.mlp.out_weight) == (sharing != "attention")


def test_weights_lie_where_torch_puts_its_own(tmp_path):
    """Products of matrices that are aligned otherwise are rounded otherwise; a resumed run would drift."""
    path = save_checkpoint(tmp_path, HookedTransformer(small().model), {}, {"step": 1})
    assert all(parameter.data_ptr() % 64 == 0 for parameter in read_model(path).parameters())


def test_the_same_state_gives_the_same_bytes(tmp_path):
    model = HookedTransformer(small().model)
    paths = [save_checkpoint(tmp_path / name, model, {}, {"step": 1}) for name in "ab"]
    assert all((paths[0] / name).read_bytes() == (paths[1] / name).read_bytes() for name in FILES)


def test_master_weights_are_kept_in_float32(tmp_path):
    model = HookedTransformer(small().model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = save_checkpoint(tmp_path, model.to(torch.bfloat16), {}, {"step": 1}, weights)
    assert all(torch.equal(read_model(path).state_dict()[name], weights[name]) for name in weights)


def test_optimizer_can_be_dropped_and_the_rest_stays_whole(run):
    drop_optimizer(run, 8)
    found = verify_checkpoint(checkpoint_folder(run, 8))
    assert not found.has_optimizer
    assert read_model(found.path) is not None
    with pytest.raises(RunError, match=r"keeps no optimizer\.safetensors"):
        read_optimizer(found.path)
    assert good_checkpoint(run, optimizer=True).step == 16


def test_half_a_deletion_is_no_checkpoint(run, monkeypatch):
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    delete_checkpoint(run, 16)
    assert checkpoint_steps(run) == [8]


def test_leftovers_of_a_kill_are_ignored_and_swept(run):
    (run / "checkpoints/.step-000032.abc.tmp").mkdir()
    (run / "checkpoints/step-000064").mkdir()
    (run / "checkpoints/notes").mkdir()
    (run / ".metrics.jsonl.abc.tmp").write_text("half")
    assert checkpoint_steps(run) == [8, 16]
    sweep_leftovers(run)
    assert sorted(os.listdir(run)) == ["checkpoints", "config.yaml"]
    assert sorted(os.listdir(run / "checkpoints")) == ["notes", "step-000008", "step-000016"]


class InjectedError(OSError):
    """A disk error made by a test."""


def every_fault(monkeypatch, number):
    """Make the n-th file-system call of a save fail, for whichever n is set; counts the calls."""
    state = {"at": None, "count": 0}

    def wrap(function):
        def call(*args, **kwargs):
            state["count"] += 1
            if state["count"] == state["at"]:
                raise InjectedError(number, os.strerror(number))
            return function(*args, **kwargs)

        return call

    for owner, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (os, "chmod"), (Path, "write_bytes")):
        monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))
    monkeypatch.setattr("tempfile.mkdtemp", wrap(__import__("tempfile").mkdtemp))
    return state


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full disk", "broken disk"])
def test_a_fault_at_each_write_fsync_and_rename(run, monkeypatch, number):
    model = HookedTransformer(small().model)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    faults = every_fault(monkeypatch, number)
    save_checkpoint(run, model, {}, {"step": 1})
    calls, faults["count"] = faults["count"], 0
    assert calls >= 14  # 5 writes, 7 fsyncs, the folder, its rename
    delete_checkpoint(run, 1)
    for at in range(1, calls + 1):
        faults.update(at=at, count=0)
        words = "the disk is full" if number == errno.ENOSPC else "Input/output error"
        with pytest.raises(
            RunError, match=rf"could not be written: {words}; earlier .*workbench resume"
        ) as error:
            save_checkpoint(run, model, {}, {"step": 32})
        assert "\n" not in str(error.value)
        faults["at"] = None
        # The last fsync is after the rename: then the new one is there, and whole.
        assert good_checkpoint(run).step in ((16, 32) if at == calls else (16,))
        assert not [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]
        delete_checkpoint(run, 32)
        assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def damage(run, dice, kind):
    """Flip a byte, or cut a file, of the last checkpoint; returns the file."""
    folder = checkpoint_folder(run, 16)
    file = folder / dice.choice(FILES)
    data = bytearray(file.read_bytes())
    if kind == "flip":
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    else:
        del data[dice.randrange(len(data)) :]
    original = file.read_bytes()
    file.write_bytes(bytes(data))
    return file, original


def refusal(folder):
    """The message with which a checkpoint is refused, or None."""
    try:
        verify_checkpoint(folder)
    except RunError as error:
        return str(error)
    return None


def damaged_many_times(run, times, seed, trials):
    """Each damage is refused in one line that names the file, and the checkpoint before it is used."""
    dice = random.Random(seed)
    counts = [trials(2, "bytes flipped in a checkpoint"), trials(2, "files of a checkpoint cut short")]
    for turn in range(times):
        file, original = damage(run, dice, ("flip", "cut")[turn % 2])
        with counts[turn % 2].one():
            refused_and_passed_over(run, file, original)
        file.write_bytes(original)
    assert verify_checkpoint(checkpoint_folder(run, 16)).step == 16


def refused_and_passed_over(run, file, original):
    message = refusal(file.parent)
    if message is None:
        # A flip that leaves the manifest's meaning untouched (white space, an unread key).
        assert file.name == "MANIFEST.json", file
        kept = json.loads(file.read_bytes())["files"]
        assert kept == json.loads(original)["files"]
        return
    assert "\n" not in message
    assert file.name in message or "MANIFEST.json" in message
    with pytest.warns(DamagedCheckpoint, match=r"Using step-000008 instead\."):
        assert good_checkpoint(run, optimizer=True).step == 8


def test_flipped_and_cut_files(run, trials):
    damaged_many_times(run, 50, seed=0, trials=trials)


@pytest.mark.torture
def test_flipped_and_cut_files_many(run, trials):
    damaged_many_times(run, 1000, seed=1, trials=trials)


def test_every_single_file_missing(run):
    for name in FILES:
        file = checkpoint_folder(run, 16) / name
        data = file.read_bytes()
        file.unlink()
        if name == "MANIFEST.json":
            assert checkpoint_steps(run) == [8]
        elif name == "optimizer.safetensors":
            assert not verify_checkpoint(file.parent).has_optimizer
        else:
            with pytest.raises(RunError, match=rf"{name} is missing\."):
                verify_checkpoint(file.parent)
        file.write_bytes(data)


def test_all_damaged_is_an_error(run):
    for step in (8, 16):
        (checkpoint_folder(run, step) / "state.json").write_text("{}")
    with pytest.raises(RunError, match=r"has no intact checkpoint\. .*step-000016.*state\.json"):
        good_checkpoint(run)


def test_a_damaged_step_that_was_asked_for_is_an_error(run):
    (checkpoint_folder(run, 16) / "model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"model\.safetensors is damaged: 0 bytes"):
        good_checkpoint(run, 16)

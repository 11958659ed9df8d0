"""Training goes on from the last whole checkpoint, says so, and ends in the bytes of an undamaged run."""

import random
import shutil

import pytest
from small_runs import digests, small, stop_after

from training.session import resume, train
from workbench.errors import RunError
from workbench.runs.checkpoint import checkpoint_folder, checkpoint_steps
from workbench.runs.folder import DamagedCheckpoint


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was interrupted at step 29, and the digests of the whole one; not to be changed."""
    import os

    os.environ.setdefault("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    folder = tmp_path_factory.mktemp("stopped")
    train(small(), folder / "whole", quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 29)
        train(small(), folder / "run", quiet=True)
    return folder / "run", digests(folder / "whole")


def damaged(stopped, tmp_path, seed, how_many=1):
    """Flip a byte, or cut a file, of the last checkpoints; resume."""
    original, whole = stopped
    run, dice = tmp_path / "run", random.Random(seed)
    shutil.copytree(original, run)
    for step in checkpoint_steps(run)[-how_many:]:
        names = ("model.safetensors", "optimizer.safetensors", "state.json", "config.json")
        file = checkpoint_folder(run, step) / dice.choice(names)
        data = bytearray(file.read_bytes())
        if dice.random() < 0.5:
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        else:
            del data[dice.randrange(len(data)) :]
        file.write_bytes(data)
    with pytest.warns(DamagedCheckpoint, match=rf"{file.name} .*Using step-000024 instead\."):
        assert resume(run, quiet=True).finished
    assert digests(run) == whole


def test_a_damaged_last_checkpoint_costs_one_interval(stopped, tmp_path):
    damaged(stopped, tmp_path, seed=0)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(1, 25))
def test_damaged_in_many_ways(seed, stopped, tmp_path, trials):
    with trials(2, "damaged, resumed from the one before").one():
        damaged(stopped, tmp_path, seed)


def test_all_that_keep_the_optimiser_damaged(stopped, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(stopped[0], run)
    for file in run.glob("checkpoints/*/optimizer.safetensors"):
        file.write_bytes(b"")
    with pytest.raises(
        RunError, match=r"has no intact checkpoint\. .*step-000029/optimizer\.safetensors is damaged"
    ):
        resume(run, quiet=True)

"""A checkpoint to damage."""

import shutil
from pathlib import Path

import pytest
import torch
from small_runs import small

from workbench.model.transformer import HookedTransformer
from workbench.runs.checkpoint import save_checkpoint


@pytest.fixture(scope="session")
def pristine(tmp_path_factory) -> Path:
    """A run folder with config.yaml and the checkpoints of steps 8 and 16; not to be changed."""
    run = tmp_path_factory.mktemp("pristine") / "run"
    config = small().model
    for step in (8, 16):
        model = HookedTransformer(config)
        moments = {f"exp_avg.{name}": torch.full_like(p, float(step)) for name, p in model.named_parameters()}
        state = {"step": step, "tokens_seen": 32 * step, "seconds_trained": 0.5, "flags": []}
        save_checkpoint(run, model, moments, state)
    (run / "config.yaml").write_text("model: {}\n")
    return run


@pytest.fixture
def run(pristine, tmp_path) -> Path:
    """A copy of it."""
    shutil.copytree(pristine, tmp_path / "run")
    return tmp_path / "run"

"""A run folder around a model that is at hand."""

from pathlib import Path

from workbench.data.tokenizer import tokenizer_hash
from workbench.runs.checkpoint import save_checkpoint
from workbench.runs.folder import create_run


def write_run(path: Path, model) -> Path:
    """A run whose only checkpoint, of step 3, is the model as it is."""
    settings = {
        "model": model.config.to_dict(),
        "data": {"source": None},
        "train": {"seed": 0, "dtype": "float32"},
    }
    create_run(path, settings, model.tokenizer, {"name": "embedded stories", "fingerprint": "none"})
    state = {
        "step": 3, "tokens_seen": 0, "seconds_trained": 0.0, "seed": 0, "flags": [], "losses": [],
        "tokenizer": tokenizer_hash(model.tokenizer),
    }  # fmt: skip
    save_checkpoint(path, model, {}, state)
    return path

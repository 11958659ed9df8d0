"""Run folders for the explorer's tests: small, of every kind that a page meets, made in a second or two."""

import dataclasses
import json
import shutil
from pathlib import Path

from workbench.data.embedded.stories import stories
from workbench.data.pairs import open_pairs
from workbench.data.tokenizer import tokenizer_hash, train_tokenizer
from workbench.evals.blimp import blimp
from workbench.io import write_text
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer
from workbench.runs.checkpoint import checkpoint_folder, save_checkpoint
from workbench.runs.folder import create_run
from workbench.runs.run import load

HOSTILE = "<img src=x onerror=alert(1)> **b** [l](javascript:alert(2)) $x$ :red[c]"
"""A folder name that must stay text."""
HOSTILE_TEXT = 'The </script><img src=x onerror="window.hacked=1"> &amp; <b>cat</b> sat.'
SHAPE = dict(d_model=32, n_layers=2, n_heads=4, d_mlp=64, n_ctx=64)


def tokenizer():
    """One for all runs."""
    return train_tokenizer(stories(300), 700)


def make_run(
    path: Path, words, steps: tuple[int, ...] = (0, 8), flags: tuple[str, ...] = (), **fields
) -> Path:
    """A run with random weights, a little different at each checkpoint."""
    shape = {name: value for name, value in SHAPE.items() if name != "n_layers" or "layout" not in fields}
    config = ModelConfig(**shape | {"d_vocab": len(words)} | fields)
    settings = {"model": config.to_dict(), "data": {"source": None}, "train": {"seed": 0, "dtype": "float32"}}
    create_run(path, settings, words, {"name": "embedded stories"})
    for step in steps:
        model = HookedTransformer(dataclasses.replace(config, seed=step, init_std=0.2), words)
        state = {
            "step": step, "tokens_seen": 1000 * step, "seconds_trained": 1.0 * step, "seed": 0,
            "tokenizer": tokenizer_hash(words), "flags": list(flags),
        }  # fmt: skip
        save_checkpoint(path, model, {}, state)
    row = {"kind": "eval", "step": 8, "loss": 2.5, "bits_per_byte": 0.9, "perplexity": 12.2, "accuracy": 0.4}
    write_text(path / "metrics.jsonl", json.dumps(row | {"tokens": 900}) + "\n")
    return path


def score(path: Path, limit: int | None = None) -> None:
    """Score a run on the embedded pairs and save the result."""
    run = load(path)
    result = blimp(run, open_pairs(None), limit=limit)
    result.save(run)


def make_runs(root: Path) -> Path:
    """`scored`, `plain` (not scored), `masked`, `damaged`, one with a hostile name, and `group/inner`."""
    words = tokenizer()
    score(make_run(root / "scored", words))
    make_run(root / "plain", words, n_layers=1)
    make_run(root / "masked", words, attention="bidirectional")
    make_run(root / HOSTILE, words, n_layers=1)
    make_run(root / "group" / "inner", words, n_layers=1)
    damaged = make_run(root / "damaged", words, n_layers=1)
    for step in (0, 8):
        file = checkpoint_folder(damaged, step) / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-7])
    return root


def outside(root: Path) -> Path:
    """A run beside the runs folder, with a link to it from inside."""
    secret = root.parent / "secret"
    shutil.copytree(root / "plain", secret)
    (root / "linked").symlink_to(secret)
    return secret

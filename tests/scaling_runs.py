"""Families of runs whose losses follow a law that is known: no model is trained."""

import json
from pathlib import Path

import numpy as np

from workbench.io import write_json, write_text
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer
from workbench.runs.checkpoint import save_checkpoint

E, A, B, ALPHA, BETA = 1.1, 60.0, 300.0, 0.40, 0.35
"""Of `loss`: nats a token, N all parameters."""
TOKENS_A_STEP = 1000


def loss(n, d):
    """The law."""
    return E + A / np.asarray(n, float) ** ALPHA + B / np.asarray(d, float) ** BETA


def config(width: int, **fields) -> ModelConfig:
    return ModelConfig(**dict(d_model=width, n_layers=1, n_heads=2, d_vocab=64, n_ctx=8) | fields)


def make_run(
    path: Path, shape: ModelConfig, tokens: float, noise: float = 0.0, schedule: str | None = None,
    tokenizer: str = "t", evaluations: int = 1, blimp: float | None = None, finished: bool = True,
    value: float | None = None,
) -> Path:  # fmt: skip
    """A run folder that ended after `tokens`, with `evaluations` on its way."""
    steps = max(evaluations, round(tokens / TOKENS_A_STEP))
    train = {"seed": 0, "batch_size": 4} | ({"schedule": schedule} if schedule else {})
    path.mkdir(parents=True)
    write_text(path / "config.yaml", json.dumps({"model": shape.to_dict(), "train": train}))
    write_json(path / "data.json", {"name": "made up", "fingerprint": "f"})
    state = {
        "step": steps, "tokens_seen": steps * TOKENS_A_STEP, "seconds_trained": 1.0, "seed": 0,
        "tokenizer": tokenizer, "flags": [],
    }  # fmt: skip
    save_checkpoint(path, HookedTransformer(shape), {}, state)
    rows = []
    for place in np.geomspace(max(1, steps / 40), steps, evaluations) if evaluations > 1 else [steps]:
        step = round(place)
        found = float(loss(shape.n_params, step * TOKENS_A_STEP) * np.exp(noise))
        found = found if value is None else value
        last = finished and step == steps
        rows.append({"kind": "eval", "step": step, "loss": found, "bits_per_byte": found / 3, "final": last})
    write_text(path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    if blimp is not None:
        score(path, blimp)
    return path


def score(path: Path, accuracy: float, protocol: str = "native", pairs: int = 1000) -> None:
    """A saved result on minimal pairs with two phenomena: one at `accuracy`, one at chance."""
    share = {"low": accuracy - 0.03, "high": accuracy + 0.03, "n": pairs, "ties": 0}
    write_json(
        path / "blimp" / f"1-{protocol}.json",
        {
            "pairs": "blimp", "protocol": {"name": protocol}, "pll": None,
            "phenomena": [
                {"phenomenon": "agreement", "accuracy": accuracy, **share},
                {"phenomenon": "islands", "accuracy": 0.5, **share},
            ],
            "mean_over_phenomena": {"accuracy": (accuracy + 0.5) / 2, **share},
        },
    )  # fmt: skip


def make_family(
    root: Path, widths=(8, 16, 32, 64), tokens=(2e5, 6e5, 2e6, 6e6), noise=0.005, **fields
) -> Path:
    """Every width with every number of tokens."""
    generator = np.random.default_rng(0)
    for width in widths:
        for count in tokens:
            shape = config(width)
            grammar = 0.5 + 0.1 * np.log10(shape.n_params / 1000)
            make_run(
                root / f"w{width}-d{count:.0e}", shape, count, noise * generator.standard_normal(),
                blimp=float(grammar) if count == max(tokens) else None, **fields,
            )  # fmt: skip
    return root

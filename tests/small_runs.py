"""Runs small enough to be trained, killed and compared many times in a test."""

import hashlib
import multiprocessing
import os
from pathlib import Path

from workbench.runs.config import RunSettings, resolve

SMALL = {
    "model": {"d_model": 16, "n_layers": 1, "n_heads": 2, "d_mlp": 32, "d_vocab": 300, "n_ctx": 16},
    "data": {"n_stories": 60},
    "train": {
        "batch_size": 2,
        "steps": 40,
        "dtype": "float32",
        "threads": 1,
        "log_every": 3,
        "eval_every": 10,
        "eval_tokens": 64,
        "final_eval_tokens": 256,
        "checkpoint_every": 8,
        "sample_tokens": 4,
    },
}


def small(*assignments: str) -> RunSettings:
    """Settings of a run of some milliseconds a step."""
    return resolve(SMALL, assignments=list(assignments))


def masked(*assignments: str) -> RunSettings:
    """The same for a masked model."""
    return small("model.objective=mlm", "model.attention=bidirectional", *assignments)


VARIANTS = {
    "clm": small(),
    "mlm": masked(),
    "dropout": small("model.dropout=0.2"),
    "bf16": small("train.dtype=bfloat16"),
    "accumulated": small("train.accumulate=3"),
    "stories apart": small("data.cross_story=false"),
    "tokens": small("train.steps=null", "train.tokens=1270"),
}
"""Every way of training that must repeat to the byte, interrupted or not."""


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of what must repeat: the metrics, and the last checkpoint's weights and optimiser."""
    last = max((run / "checkpoints").glob("step-*"))
    files = [
        run / "metrics.jsonl",
        run / "tokenizer.json",
        last / "model.safetensors",
        last / "optimizer.safetensors",
    ]
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return found | {"last": last.name}


def trained_digests(run: Path) -> dict[str, str]:
    """`digests`, and every file of every checkpoint by name: which there are is part of what must repeat."""
    folder = run / "checkpoints"
    kept = sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))
    return digests(run) | {"checkpoints": " ".join(kept)}


def children() -> multiprocessing.context.ForkServerContext:
    """Starts processes that have everything imported already: a start takes milliseconds."""
    here = str(Path(__file__).parent)
    if here not in os.environ.get("PYTHONPATH", ""):  # the server does not look where pytest does
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm_start"])
    return context


def child_train(settings: RunSettings, out: str) -> None:
    """Target of a child process: train, and exit as the command line would."""
    from training.command import report
    from training.session import train
    from training.terminal import guarded

    os._exit(guarded(lambda: report(train(settings, Path(out), quiet=True))))


def child_resume(run: str) -> None:
    """Target of a child process: resume, and exit as the command line would."""
    from training.command import report
    from training.session import resume
    from training.terminal import guarded

    os._exit(guarded(lambda: report(resume(run, quiet=True))))


def stop_after(monkeypatch, *steps: int) -> list[int]:
    """Make each call of `fit` see a signal once it has done so many updates; returns those still to come."""
    from training.loop import Trainer

    pending = list(steps)
    update = Trainer._update

    def counted(self):
        update(self)
        if pending and self.step >= pending[0]:
            pending.pop(0)
            self.stopping = lambda: True

    monkeypatch.setattr(Trainer, "_update", counted)
    return pending

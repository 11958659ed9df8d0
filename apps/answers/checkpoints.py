"""The other checkpoints of the opened run: opened one by one, and how long that takes."""

import time
from pathlib import Path

import streamlit as st

from apps.answers import catalogue
from apps.answers.catalogue import Opened
from workbench.runs.folder import good_checkpoint
from workbench.runs.run import Run

LIGHT = 2_000_000
"""Parameters up to which the models of all checkpoints stay in memory, and answers about each are live."""
KEPT, TRIES = 16, 4


def at_step(opened: Opened, step: int) -> Opened:
    """The same run at another checkpoint; the opened one itself at its own.

    Raises:
        WorkbenchError: the checkpoint is gone or damaged.
    """
    if step == opened.run.step:
        return opened
    path, digest = str(opened.run.path), catalogue.fingerprint(opened.run.path, step)
    return _kept(path, step, digest) if is_light(opened) else _read(path, step, digest)


def key_of(opened: Opened, step: int) -> str:
    """What answers about the run at `step` are kept under: changes with the checkpoint's content."""
    return f"{catalogue.fingerprint(opened.run.path, step)}@{step}"


def is_light(opened: Opened) -> bool:
    """Whether the models of several checkpoints may be held in memory together."""
    return opened.model.config.n_params <= LIGHT


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def _kept(path: str, step: int, digest: str) -> Opened:
    return _read(path, step, digest)


def _read(path: str, step: int, digest: str) -> Opened:
    run = Run(Path(path), good_checkpoint(Path(path), step))
    return Opened(run, f"{digest}@{step}")


def tokens_a_second(opened: Opened) -> float:
    """Tokens that the model reads in a second on this machine, measured once."""
    return _pace(opened, opened.key)


@st.cache_resource(max_entries=32, show_spinner=False)
def _pace(_opened: Opened, key: str) -> float:
    import torch

    config = _opened.model.config
    rows = torch.zeros((8, min(32, config.n_ctx)), dtype=torch.long)
    with _opened.lock, torch.inference_mode():
        spent = []
        for _ in range(TRIES):
            began = time.perf_counter()
            _opened.model(rows, return_type="logits")
            spent.append(time.perf_counter() - began)
    return rows.numel() / max(min(spent), 1e-6)

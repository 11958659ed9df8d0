"""Names of what activations are of: the weights, the corpus."""

import dataclasses
import hashlib
import json
from typing import Any

from probes.activations.blocks import Blocks
from workbench.runs.checkpoint import weights_of


def model_key(run: Any, untrained: bool = False) -> str:
    """A name of the weights: the beginning of their SHA-256, or what an untrained copy is made of.

    Args:
        run: a run, whose manifest knows the hash, or a `HookedTransformer`, whose weights are hashed.
        untrained: of `workbench.interp.texts.untrained_copy`; equal for all checkpoints of a run.
    """
    if untrained:
        config = run.checkpoint.config if hasattr(run, "checkpoint") else run.config
        return f"untrained-{hashlib.sha256(_shape(config).encode()).hexdigest()[:24]}"
    config = run.checkpoint.config if hasattr(run, "checkpoint") else run.config
    return hashlib.sha256(f"{weights_key(run)} {_shape(config)}".encode()).hexdigest()[:24]


def weights_key(run: Any) -> str:
    """SHA-256 of the weights."""
    if hasattr(run, "checkpoint"):
        return weights_of(run.checkpoint.path)
    digest = hashlib.sha256()
    for name, tensor in sorted(run.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def corpus_key(blocks: Blocks, token: str) -> str:
    """A name of the corpus' tokens and rows, and of the choice of token."""
    return f"{blocks.digest(token)}-{token}"


def _shape(config: Any) -> str:
    return json.dumps(dataclasses.asdict(config), sort_keys=True, default=str)

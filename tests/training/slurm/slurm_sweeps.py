"""Sweeps of a few seconds a member, and what their folders must hold in the end."""

import copy
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from small_runs import SMALL

from training.sweep.plan import Plan, make_plan, write_plan
from training.sweep.status import raw_status
from workbench.runs.checkpoint import checkpoint_steps


def make_sweep(
    folder: Path, steps: int, d_mlp: tuple[int, ...] = (32, 40, 48, 56), **sections: object
) -> Plan:
    """Write the plan of a sweep over d_mlp into `folder`."""
    base = copy.deepcopy(SMALL)
    base["train"] |= {"steps": steps, "checkpoint_every": 50, "eval_every": 100}
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(yaml.safe_dump({"base": base, "grid": {"model.d_mlp": list(d_mlp)}, **sections}))
    plan = make_plan(file)
    write_plan(plan, folder)
    return plan


def contents(folder: Path, plan: Plan) -> dict[str, dict[str, str]]:
    """SHA-256 of every member's metrics, tokenizer and last checkpoint."""
    return {member.name: _digests(folder / member.name) for member in plan.members}


def _digests(run: Path) -> dict[str, str]:
    last = run / "checkpoints" / f"step-{max(checkpoint_steps(run)):06d}"
    files = [run / "metrics.jsonl", run / "tokenizer.json"]
    files += [last / "model.safetensors", last / "optimizer.safetensors"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files} | {"last": last.name}


def step_of(folder: Path, member: str) -> int:
    """The member's last checkpoint; -1 before there is one."""
    return max(checkpoint_steps(folder / member), default=-1)


def process_of(folder: Path, member: str) -> int:
    """The process that trains the member."""
    process = raw_status(folder, member)["pid"]
    assert isinstance(process, int)
    assert process != os.getpid()
    return process


def until(condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for: {what}"
        time.sleep(0.1)

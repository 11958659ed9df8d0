"""What a plan costs: seconds by a probe of each member's own training step, bytes by counting checkpoints."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

from training.schedule import LAST_DENSE_CHECKPOINT
from training.sweep.plan import Member, Plan
from workbench.runs.config import RunSettings

PROBE_SECONDS = 20.0
"""Spent on probing in all; shapes that are left then are estimated from their FLOPs."""
_LARGEST_STEP = 4e10
"""FLOPs of a probed step at most, where rows can be left out."""
_HOPELESS = 2e12
"""A single row of more FLOPs than this is not probed."""


def estimate(
    plan: Plan,
    *,
    validation_tokens: int = 0,
    seconds: float = PROBE_SECONDS,
    tick: Callable[[int, int], None] = lambda done, of: None,
) -> Plan:
    """The plan with seconds and bytes of every member, and tokens where the limit is in minutes.

    Each different shape trains a few steps on random tokens, on as many threads as this process has. Once
    `seconds` are used up, the others are taken at the FLOPs a second of the probed shape that is nearest in
    size; `Member.measured` says which.

    Args:
        plan: the plan.
        validation_tokens: of the validation split, for the evaluation at the end.
        seconds: for all probes together.
        tick: told how many of how many shapes are probed.
    """
    shapes: dict[str, RunSettings] = {}
    for member in plan.members:
        shapes.setdefault(_shape(member.settings), member.settings)
    until = time.perf_counter() + seconds
    rates: dict[str, float] = {}
    for number, (shape, settings) in enumerate(shapes.items()):
        tick(number, len(shapes))
        if (not rates or time.perf_counter() < until) and settings.model.flops_per_token * (
            settings.model.n_ctx
        ) < _HOPELESS:
            rates[shape] = probe(settings, seconds=min(1.0, seconds / len(shapes)))
    known = [(shapes[shape].model.flops_per_token, rate) for shape, rate in rates.items()]

    def rate_of(settings: RunSettings) -> tuple[float | None, bool]:
        shape = _shape(settings)
        if shape in rates:
            return rates[shape], True
        if not known:
            return None, False
        size = settings.model.flops_per_token
        near, rate = min(known, key=lambda pair: abs(math.log(pair[0] / size)))
        return rate * near / size, False

    made = []
    for member in plan.members:
        rate, measured = rate_of(member.settings)
        made.append(_with_costs(member, rate, measured, validation_tokens))
    return dataclasses.replace(plan, members=tuple(made))


def _shape(settings: RunSettings) -> str:
    train = settings.train
    model = dataclasses.replace(settings.model, seed=0)
    return repr((model, train.batch_size, train.dtype, train.threads, train.optimizer))


def probe(settings: RunSettings, seconds: float = 1.0) -> float:
    """Tokens a second of this run's training step on this machine: forward, backward, update.

    Large steps are probed with fewer rows, never with more FLOPs than a second or so of work.
    """
    import torch

    from training.device import pick_device
    from training.optimizers import make_optimizer
    from workbench.model.transformer import HookedTransformer

    shape = settings.model
    rows = max(1, min(settings.train.batch_size, int(_LARGEST_STEP / (shape.flops_per_token * shape.n_ctx))))
    device = pick_device(settings.train.device)
    model = HookedTransformer(shape).to(device)
    dtype = _dtype(settings, device)
    optimizer = make_optimizer(model, dataclasses.replace(settings.train, dtype=dtype))
    noise = torch.Generator().manual_seed(0)
    tokens = torch.randint(shape.d_vocab, (rows, shape.n_ctx), generator=noise).to(device)
    model.train()

    def step() -> float:
        began = time.perf_counter()
        model.loss(tokens, tokens).backward()
        optimizer.step(1e-9)  # its norm is a number: a GPU has been waited for
        optimizer.zero_grad()
        return time.perf_counter() - began

    took, until = [step()], time.perf_counter() + seconds
    while len(took) < 3 or (time.perf_counter() < until and len(took) < 30):
        took.append(step())
    return rows * shape.n_ctx / sorted(took[1:])[len(took[1:]) // 2]


def _dtype(settings: RunSettings, device: Any) -> str:
    from training.memo import remembered
    from training.precision import faster_dtype

    if settings.train.dtype != "auto":
        return settings.train.dtype
    return remembered(("dtype", str(device)), lambda: faster_dtype(device))


def _with_costs(member: Member, rate: float | None, measured: bool, validation_tokens: int) -> Member:
    train, each = member.settings.train, member.settings.tokens_per_step
    tokens = member.tokens
    if train.minutes is not None and rate is not None:
        tokens = max(1, round(train.minutes * 60 * rate / each)) * each
    if tokens is None:
        return dataclasses.replace(member, seconds=train.minutes * 60 if train.minutes else None)
    steps = tokens // each
    seconds = train.minutes * 60 if train.minutes is not None else None if rate is None else tokens / rate
    if seconds is not None and rate is not None:
        # A pass without backward costs a third.
        read = steps // train.eval_every * min(train.eval_tokens, validation_tokens or train.eval_tokens)
        read += min(train.final_eval_tokens or validation_tokens, validation_tokens)
        seconds += read / (3 * rate)
    return dataclasses.replace(
        member, tokens=tokens, seconds=seconds, bytes=disk(member, steps), measured=measured
    )


def disk(member: Member, steps: int) -> int:
    """Bytes of the checkpoints that stay: float32 weights, with the last ones two moments; little else."""
    train = member.settings.train
    count = len(checkpoints(steps, train.checkpoint_every))
    with_moments = min(count, train.keep_optimizer or count)
    small = 3_000 * count + 70 * member.settings.model.d_vocab  # states, manifests; the tokenizer
    return 4 * member.parameters * (count + 2 * with_moments) + small


def checkpoints(steps: int, every: int) -> set[int]:
    """Steps at which a run of so many steps is saved (see `training.schedule.checkpoint_due`)."""
    dense = {0, *(2**power for power in range(LAST_DENSE_CHECKPOINT.bit_length()))}
    return {step for step in dense if step <= steps} | set(range(0, steps + 1, every)) | {steps}


def total_seconds(plan: Plan, jobs: int = 1) -> float | None:
    """Seconds for the whole sweep with so many members side by side; None if one of them is not known."""
    each = [member.seconds for member in plan.members]
    if any(seconds is None for seconds in each):
        return None
    known: list[Any] = each
    return max(sum(known) / max(1, min(jobs, len(known))), max(known, default=0.0))

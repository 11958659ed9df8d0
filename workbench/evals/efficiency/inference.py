"""Milliseconds a token at batch 1 on one thread, in float32 and in int8."""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from workbench.errors import InputError
from workbench.evals.efficiency.int8 import int8_bytes, int8_copy


@dataclasses.dataclass(frozen=True)
class Inference:
    """What a model costs at batch 1 on one thread."""

    ms_float32: float
    """Milliseconds a token."""
    ms_int8: float | None
    """The same with int8 matrices; None where this machine cannot."""
    bytes_float32: int
    """Bytes of the weights."""
    bytes_int8: int | None
    how: str
    """What was timed, in words."""
    why_not: str | None = None
    """Why there is no int8 figure."""


def inference(model: Any, seconds: float = 1.0) -> Inference:
    """Time a model at batch 1 on one thread of the CPU.

    A causal model reads one token after another with its key-value cache, from the middle of its context
    on. A masked model, which writes nothing, reads whole contexts; its time is divided by their length.
    float32 and int8 take turns, so that a busy machine disturbs both; the median of the turns is given.

    Args:
        model: a `HookedTransformer`.
        seconds: about how long to measure, for both together.
    """
    config = model.config
    causal = config.objective == "clm"
    plain = model.cpu().float().eval()
    try:
        quantised, why_not = int8_copy(plain), None
    except InputError as error:
        quantised, why_not = None, str(error)
    turns: dict[str, list[float]] = {"float32": [], "int8": []}
    turn = _one_by_one if causal else _whole_context
    models = {"float32": plain} | ({} if quantised is None else {"int8": quantised})
    with _one_thread(), torch.inference_mode():
        for made in models.values():
            turn(made)()
        until = time.perf_counter() + seconds
        while len(turns["float32"]) < 3 or time.perf_counter() < until:
            for name, made in models.items():
                turns[name].append(turn(made)())
    start = max(0, config.n_ctx // 2 - 1)
    return Inference(
        ms_float32=1000 * statistics.median(turns["float32"]),
        ms_int8=1000 * statistics.median(turns["int8"]) if turns["int8"] else None,
        bytes_float32=4 * config.n_params,
        bytes_int8=None if quantised is None else int8_bytes(quantised),
        how=f"one token after another with a key-value cache, from position {start} on"
        if causal
        else f"a whole context of {config.n_ctx} tokens at once, divided by its length",
        why_not=why_not,
    )


def _one_by_one(model: Any) -> Callable[[], float]:
    """A turn that reads up to 32 tokens behind half a context; returns seconds a token."""
    config = model.config
    start = max(0, config.n_ctx // 2 - 1)
    count = min(32, config.n_ctx - start)
    noise = torch.Generator().manual_seed(0)
    tokens = torch.randint(config.d_vocab, (1, start + count), generator=noise)

    def turn() -> float:
        cache = model.new_cache(1)
        if start:
            model.residual(tokens[:, :start], cache=cache)
        began = time.perf_counter()
        for place in range(start, start + count):
            model.unembed(model.residual(tokens[:, place : place + 1], cache=cache))
        return (time.perf_counter() - began) / count

    return turn


def _whole_context(model: Any) -> Callable[[], float]:
    noise = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.config.d_vocab, (1, model.config.n_ctx), generator=noise)

    def turn() -> float:
        began = time.perf_counter()
        model.unembed(model.residual(tokens))
        return (time.perf_counter() - began) / model.config.n_ctx

    return turn


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

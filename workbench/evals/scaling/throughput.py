"""How many tokens a second this machine trains, measured by a few steps of a model of random weights."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from workbench.errors import InputError


@dataclasses.dataclass(frozen=True)
class Speed:
    """Tokens a second over the number of parameters, measured at some sizes."""

    n: tuple[float, ...]
    """Parameters, in order."""
    tokens_per_second: tuple[float, ...]
    device: str

    def at(self, n: Any) -> Any:
        """Tokens a second of a model of `n` parameters: straight lines in the logarithms, and beyond the
        measured sizes in proportion to 1 / N."""
        x, known = np.log(np.asarray(n, float)), np.log(self.n)
        inside = np.interp(x, known, np.log(self.tokens_per_second))
        beyond = x - np.clip(x, known[0], known[-1])
        return np.exp(inside - beyond)


def measure_speed(
    configs: Sequence[Any],
    *,
    batch_size: int = 16,
    seconds: float = 3.0,
    sizes: Sequence[float] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Speed:
    """Time training steps (forward, backward, an AdamW update) of models of these shapes.

    Args:
        configs: shapes; two or three that span the sizes of interest.
        batch_size: windows of n_ctx tokens in a step.
        seconds: time for each shape, after two steps that warm up.
        sizes: what to call each shape's size; its parameters if not set.
        progress: called with shapes done and all.

    Raises:
        InputError: no shapes.
    """
    if not configs:
        raise InputError("no shapes to measure the speed of.")
    rows = []
    for index, config in enumerate(configs):
        size = float(config.n_params) if sizes is None else float(sizes[index])
        rows.append((size, _rate(config, batch_size, seconds)))
        progress(index + 1, len(configs))
    rows.sort()
    return Speed(tuple(n for n, _ in rows), tuple(rate for _, rate in rows), _device())


def _rate(config: Any, batch_size: int, seconds: float) -> float:
    import torch

    from workbench.model.transformer import HookedTransformer

    device = _device()
    model = HookedTransformer(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, config.d_vocab, (batch_size, config.n_ctx), generator=generator).to(device)

    def step() -> None:
        model.loss(tokens, tokens).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(2):
        step()
    began, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - began < seconds:
        step()
        steps += 1
    return steps * batch_size * config.n_ctx / (time.perf_counter() - began)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

"""How large activations will be, before they are computed."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.errors import InputError

PER_HEAD_COPIES = ("hook_result", "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input")
"""Copies of the residual stream for each head: kept only where they are asked for by name."""


Names = Callable[[str], Any] | Iterable[str] | str | None
"""A choice of hook points: a test of names, names, one name, or None for the default."""


def kept_by_default(name: str) -> bool:
    """Whether `run_with_cache` keeps a hook point's activation when no filter is given."""
    return not name.endswith(PER_HEAD_COPIES)


def activation_bytes(model: Any, batch: int, pos: int, names: Names = None) -> dict[str, int]:
    """The bytes of each activation that `run_with_cache` would keep, by hook name.

    The model runs on torch's meta device, which knows shapes and holds no numbers.

    Args:
        model: a `HookedTransformer`.
        batch: rows.
        pos: tokens in each.
        names: which hook points, as `names_filter`; by default what `run_with_cache` keeps by default.

    Raises:
        InputError: `pos` is beyond the context.
    """
    config = model.config
    if pos > config.n_ctx:
        raise InputError(f"the sequence has {pos} tokens, the context is {config.n_ctx}.")
    with torch.device("meta"):
        paper = type(model)(config).to(model.dtype).eval()
    found: dict[str, int] = {}

    def note(x: Tensor, hook: Any) -> None:
        found[hook.name] = x.numel() * x.element_size()

    tokens = torch.zeros(batch, pos, dtype=torch.long, device="meta")
    seen = None
    if config.attention != "causal":
        seen = torch.ones(1, 1, pos, pos, dtype=torch.bool, device="meta")
    hooks = [(name, note) for name in _chosen(names, paper.hook_dict)]
    with torch.no_grad(), paper.hooks(fwd_hooks=hooks):
        paper.residual(tokens, mask=seen)
    return found


def at_most(model: Any, batch: int, pos: int) -> int:
    """Bytes that no choice of activations exceeds, in no time; often far too many."""
    c = model.config
    heads = c.n_heads * (2 * pos + 4 * c.d_model + 6 * max(c.head_width, c.value_width))
    tokens = 24 * c.d_model + heads + 6 * c.mlp_width * c.mlp_depth
    return 8 * batch * pos * (tokens * c.n_layers + 16 * max(c.d_model, c.embed_width, c.readout_width))


def _chosen(names: Names, there: Iterable[str]) -> list[str]:
    if names is None:
        names = kept_by_default
    if not callable(names):
        names = ({names} if isinstance(names, str) else set(names)).__contains__
    return [name for name in there if names(name)]


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_available(), _below_limit()]
    return min((amount for amount in found if amount is not None), default=None)


def refuse_large_cache(model: Any, batch: int, pos: int, names: Names) -> None:
    """Refuse to keep activations that do not fit into free memory. Small ones are let pass unmeasured.

    Raises:
        InputError: with the number of bytes and what can be done.
    """
    free = free_memory(model.device)
    if free is None or at_most(model, batch, pos) <= free:
        return
    needed = sum(activation_bytes(model, batch, pos, names).values())
    if needed > free:
        raise InputError(
            f"a cache of {batch} x {pos} tokens takes {in_words(needed)}, and {in_words(free)} are free; "
            "name what you need in names_filter, or run fewer or shorter texts."
        )


def in_words(count: int | float) -> str:
    """Bytes as a person reads them: `3.4 GiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def _available() -> int | None:
    """What the kernel would give away, or all there is."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _below_limit() -> int | None:
    """What a container's limit leaves."""
    try:
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):
        return None
    return max(limit - used, 0)

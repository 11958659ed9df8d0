"""How large activations will be, before they are computed."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ConfigError, InputError
from workbench.model.config import modules

# Parameters, floating-point operations and memory of a configuration, before anything is allocated.


def count_parameters(config: Any) -> dict[str, int]:
    """Trainable parameters by part: embedding (vectors of tokens, positions and token types, with their
    projection), attention, mlp, norms, mixing (weights of earlier layers) and readout."""
    c = config
    kinds = modules(c.layout, c.n_layers)
    n_attention, n_mlp = c.n_layers - kinds["m"], c.n_layers - kinds["a"]
    attentions = min(n_attention, 1) if c.sharing in ("all", "attention") else n_attention
    mlps = min(n_mlp, 1) if c.sharing in ("all", "mlp") else n_mlp
    attention_norms = min(n_attention, 1) if c.sharing == "all" else n_attention
    former, post = c.norm_place == "normformer", c.norm_place == "post"
    mlp_norms = n_mlp - (kinds["(am)"] if post else 0)  # post-norm has one norm behind both
    if c.sharing == "all":
        mlp_norms = min(mlp_norms, 1)
    weighted = c.residual == "weighted"
    return {
        "embedding": _embedding(c),
        "attention": attentions * _attention(c),
        "mlp": mlps * _mlp(c),
        "norms": _norm(c, c.d_model)
        * (attention_norms * (1 + former) + mlp_norms + (not post))  # normformer's other one is in the MLP
        + (_norm(c, c.embed_width) if c.embed_norm else 0),
        "mixing": c.n_layers * (c.n_layers + 3) // 2 if weighted else 0,
        "readout": _readout(c),
    }


def _norm(c: Any, width: int) -> int:
    return {"LayerNorm": 2, "RMSNorm": 1, "none": 0}[c.norm] * width


def _embedding(c: Any) -> int:
    rows = c.d_vocab + c.token_types
    rows += c.n_ctx + c.position_offset if c.positions == "learned" else 0
    up = 0 if c.d_embed is None else c.d_embed * c.d_model + c.d_model
    buckets = c.relative_buckets * c.n_heads if c.positions == "t5" else 0
    return rows * c.embed_width + up + buckets


def _attention(c: Any) -> int:
    into = c.n_heads * c.head_width + c.kv_heads * (c.head_width + c.value_width)
    out = c.n_heads * c.value_width
    biases = (into if c.qkv_bias else 0) + (c.d_model if c.out_bias else 0)
    tables = (2 * c.farthest + 1) * (c.head_width + c.value_width) if c.positions == "shaw" else 0
    scales = c.n_heads if c.norm_place == "normformer" else 0
    return c.d_model * (into + out) + biases + tables + scales


def _mlp(c: Any) -> int:
    hidden, copies = c.mlp_width, 2 if c.gated else 1
    each = (hidden if c.mlp_bias else 0) + (hidden if c.activation == "prelu" else 0)
    each += _after_norm(c) if c.activation == "solu_ln" else 0
    inner = (c.mlp_depth - 1) * (copies * hidden * hidden + each)
    former = c.norm_place == "normformer" and c.activation != "solu_ln"
    out = hidden * c.d_model + (c.d_model if c.mlp_bias else 0)
    return copies * c.d_model * hidden + each + inner + out + (_after_norm(c) if former else 0)


def _after_norm(c: Any) -> int:
    """Parameters of the norm behind an activation, which is LayerNorm in a model without norms."""
    return (1 if c.norm == "RMSNorm" else 2) * c.mlp_width


def _readout(c: Any) -> int:
    width = c.readout_width
    head = c.d_model * width + width + _norm(c, width) if c.mlm_head else 0
    return head + (0 if c.tied else c.d_vocab * width) + (c.d_vocab if c.unembed_bias else 0)


def flops_per_token(config: Any) -> int:
    """Multiply-adds x 2 of one training token, forward and backward (Kaplan et al. 2020, 6N): matrix
    products only, attention over as many keys as a query of a full context sees on average."""
    c = config
    kinds = modules(c.layout, c.n_layers)
    n_attention, n_mlp = c.n_layers - kinds["m"], c.n_layers - kinds["a"]
    into = c.n_heads * c.head_width + c.kv_heads * (c.head_width + c.value_width)
    out = c.n_heads * c.value_width
    keys = 0.0
    windows = c.windows or (0,)
    for place, window in enumerate(windows):
        seen = min(window or c.n_ctx, c.n_ctx)
        one_side = seen - seen * seen / (2 * c.n_ctx)
        times = (n_attention - place + len(windows) - 1) // len(windows)
        keys += times * one_side * (1 if c.attention == "causal" else 2)
    pattern = round(keys * c.n_heads * (c.head_width + c.value_width))
    copies = 2 if c.gated else 1
    mlp = (copies + 1) * c.d_model * c.mlp_width + copies * (c.mlp_depth - 1) * c.mlp_width**2
    factor = 0 if c.d_embed is None else c.d_embed * c.d_model
    ends = factor + (c.d_model * c.readout_width if c.mlm_head else factor if c.tied else 0)
    layers = n_attention * c.d_model * (into + out) + n_mlp * mlp
    return 6 * (layers + pattern + ends + c.readout_width * c.d_vocab)


def memory() -> int | None:
    """Bytes of memory of this machine; None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _tables(c: Any) -> int:
    """Bytes of the position tables that are no weights, in float64 and once in the model's own type."""
    widths = {"rotary": 2 * c.head_width, "sinusoidal": c.embed_width}
    return 12 * c.n_ctx * widths.get(c.positions, 0)


def refuse_too_large(config: Any) -> None:
    """Refuse a model whose float32 weights and tables would not fit into this machine's memory.

    Raises:
        ConfigError: naming the fields that size a model.
    """
    # A module object takes about 40 kB beside its weights; a million tiny blocks do not fit either.
    needed, there = 4 * config.n_params + 40_000 * config.n_layers + _tables(config), memory()
    if there is not None and needed > there:
        raise ConfigError(
            f"a model of {config.n_params:,} parameters needs {needed / 2**30:,.1f} GiB and this machine has "
            f"{there / 2**30:,.1f}; make model.n_layers, d_model, d_mlp, d_vocab or n_ctx smaller."
        )


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

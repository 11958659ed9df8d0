"""The largest batch that fits: tried on a GPU, predicted on a CPU."""

import dataclasses
from pathlib import Path
from typing import Any

SHARE = 0.85
"""Of the memory that is free; the rest is left to others, and to evaluation."""
WORKING = 1.5
"""A backward pass's peak over what the forward pass keeps."""
LARGEST = 4096


@dataclasses.dataclass(frozen=True)
class LargestBatch:
    """How many windows a forward and backward pass can take."""

    windows: int
    """A power of two, at most 4,096."""
    bytes_fixed: int
    """Weights, gradient and optimiser."""
    bytes_per_window: int
    bytes_free: int
    measured: bool
    """Whether passes of that size were tried, or only predicted."""


def largest_batch(model: Any, optimizer: Any, n_ctx: int) -> LargestBatch:
    """Find it for a model in training, with its optimiser. The model's weights do not change.

    Args:
        model: a `HookedTransformer` on its device.
        optimizer: over its parameters.
        n_ctx: tokens in a window.
    """
    import torch

    fixed = sum(tensor.numel() * tensor.element_size() for tensor in optimizer.state().values())
    fixed += 3 * optimizer.masters.numel() * optimizer.masters.element_size()
    window = _kept_bytes(model, n_ctx)
    if model.device.type == "cuda":
        windows, free = _tried(model, optimizer, n_ctx), torch.cuda.mem_get_info(model.device)[0]
        return LargestBatch(windows, fixed, window, free, True)
    free = free_bytes()
    most = max(1, int((SHARE * free - fixed) / (WORKING * window)))
    return LargestBatch(min(LARGEST, 1 << (most.bit_length() - 1)), fixed, window, free, False)


def free_bytes(root: Path = Path("/")) -> int:
    """Memory that this process may still take: the machine's, or its control group's where that is less."""
    limits = []
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    group = root / "sys/fs/cgroup"
    most, used = _read(group / "memory.max").strip(), _read(group / "memory.current").strip()
    if most.isdecimal() and used.isdecimal():
        limits.append(max(0, int(most) - int(used)))
    return min(limits) if limits else 2**32


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _kept_bytes(model: Any, n_ctx: int) -> int:
    """What the forward pass of one window keeps for the backward pass."""
    import torch

    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def kept(windows: int) -> int:
        seen: dict[int, int] = {}

        def note(tensor: Any) -> Any:
            place = tensor.untyped_storage().data_ptr()
            if place not in own:
                seen[place] = tensor.untyped_storage().nbytes()
            return tensor

        tokens = _tokens(model, windows, n_ctx)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model.loss(tokens, tokens)
        del loss
        return sum(seen.values())

    # The difference is without what does not grow, such as the readout's gradient.
    return max(1, kept(2) - kept(1))


def _tokens(model: Any, windows: int, n_ctx: int) -> Any:
    import torch

    noise = torch.Generator().manual_seed(0)
    return torch.randint(model.config.d_vocab, (windows, n_ctx), generator=noise).to(model.device)


def _tried(model: Any, optimizer: Any, n_ctx: int) -> int:
    """Double the batch until the GPU's memory is full."""
    import torch

    fits = 0
    windows = 1
    while windows <= LARGEST:
        try:
            tokens = _tokens(model, windows, n_ctx)
            model.loss(tokens, tokens).backward()
            optimizer.gather()
            torch.cuda.synchronize(model.device)
        except torch.cuda.OutOfMemoryError:
            break
        finally:
            optimizer.zero_grad()
        fits, windows = windows, 2 * windows
        if torch.cuda.max_memory_allocated(model.device) > SHARE * _total(model):
            break
    torch.cuda.empty_cache()
    return max(1, fits)


def _total(model: Any) -> int:
    import torch

    return torch.cuda.get_device_properties(model.device).total_memory

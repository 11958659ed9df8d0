"""Inference cost of a model: milliseconds per token at batch 1 on one thread, in float32 and in int8.

int8 is dynamic quantisation: matrices are int8 and activations are quantised as they come.
"""

import contextlib
import copy
import dataclasses
import statistics
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.errors import InputError
from workbench.model.layers import MLMHead
from workbench.result import Result
from workbench.runs.run import ModelLike, as_model

if TYPE_CHECKING:
    import pandas as pd

    from workbench.model.transformer import HookedTransformer

_LINEAR = F.linear
_LINEAR_WEIGHTS = ("qkv_weight", "out_weight", "in_weight", "gate_weight", "unembed_weight")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Inference(Result):
    """Inference cost of a model at batch 1 on one thread."""

    ms_float32: float
    """Milliseconds per token."""
    ms_int8: float | None
    """The same with int8 matrices; None where this machine has no int8 engine."""
    bytes_float32: int
    """Bytes of the weights."""
    bytes_int8: int | None
    how: str
    """What was timed."""
    why_not: str | None = None
    """Why there is no int8 time."""

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per type: dtype, ms, bytes."""
        import pandas as pd

        rows = [("float32", self.ms_float32, self.bytes_float32), ("int8", self.ms_int8, self.bytes_int8)]
        return pd.DataFrame(rows, columns=["dtype", "ms", "bytes"])


def inference(model: ModelLike, seconds: float = 1.0) -> Inference:
    """Time a model at batch 1 on one thread of the CPU.

    A causal model reads one token after another with its key-value cache, from the middle of its context on.
    A masked model reads whole contexts; its time is divided by their length. float32 and int8 alternate, so
    that a busy machine disturbs both; the median of the repetitions is returned.

    Args:
        model: a run, a model or a run's name; it is moved to the CPU and to float32.
        seconds: approximate time to measure, for both together.
    """
    network = as_model(model).cpu().float().eval()
    config = network.config
    causal = config.objective == "clm"
    models, why_not = {"float32": network}, None
    try:
        models["int8"] = int8_copy(network)
    except InputError as error:
        why_not = str(error)
    times: dict[str, list[float]] = {"float32": [], "int8": []}
    timer = _time_one_by_one if causal else _time_whole_context
    with _one_thread(), torch.inference_mode():
        for variant in models.values():
            timer(variant)
        until = time.perf_counter() + seconds
        while len(times["float32"]) < 3 or time.perf_counter() < until:
            for name, variant in models.items():
                times[name].append(timer(variant))
    start = max(0, config.n_ctx // 2 - 1)
    return Inference(
        ms_float32=1000 * statistics.median(times["float32"]),
        ms_int8=1000 * statistics.median(times["int8"]) if times["int8"] else None,
        bytes_float32=4 * config.n_params,
        bytes_int8=int8_bytes(models["int8"]) if "int8" in models else None,
        how=f"one token after another with a key-value cache, from position {start} on"
        if causal
        else f"a whole context of {config.n_ctx} tokens at once, divided by its length",
        why_not=why_not,
    )


def _time_one_by_one(model: "HookedTransformer") -> float:
    """Return seconds per token over up to 32 tokens after half a context."""
    config = model.config
    start = max(0, config.n_ctx // 2 - 1)
    count = min(32, config.n_ctx - start)
    tokens = _random_tokens(model, start + count)
    cache = model.new_cache(1)
    if start:
        model.residual(tokens[:, :start], cache=cache)
    began = time.perf_counter()
    for place in range(start, start + count):
        model.unembed(model.residual(tokens[:, place : place + 1], cache=cache))
    return (time.perf_counter() - began) / count


def _time_whole_context(model: "HookedTransformer") -> float:
    """Return seconds per token of one forward pass over a whole context."""
    tokens = _random_tokens(model, model.config.n_ctx)
    began = time.perf_counter()
    model.unembed(model.residual(tokens))
    return (time.perf_counter() - began) / model.config.n_ctx


def _random_tokens(model: "HookedTransformer", count: int) -> Tensor:
    return torch.randint(model.config.d_vocab, (1, count), generator=torch.Generator().manual_seed(0))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Int8Weight:
    """Replaces a weight: `linear` multiplies by its int8 copy, everything else reads the float one.

    The product is that of PyTorch's quantised linear module (`torch.ops.quantized.linear_dynamic`, one scale
    per row), inside the same model. Operations that are not a product with a weight stay float32: embedding
    look-up, attention's products, norms.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach()
        self._packed: dict[int, tuple[Any, Any]] = {}
        with warnings.catch_warnings():
            # PyTorch calls the quantised tensors deprecated, but not their products.
            warnings.simplefilter("ignore")
            scale = (self.weight.abs().amax(1) / 127).clamp_min(1e-12).double()
            zeros = torch.zeros(len(scale), dtype=torch.long)
            self._int8 = torch.quantize_per_channel(self.weight, scale, zeros, 0, torch.qint8)

    @property
    def n_bytes(self) -> int:
        """Bytes of the int8 matrix with a float32 scale for each row."""
        return self.weight.numel() + 4 * len(self.weight)

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute `torch.nn.functional.linear`."""
        if id(bias) not in self._packed:
            packed = torch.ops.quantized.linear_prepack(self._int8, bias)
            self._packed[id(bias)] = packed, bias  # holding the bias keeps its id from being reused
        return torch.ops.quantized.linear_dynamic(x, self._packed[id(bias)][0], True)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.weight, name)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is _LINEAR:
            x, weight, *bias = args
            return weight.linear(x, *bias, **(kwargs or {}))
        plain = [value.weight if isinstance(value, cls) else value for value in args]
        return function(*plain, **(kwargs or {}))


def int8_copy(model: "HookedTransformer") -> "HookedTransformer":
    """Return a copy of the model that multiplies in int8, for inference without gradients on a CPU.

    Args:
        model: in float32.

    Raises:
        InputError: PyTorch has no int8 engine on this machine.
    """
    quantised = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        for module in quantised.modules():
            for name in list(module._parameters):
                weight = module._parameters[name]
                if weight is not None and weight.ndim == 2 and _read_by_linear(quantised, module, name):
                    del module._parameters[name]
                    setattr(module, name, Int8Weight(weight))
    except RuntimeError as error:
        raise InputError(
            f"int8 products are not possible here: {' '.join(str(error).split())[:120]}"
        ) from None
    return quantised


def _read_by_linear(model: "HookedTransformer", module: torch.nn.Module, name: str) -> bool:
    tied = model.config.tied
    if name == "W_E":
        return tied  # the unembedding too
    if name == "up_weight":
        return not tied  # a tied one is read in both directions
    return name in _LINEAR_WEIGHTS or (name == "weight" and isinstance(module, MLMHead))


def int8_bytes(model: "HookedTransformer") -> int:
    """Return the bytes of a model made by `int8_copy`: int8 matrices with their scales, the rest float32.

    A tied embedding is counted once, as int8: a look-up can scale its row as the product does.
    """
    seen = {
        id(value): value.n_bytes
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Int8Weight)
    }
    return sum(seen.values()) + 4 * sum(parameter.numel() for parameter in model.parameters())

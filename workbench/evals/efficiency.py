"""Milliseconds a token at batch 1 on one thread, in float32 and in int8."""

import contextlib
import copy
import dataclasses
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.errors import InputError
from workbench.model.layers import MLMHead

# A model whose matrices are int8 and whose activations are quantised as they come (dynamic quantisation).
#
# The same operation as PyTorch's quantised linear module (`torch.ops.quantized.linear_dynamic`, one scale
# for each row of a matrix), on the same matrices, inside the same model: only the product changes.
# Everything that is no matrix product with a weight stays float32: embedding look-up, attention's products,
# norms.


_LINEAR = F.linear
_PLAIN = ("qkv_weight", "out_weight", "in_weight", "gate_weight", "unembed_weight")


class Int8Weight:
    """Stands where a weight stood: `linear` multiplies by its int8 copy, all else reads the float one."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach()
        self._packed: dict[int, tuple[Any, Any]] = {}
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # the engine's tensors are called deprecated; their products are not
            scale = (self.weight.abs().amax(1) / 127).clamp_min(1e-12).double()
            zeros = torch.zeros(len(scale), dtype=torch.long)
            self._int8 = torch.quantize_per_channel(self.weight, scale, zeros, 0, torch.qint8)

    @property
    def n_bytes(self) -> int:
        """Bytes of the int8 matrix with a float32 scale for each row."""
        return self.weight.numel() + 4 * len(self.weight)

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`torch.nn.functional.linear`."""
        found = self._packed.get(id(bias))
        if found is None:
            packed = torch.ops.quantized.linear_prepack(self._int8, bias)
            found = self._packed[id(bias)] = (packed, bias)  # the bias is kept, so that its id stays its own
        return torch.ops.quantized.linear_dynamic(x, found[0], True)

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


def int8_copy(model: Any) -> Any:
    """A copy of the model that multiplies in int8; for inference without gradients, on a CPU.

    Args:
        model: a `HookedTransformer` in float32.

    Raises:
        InputError: PyTorch has no int8 engine on this machine.
    """
    made = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        for module in made.modules():
            for name in list(module._parameters):
                weight = module._parameters[name]
                if weight is not None and weight.ndim == 2 and _multiplies(made, module, name):
                    del module._parameters[name]
                    setattr(module, name, Int8Weight(weight))
    except RuntimeError as error:
        raise InputError(
            f"int8 products are not possible here: {' '.join(str(error).split())[:120]}"
        ) from None
    return made


def _multiplies(model: Any, module: Any, name: str) -> bool:
    """Whether this weight is read by `linear`."""
    tied = model.config.tied
    if name == "W_E":
        return tied  # the unembedding too
    if name == "up_weight":
        return not tied  # tied: read both ways round
    return name in _PLAIN or (name == "weight" and isinstance(module, MLMHead))


def int8_bytes(model: Any) -> int:
    """Bytes of a model that `int8_copy` made: int8 matrices with their scales, the rest float32. A tied
    embedding is counted once, as int8: a look-up can scale its row as the product does."""
    seen: dict[int, int] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Int8Weight):
                seen[id(value)] = value.n_bytes
    return sum(seen.values()) + 4 * sum(parameter.numel() for parameter in model.parameters())


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

"""Matrix products of a run that differs little from another, in bfloat16 without losing the difference.

Where a patched run reads x and the base run x0, `W x + b = (W x0 + b) + W (x - x0)`. The first term is known;
only the second is multiplied, in bfloat16, so that its three digits are of the difference itself and not
of two large numbers that nearly cancel.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.overrides import TorchFunctionMode

Product = tuple[Float[Tensor, "pair pos d_in"], Float[Tensor, "pair pos d_out"]]
"""What a linear map of the base run read and gave."""


class Products(TorchFunctionMode):
    """Keeps what every linear map of every block reads and gives, while a model runs inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = -1
        self.kept: dict[tuple[int, int], tuple[Tensor, Product]] = {}
        """By layer and the weight's place in memory: the weight, and its product."""
        self.rounded: dict[tuple[int, tuple[int, ...]], Tensor] = {}
        """Weights in bfloat16."""

    @contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Record the runs of a model inside."""

        def note(block: Any, given: Any) -> None:
            self.layer += 1

        handles = [block.register_forward_pre_hook(note) for block in model.blocks]
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run it; keep it if it is a linear map."""
        found = func(*args, **(kwargs or {}))
        if func is F.linear:
            weight = args[1]
            self.kept[self.layer, weight.data_ptr()] = weight, (args[0], found)
        return found

    def find(self, layer: int, weight: Tensor) -> Product | None:
        """The product of a weight, or of some rows of one."""
        whole = self.kept.get((layer, weight.data_ptr()))
        if whole is not None and whole[0].shape == weight.shape:
            return whole[1]
        for (mine, place), (kept, (read, given)) in self.kept.items():
            first, left = divmod(weight.data_ptr() - place, kept.stride(0) * kept.element_size())
            if mine == layer and not left and 0 <= first <= len(kept) - len(weight):
                return read, given[..., first : first + len(weight)]
        return None

    def round(self, weight: Tensor) -> Tensor:
        """A weight in bfloat16, made once."""
        key = weight.data_ptr(), tuple(weight.shape)
        if key not in self.rounded:
            self.rounded[key] = weight.detach().bfloat16()
        return self.rounded[key]


class Differences(TorchFunctionMode):
    """Inside it, a block's linear maps of tokens [row token d] add to the base run's products.

    Args:
        products: of the base run.
        layer: the block.
        pair: whose row of the base run each token belongs to.
        pos: its position there.
    """

    def __init__(
        self,
        products: Products,
        layer: int,
        pair: Int[Tensor, "#row #token"],
        pos: Int[Tensor, "#row #token"],
    ) -> None:
        super().__init__()
        self.products, self.layer, self.pair, self.pos = products, layer, pair, pos

    def __torch_function__(
        self,
        func: Callable,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run it; a linear map by the difference."""
        product = self.products.find(self.layer, args[1]) if func is F.linear else None
        if product is None:
            return func(*args, **(kwargs or {}))
        read, given = product
        change = (args[0] - read[self.pair, self.pos]).bfloat16()
        return given[self.pair, self.pos].add_(func(change, self.products.round(args[1])))

"""How many pairs a sweep can hold in memory at once."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError
from workbench.interp.patching.base_run import base_hooks
from workbench.interp.patching.metrics import Function, Metric
from workbench.model.cache_size import activation_bytes, at_most, free_memory, in_words


@dataclasses.dataclass(frozen=True)
class SomePairs(Metric):
    """A metric of many pairs, of a few of them."""

    whole: Metric
    first: int
    name: str
    reads: Int[Tensor, " pair"] | None

    @classmethod
    def of(cls, whole: Metric, some: slice) -> "SomePairs":
        """The metric of the pairs of a slice."""
        return cls(whole, some.start, whole.name, None if whole.reads is None else whole.reads[some])

    def __call__(
        self, model: Any, x: Float[Tensor, "row read d_readout"], pair: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        return self.whole(model, x, pair + self.first)


def pair_groups(
    model: Any,
    sides: Sequence[tuple[Tensor, Tensor | None]],
    names: Sequence[str],
    memory: int | None,
    rounded: bool = False,
) -> list[slice]:
    """Pairs that fit into memory together, with what both runs keep.

    Args:
        model: a `HookedTransformer`.
        sides: tokens [pair pos] and mask of both runs.
        names: hook points kept besides what a `Base` keeps.
        memory: bytes to be had; by default half of what is free.
        rounded: whether the patched run keeps its linear maps' products.

    Raises:
        InputError: one pair alone takes more.
    """
    pairs = len(sides[0][0])
    if memory is None:
        free = free_memory(model.device)
        memory = None if free is None else free // 2
    if memory is None or sum(at_most(model, *tokens.shape) for tokens, _ in sides) <= memory:
        return [slice(0, pairs)]
    wanted = {*names, *base_hooks(model)}
    each = sum(sum(activation_bytes(model, 1, tokens.shape[1], wanted).values()) for tokens, _ in sides)
    if rounded:  # queries, what the output projection and the MLPs read, and what all of them give
        config, (_, length) = model.config, sides[0][0].shape
        width = 8 * config.d_model + 4 * config.mlp_width * config.mlp_depth
        each += length * config.n_layers * width * model.embed.W_E.element_size()
    size = memory // each
    if size < 1:
        raise InputError(
            f"the activations of one pair take {in_words(each)}, and {in_words(memory)} are there for them; "
            "choose fewer layers, a smaller site or shorter prompts, or give more memory."
        )
    return [slice(first, min(first + size, pairs)) for first in range(0, pairs, size)]


def refuse_split(metric: Metric, values: str, groups: int) -> None:
    """Refuse what needs all pairs at once.

    Raises:
        InputError: with what does.
    """
    whole = "a function of the logits" if isinstance(metric, Function) else None
    whole = f"values={values!r}" if values in ("mean", "resample") else whole
    if whole is not None:
        raise InputError(
            f"the pairs fit into memory in {groups} groups only, and {whole} needs all of them at once; give "
            "fewer or shorter pairs, fewer layers, or more memory."
        )
